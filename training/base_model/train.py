"""Trains the base model: ``python -m training.base_model.train --data FOLDER --out FOLDER --minutes 45``.

The schedule follows the clock: whatever the machine manages in the given minutes, the learning rate ends at zero. An
interrupted run continues from its last checkpoint with the minutes that were left.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from training.base_model import processes
from training.base_model.architecture import Network, Shape
from training.base_model.circuits import wire, wired
from training.base_model.optimiser import Optimiser
from training.base_model.packing import FIRST
from training.base_model.rows import Batch, Shards, make_batch, read_shard

CHECKPOINT = "checkpoint.pt"
_WARM_UP_STEPS = 30
_DECAY_SHARE = 0.5
_VALIDATION_ROWS = 40


@dataclass(frozen=True)
class Settings:
    data: Path
    out: Path
    minutes: float
    rows: int = 10
    micro: int = 5
    stages: tuple[tuple[str, float], ...] = (("1", 0.25), ("2", 1.0))
    """(stage, share of the time at which it ends), in order."""
    peak: float = 1.0
    """Scale of the learning rates; a continued training takes less."""
    start: Path | None = None
    """Run or model folder whose weights to begin with, instead of the wired ones."""
    seed: int = 0
    checkpoint_seconds: float = 120.0
    device: str = "cpu"
    embedding_rate: float = 1e-4
    keep_wired: bool = True


def weighted_loss(network: Network, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """(weighted mean loss, per-target losses, per-target codes); the output layer runs on weighted positions only."""
    hidden = network.hidden(batch.ids, batch.positions, batch.allowed)
    chosen = batch.weights > 0
    logits = network.logits(hidden[chosen]).float()
    losses = F.cross_entropy(logits, torch.roll(batch.ids, -1, 1)[chosen], reduction="none")
    weights = batch.weights[chosen]
    return (losses * weights).sum() / weights.sum(), losses, batch.codes[chosen]


def first_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of a run folder, else of an exported model folder (as float32).

    Raises:
        FileNotFoundError: it holds neither.
    """
    if (folder / CHECKPOINT).is_file():
        begun: dict[str, Tensor] = torch.load(folder / CHECKPOINT, map_location="cpu", weights_only=True)["network"]
        return begun
    from safetensors.torch import load_file

    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"neither {CHECKPOINT} nor model.safetensors in {folder}")
    return {name: tensor.float() for name, tensor in load_file(folder / "model.safetensors").items()}


