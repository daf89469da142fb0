"""TRL's DPO and KTO trainers on rows that are tokens already. No Django.

What is set against TRL's defaults: rows are tokenised by us and never cut (its default keeps 1,024 tokens from the
start, so that it is the answer which goes); the reference is computed once, before the first step, with the adapter as
it was at the start (its own copy of the adapter is then dropped, so that checkpoints hold one); no gradient
checkpointing; bf16 only where it was measured to be faster; KTO's partners never the row itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from transformers.trainer_callback import PrinterCallback, ProgressCallback
from trl import DPOTrainer, KTOTrainer

from training.finetune.order import batch_order
from training.finetune.trainer import LengthGroups, SharedRows


class FixedBatches(torch.utils.data.Sampler[int]):
    """Batches as they were arranged, in another order each epoch."""

    def __init__(self, rows: int, batch: int, seed: int) -> None:
        self.rows, self.batch, self.seed, self.epoch = rows, batch, seed, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        return batch_order(self.rows, self.batch, self.seed, self.epoch)


class _Prepared:
    """What both trainers share. ``autocast`` makes the context of every pass (bf16 on a processor)."""

    autocast: Callable[[], AbstractContextManager[Any]]
    tokens_seen: int

    def begin(self, autocast: Callable[[], AbstractContextManager[Any]] | None) -> None:
        self.autocast = autocast or nullcontext
        self.tokens_seen = 0

    def settle(self) -> None:
        """After the reference was computed: the copy that it was computed with goes."""
        trainer: Any = self
        trainer.remove_callback(PrinterCallback)
        trainer.remove_callback(ProgressCallback)
        if "ref" in trainer.model.peft_config:
            trainer.model.delete_adapter("ref")
            trainer.model.set_adapter("default")

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None beside checkpoints: the adapter's card is written from the facts at the end."""


class QuickDPOTrainer(_Prepared, SharedRows, DPOTrainer):
    def __init__(self, *args: Any, autocast: Callable[[], AbstractContextManager[Any]] | None = None, **kw: Any):
        self.begin(autocast)
        super().__init__(*args, **kw)
        self.settle()

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroups:
        rows = self.train_dataset
        columns = zip(rows["prompt_ids"], rows["chosen_ids"], rows["rejected_ids"], strict=True)
        lengths = [len(prompt) + max(len(better), len(worse)) for prompt, better, worse in columns]
        return LengthGroups(lengths, self.args.train_batch_size, self.args.seed)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if model.training:
            self.tokens_seen += int(inputs["attention_mask"].sum())
        with self.autocast():
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        with self.autocast():
            return super().compute_ref_log_probs(model, inputs)


class QuickKTOTrainer(_Prepared, SharedRows, KTOTrainer):
    def __init__(self, *args: Any, autocast: Callable[[], AbstractContextManager[Any]] | None = None, **kw: Any):
        self.begin(autocast)
        super().__init__(*args, **kw)
        self.settle()

    def _get_train_sampler(self, train_dataset: Any = None) -> FixedBatches:
        return FixedBatches(len(self.train_dataset), self.args.train_batch_size, self.args.seed)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if model.training:
            self.tokens_seen += int(inputs["attention_mask"].sum())
        with self.autocast():
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
        with self.autocast():
            return super().compute_ref_log_probs(model, inputs)
