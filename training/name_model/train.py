"""Trains the name model: `python -m training.name_model.train --data FOLDER --out FOLDER --minutes 35`.

The schedule follows the clock: whatever the machine manages in the given minutes, the learning rate ends at zero. An
interrupted run goes on from its last checkpoint with the minutes that were left. Each process has one thread and its
own batches; gradients are averaged at every step.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from privacy.name_model.weights import DELTA, encoder_folder
from training.name_model.network import NameNetwork
from training.name_model.rows import IGNORED, Row, batches, read_rows

CHECKPOINT = "checkpoint.pt"
_WARM_UP_SECONDS = 30.0
_CHECKPOINT_SECONDS = 120.0


@dataclass(frozen=True)
class Settings:
    data: Path
    out: Path
    minutes: float
    layers: int = 4
    rank: int = 32
    rate: float = 1e-3
    tokens: int = 768
    """Of one process and step."""
    processes: int = 2
    seed: int = 7


def loss_of(network: NameNetwork, batch: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of the pieces that have a label."""
    ids, features, mask, labels = batch
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(ids, features, mask)
    return F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED)


def held_out_figures(network: NameNetwork, rows: list[Row]) -> dict[str, float]:
    """Loss, and how many of the pieces of names are told from the rest (any type), on held-out rows."""
    losses, hits, wanted, claimed = [], 0, 0, 0
    network.eval()
    with torch.inference_mode():
        for ids, features, mask, labels in batches(rows, 4096, None):
            logits = network(ids, features, mask)
            losses.append(float(F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)))
            known = labels != IGNORED
            said = logits.argmax(-1) > 0
            hits += int((said & (labels > 0)).sum())
            wanted += int((labels > 0).sum())
            claimed += int((said & known).sum())
    network.train()
    return {"loss": sum(losses) / len(losses), "recall": hits / max(1, wanted), "precision": hits / max(1, claimed)}


def train(process: int, settings: Settings, meeting: str) -> None:
    """One process of a training: the given minutes, or the rest of them. `meeting` is a file that does not exist yet.

    The first process writes checkpoint.pt, log.jsonl and, at the end, delta.safetensors.
    """
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=process, world_size=settings.processes)
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)
    settings.out.mkdir(parents=True, exist_ok=True)
    rows = read_rows(settings.data / "train.jsonl", encoder_folder())
    held_out = read_rows(settings.data / "held_out.jsonl", encoder_folder())
    network = NameNetwork(encoder_folder(), layers=settings.layers, rank=settings.rank)
    network.train()
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=settings.rate, weight_decay=0.01)
    spent, steps, tokens, epoch = _resume(settings, network, optimiser)
    limit = settings.minutes * 60
    saved = last = time.perf_counter()
    first = process == 0
    if first:
        size = sum(parameter.numel() for parameter in trained)
        print(json.dumps({"rows": len(rows), "trained": size, "from": round(spent)}), flush=True)
    while spent < limit:
        # An interrupted epoch is not repeated: the next one has another order.
        order = random.Random(settings.seed + 1000 * epoch + process)
        for batch in batches(rows, settings.tokens, order):
            rate = settings.rate * min(1.0, (spent + 1) / _WARM_UP_SECONDS) * max(0.0, 1 - spent / limit)
            for group in optimiser.param_groups:
                group["lr"] = rate
            loss = loss_of(network, batch)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            _average(trained)
            torch.nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
            steps, tokens = steps + 1, tokens + int(batch[2].sum()) * settings.processes
            now = time.perf_counter()
            spent, last = _agreed(spent + now - last), now
            if first and steps % 50 == 0:
                said = round(float(loss.detach()), 4)
                _log(settings.out, {"s": round(spent), "steps": steps, "tokens": tokens, "loss": said})
            if first and now - saved > _CHECKPOINT_SECONDS:
                _save(settings.out, network, optimiser, (spent, steps, tokens, epoch + 1))
                saved = now
            if spent >= limit:
                break
        epoch += 1
    if first:
        _save(settings.out, network, optimiser, (spent, steps, tokens, epoch))
        figures = held_out_figures(network, held_out)
        _log(settings.out, {"s": round(spent), "steps": steps, "tokens": tokens, "epochs": epoch, "held_out": figures})
        told = {**vars(settings), "steps": steps, "pieces": tokens}
        save_file(network.delta(), settings.out / DELTA, metadata={name: str(value) for name, value in told.items()})
    dist.destroy_process_group()


def _average(parameters: list[torch.nn.Parameter]) -> None:
    """Every process goes on with the mean of all gradients."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = 0
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
        at += gradient.numel()


def _agreed(seconds: float) -> float:
    """The clock of the first process, so that all have one learning rate and stop at the same step."""
    clock = torch.tensor(seconds, dtype=torch.float64)
    dist.broadcast(clock, src=0)
    return float(clock)


def _resume(settings: Settings, network: NameNetwork, optimiser: torch.optim.Optimizer) -> tuple[float, int, int, int]:
    path = settings.out / CHECKPOINT
    if not path.is_file():
        return 0.0, 0, 0, 0
    state = torch.load(path, weights_only=True)
    network.load_state_dict(state["network"], strict=False)
    optimiser.load_state_dict(state["optimiser"])
    spent, steps, tokens, epoch = state["progress"]
    return float(spent), int(steps), int(tokens), int(epoch)


def _save(
    out: Path, network: NameNetwork, optimiser: torch.optim.Optimizer, progress: tuple[float, int, int, int]
) -> None:
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    temporary = out / f"{CHECKPOINT}.part"
    torch.save({"network": trained, "optimiser": optimiser.state_dict(), "progress": progress}, temporary)
    temporary.replace(out / CHECKPOINT)


def _log(out: Path, entry: dict[str, object]) -> None:
    print(json.dumps(entry), flush=True)
    with (out / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def main() -> None:
    """Reads the settings from the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, required=True)
    for name in ("layers", "rank", "tokens", "processes", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(Settings, name))
    parser.add_argument("--rate", type=float, default=Settings.rate)
    settings = Settings(**vars(parser.parse_args()))
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder) / "meeting")
        spawn(train, (settings, meeting), nprocs=settings.processes)


if __name__ == "__main__":
    main()
