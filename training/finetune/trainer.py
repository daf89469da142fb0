"""TRL's SFT trainer, with what makes it quick on processors. No Django.

Measured on two cores with a base of 6 M parameters (rank 16, 180 tokens a row): 5,000 tokens per processor second,
where a plain loop over full logits in fp32 makes 1,400. Where from: logits only where there is something to learn, bf16
where the processor has it, dropout from random bytes, rows of like length in one batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import SFTConfig, SFTTrainer

from training.finetune import world
from training.finetune.order import batch_count, even_batches, length_order
from training.finetune.rows import IGNORED

MEASURES = {
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
    "rewards/chosen": "reward_good",
    "rewards/rejected": "reward_bad",
    "kl": "kl",
}
"""What DPO and KTO log beside the loss, and how it is called on the page."""


class ByteDropout(nn.Module):
    """Dropout whose mask comes from random bytes: eight decisions per draw of the generator, not one.

    The share is rounded to 1/256; what is kept is scaled, so that the expectation stays exact.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.threshold = round(share * 256)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.threshold:
            return x
        count = x.numel()
        words = torch.empty((count + 7) // 8, dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[:count].view(x.shape) >= self.threshold
        return x * kept.to(x.dtype).mul_(256 / (256 - self.threshold))


def use_byte_dropout(model: nn.Module, share: float) -> None:
    """Replaces the dropout of every LoRA layer; for processors only (a GPU draws fast enough)."""
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if isinstance(dropouts, nn.ModuleDict):
            for name in dropouts:
                dropouts[name] = ByteDropout(share)


class LengthGroups(torch.utils.data.Sampler[int]):
    """Rows of like length in one batch, in an order of its own for each epoch (`training.finetune.order`)."""

    def __init__(self, lengths: Sequence[int], batch: int, seed: int) -> None:
        self.lengths, self.batch, self.seed, self.epoch = lengths, batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        return iter(length_order(self.lengths, self.batch, self.seed, self.epoch))


class EvenBatches(torch.utils.data.Sampler[list[int]]):
    """As many batches for each process, each row once (`training.finetune.order.even_batches`). ``batch_size`` is
    None: accelerate must take the batches as they are.

    ``epoch`` is asked when an epoch begins, and told to the sampler: what accelerate wraps around a run that goes on in
    the middle of an epoch does not pass it on, and rows would be seen twice or never.
    """

    batch_size = None
    drop_last = False

    def __init__(self, sampler: Any, batch: int, processes: int, epoch: Callable[[], int]) -> None:
        self.sampler, self.batch, self.processes, self.epoch = sampler, batch, processes, epoch

    def __len__(self) -> int:
        return batch_count(len(self.sampler), self.batch, self.processes) * self.processes

    def __iter__(self) -> Iterator[list[int]]:
        self.sampler.set_epoch(self.epoch())
        return iter(even_batches(self.sampler, self.batch, self.processes))


class SharedRows:
    """Of a trainer: several processes share the rows of each step, and together see what one would see."""

    def get_train_dataloader(self) -> Any:
        trainer: Any = self
        if world.size() == 1:
            return super().get_train_dataloader()  # type: ignore[misc]
        dataset = trainer._remove_unused_columns(trainer.train_dataset, description="training")

        def epoch() -> int:
            steps = math.ceil(len(batches) / world.size() / trainer.args.gradient_accumulation_steps)
            return int(trainer.state.global_step) // steps

        batches = EvenBatches(trainer._get_train_sampler(), trainer.args.train_batch_size, world.size(), epoch)
        loader = torch.utils.data.DataLoader(
            dataset,
            batch_sampler=batches,
            collate_fn=trainer.data_collator,
            pin_memory=trainer.args.dataloader_pin_memory,
        )
        return trainer.accelerator.prepare(loader)


class QuickSFTTrainer(SharedRows, SFTTrainer):
    """``autocast`` makes the context of the forward pass (bf16 on a processor); None leaves the loss to the library."""

    def __init__(
        self, *args: Any, autocast: Callable[[], AbstractContextManager[Any]] | None = None, **kwargs: Any
    ) -> None:
        self.autocast = autocast
        self.tokens_seen = 0
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroups:
        lengths = [len(ids) for ids in self.train_dataset["input_ids"]]
        return LengthGroups(lengths, self.args.train_batch_size, self.args.seed)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if model.training:
            self.tokens_seen += int(inputs["attention_mask"].sum())
        if self.autocast is None or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        with self.autocast():
            return completion_loss(model, inputs, num_items_in_batch)

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None beside checkpoints: the adapter's card is written from the facts at the end."""


def completion_loss(model: Any, inputs: dict[str, Any], items: Any = None) -> Tensor:
    """Mean cross-entropy over the labelled tokens of the batch (over ``items`` where a step has several batches).

    The vocabulary is by far the widest layer of a small model, so it is applied to labelled positions only.
    """
    base = model.get_base_model()
    hidden = base.base_model(
        input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"], use_cache=False
    ).last_hidden_state[:, :-1]
    labels = inputs["labels"][:, 1:]
    mask = labels != IGNORED
    logits = base.get_output_embeddings()(hidden[mask]).float()
    total = nn.functional.cross_entropy(logits, labels[mask], reduction="sum")
    count = items if items is not None else mask.sum().clamp(min=1)
    return total / count


class Progress(TrainerCallback):
    """Reports steps, asks for checkpoints by time, and stops when asked to."""

    def __init__(self, report: Any, stop: Any, *, seconds: float, every: int, after_save: Any) -> None:
        self.report, self.stop, self.seconds, self.every = report, stop, seconds, every
        self.after_save = after_save
        self.trainer: Any = None
        self._started = self._saved = self._logged = time.monotonic()
        self._first_step = 0
        self._tokens = 0

    def on_train_begin(self, args: SFTConfig, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._started = self._saved = self._logged = time.monotonic()
        self._first_step = state.global_step

    def on_step_begin(self, args: SFTConfig, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Dropout becomes a function of seed and step: a resumed run ends at the weights of an uninterrupted one.
        # Each process draws its own: they have different rows.
        torch.manual_seed(args.seed * 1_000_003 + state.global_step + 500_009 * world.rank())

    def on_step_end(self, args: SFTConfig, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        timely = time.monotonic() - self._saved >= self.seconds
        due = timely or bool(self.every and state.global_step % self.every == 0)
        self.stop.is_set, due = world.any_of(self.stop.is_set, due)
        if self.stop.is_set:
            control.should_training_stop = control.should_save = True
        elif due and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: SFTConfig, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._saved = time.monotonic()
        world.wait()  # each process has a file of its own in it
        if world.is_first():
            self.after_save(state.global_step)
        self.report("checkpoint", step=state.global_step)

    def on_log(
        self, args: SFTConfig, state: TrainerState, control: TrainerControl, logs: dict[str, float], **kwargs: Any
    ) -> None:
        assert self.trainer is not None
        if "eval_loss" in logs:
            loss = round(logs["eval_loss"], 5)
            self.report("validation", step=state.global_step, epoch=round(state.epoch or 0, 2), loss=loss)
            self._logged = time.monotonic()  # what validation took is no training time
        if "loss" not in logs:
            return
        if not math.isfinite(logs["loss"]):
            raise FloatingPointError("The loss is no longer a number. Lower the learning rate.")
        now, tokens = time.monotonic(), self.trainer.tokens_seen
        rate = world.size() * (tokens - self._tokens) / max(now - self._logged, 1e-6)
        done = state.global_step - self._first_step
        eta = (now - self._started) / max(done, 1) * (state.max_steps - state.global_step)
        self._logged, self._tokens = now, tokens
        self.report(
            "step",
            step=state.global_step,
            steps=state.max_steps,
            epoch=round(state.epoch or 0, 2),
            loss=round(logs["loss"], 5),
            learning_rate=logs.get("learning_rate"),
            tokens_per_second=round(rate),
            eta_seconds=round(eta, 1),
            measures={short: round(logs[name], 5) for name, short in MEASURES.items() if name in logs},
        )