class Trainer:
    """One of the processes; the first one writes and speaks. ``elapsed`` counts training seconds over all resumes."""

    def __init__(self, settings: Settings, rank: int = 0) -> None:
        self.settings, self.rank = settings, rank
        torch.manual_seed(settings.seed)
        self.network = Network(Shape())
        matched = wire(self.network, settings.seed)
        if settings.start:
            self.network.load_state_dict(first_weights(settings.start))
        self.network.to(settings.device)
        kept = wired(self.network.shape) if settings.keep_wired else None
        self.optimiser = Optimiser(self.network, embedding_rate=settings.embedding_rate, kept=kept)
        self.generator = torch.Generator().manual_seed(settings.seed + 1 + rank)
        self.elapsed, self.steps, self.tokens, self.average = 0.0, 0, 0, 0.0
        self.shards = {
            stage: Shards(settings.data, stage, settings.seed, (rank, processes.count()))
            for stage, _ in settings.stages
        }
        self._say(event="start", parameters=sum(p.numel() for p in self.optimiser.parameters), match_dimensions=matched)
        settings.out.mkdir(parents=True, exist_ok=True)
        if (settings.out / CHECKPOINT).exists():
            self._resume()

    def run(self) -> None:
        """Trains until the minutes are used up."""
        budget = self.settings.minutes * 60
        began, before = time.monotonic(), self.elapsed
        saved, validated = self.elapsed, -1e9
        while self.elapsed < budget:
            norm = self._step(self.elapsed / budget)
            self.elapsed = processes.agreed(before + time.monotonic() - began)
            if self.steps % 20 == 0:
                speed = round(self.tokens / self.elapsed)
                self._say(
                    event="step",
                    step=self.steps,
                    share=round(self.elapsed / budget, 3),
                    loss=round(self.average, 3),
                    gradient=round(norm, 2),
                    tokens=self.tokens,
                    tokens_per_second=speed,
                )
            if self.elapsed - validated > 240:
                validated = self.elapsed
                if self.rank == 0:
                    self._say(event="validation", step=self.steps, tokens=self.tokens, **self.validate())
            if self.elapsed - saved > self.settings.checkpoint_seconds:
                saved = self.elapsed
                self.save()
        self.save()
        if self.rank:
            return
        self._say(event="done", step=self.steps, tokens=self.tokens, seconds=round(self.elapsed), **self.validate())

    def _step(self, share: float) -> float:
        settings = self.settings
        stage = next((name for name, end in settings.stages if share < end), settings.stages[-1][0])
        warm = min(1.0, (self.steps + 1) / _WARM_UP_STEPS)
        scale = settings.peak * warm * min(1.0, max(0.01, (1 - share) / _DECAY_SHARE))
        self.optimiser.zero()
        parts = [self._batch(stage) for _ in range(settings.rows // settings.micro // processes.count())]
        total = sum(float(part.weights.sum()) for part in parts)
        loss_sum = 0.0
        for part in parts:
            with torch.autocast(settings.device, dtype=torch.bfloat16):
                loss, _, _ = weighted_loss(self.network, part)
            portion = float(part.weights.sum()) / total
            (loss * portion).backward()
            loss_sum += float(loss.detach()) * portion
            self.tokens += int(part.positions.numel()) * processes.count()
        processes.average_gradients(self.optimiser.parameters)
        norm = self.optimiser.step(scale)
        self.steps += 1
        self.average = loss_sum if self.steps == 1 else 0.95 * self.average + 0.05 * loss_sum
        return norm

    def _batch(self, stage: str) -> Batch:
        batch = make_batch(self.shards[stage].next_rows(self.settings.micro), self.generator)
        return self._moved(batch)

    def _moved(self, batch: Batch) -> Batch:
        device = self.settings.device
        if device == "cpu":
            return batch
        return Batch(*(t.to(device) for t in (batch.ids, batch.positions, batch.allowed, batch.weights, batch.codes)))

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss of answer tokens and of the choice of the sentence, on held-out rows; empty without them."""
        shards = sorted(self.settings.data.glob("held-*.npz"))
        if not shards:
            return {}
        arrays = {name: array[:_VALIDATION_ROWS] for name, array in read_shard(shards[0]).items()}
        with torch.autocast(self.settings.device, dtype=torch.bfloat16):
            _, losses, codes = weighted_loss(self.network, self._moved(make_batch(arrays)))
        first = codes == FIRST
        likely = (losses < 0.6931).float()
        return {
            "answer_loss": round(float(losses.mean()), 3), "likely": round(float(likely.mean()), 3),
            "first_loss": round(float(losses[first].mean()), 3), "first_likely": round(float(likely[first].mean()), 3),
        }  # fmt: skip

    def save(self) -> None:
        """Writes the checkpoint under another name first: a crash leaves the previous one whole."""
        if self.rank:
            return
        state: dict[str, Any] = {
            "network": self.network.state_dict(), "optimiser": self.optimiser.state(), "elapsed": self.elapsed,
            "steps": self.steps, "tokens": self.tokens, "average": self.average,
        }  # fmt: skip
        path = self.settings.out / CHECKPOINT
        torch.save(state, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)

    def _resume(self) -> None:
        state = torch.load(self.settings.out / CHECKPOINT, map_location=self.settings.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimiser.load(state["optimiser"])
        self.elapsed, self.steps, self.tokens = state["elapsed"], state["steps"], state["tokens"]
        self.average = state["average"]
        self.generator.manual_seed(self.settings.seed + 1 + self.rank + self.steps)
        self._say(event="resumed", step=self.steps, seconds=round(self.elapsed))

    def _say(self, **fields: object) -> None:
        if self.rank == 0:
            print(json.dumps(fields), file=sys.stdout, flush=True)


def _stages(text: str) -> tuple[tuple[str, float], ...]:
    """``1:0.25,2:1`` → (("1", 0.25), ("2", 1.0)). Raises ValueError (argparse reports it)."""
    pairs = (part.split(":") for part in text.split(","))
    return tuple((stage, float(end)) for stage, end in pairs)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that training.base_model.generate filled")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint")
    parser.add_argument("--minutes", type=float, default=45.0, help="training time over all resumes")
    parser.add_argument("--rows", type=int, default=10, help="rows of 512 tokens per step")
    parser.add_argument("--micro", type=int, default=5, help="rows per forward pass (divides --rows)")
    parser.add_argument("--stages", type=_stages, default="1:0.25,2:1", help="stage:share of the time at which it ends")
    parser.add_argument("--peak", type=float, default=1.0, help="scale of the learning rates")
    parser.add_argument("--start", type=Path, help="run or model folder to take the first weights from")
    parser.add_argument("--processes", type=int, default=1, help="CPU cores: one process of one thread each")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--embedding-rate", type=float, default=1e-4, help="learning rate of the embeddings")
    parser.add_argument(
        "--keep-wired",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="the wired heads stay as they are (trained, they lose rare words)",
    )
    options = parser.parse_args(argv)
    if options.rows % (options.micro * options.processes):
        parser.error("--rows must be a multiple of --micro times --processes")
    torch.set_num_threads(1)
    settings = Settings(
        data=options.data,
        out=options.out,
        minutes=options.minutes,
        rows=options.rows,
        micro=options.micro,
        stages=options.stages,
        peak=options.peak,
        start=options.start,
        seed=options.seed,
        device=options.device,
        embedding_rate=options.embedding_rate,
        keep_wired=options.keep_wired,
    )
    processes.run(partial(_train, settings), options.processes)
    return 0


def _train(settings: Settings, rank: int) -> None:
    Trainer(settings, rank).run()


if __name__ == "__main__":
    raise SystemExit(main())
