"""What happens between epochs: a few fixed questions are answered to read along, and the best weights are kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from peft import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from training.finetune import world
from training.finetune.rows import IGNORED, Row, Tokens


class Samples(TrainerCallback):
    """Answers the same validation rows at the end of each epoch, greedily; with ``seconds`` also at checkpoints, at
    most so often."""

    def __init__(
        self,
        rows: Sequence[tuple[Row, Tokens]],
        *,
        tokenizer: Any,
        new_tokens: int,
        autocast: Callable[[], AbstractContextManager[Any]],
        report: Any,
        seconds: float = 0.0,
    ) -> None:
        self.seconds, self._last = seconds, time.monotonic()
        self.rows, self.tokenizer, self.new_tokens = rows, tokenizer, new_tokens
        self.autocast, self.report = autocast, report

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        self._tell(state, control, model)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, model: Any = None, **kwargs: Any
    ) -> None:
        if self.seconds and time.monotonic() - self._last >= self.seconds:
            self._tell(state, control, model)

    def _tell(self, state: TrainerState, control: TrainerControl, model: Any) -> None:
        if (
            not self.rows
            or not world.is_first()
            or (control.should_training_stop and state.global_step < state.max_steps)
        ):
            return
        self._last = time.monotonic()
        answers = self.answer(model)
        samples = [
            {"question": row.question[:300], "wanted": row.wanted[:600], "answer": answer[:600]}
            for (row, _), answer in zip(self.rows, answers, strict=True)
        ]
        self.report("samples", step=state.global_step, epoch=round(state.epoch or 0, 2), samples=samples)

    def answer(self, model: Any) -> list[str]:
        """One completion per row, shape of the batch (rows, longest prompt), padded on the left."""
        prompts = [
            [t for t, label in zip(k.input_ids, k.labels, strict=True) if label == IGNORED] for _, k in self.rows
        ]
        width = max(map(len, prompts))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=model.device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=model.device)
        model.eval()
        with torch.no_grad(), self.autocast():
            out = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=self.new_tokens, do_sample=False, pad_token_id=pad
            )
        model.train()
        return [text.strip() for text in self.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)]


class Best(TrainerCallback):
    """Keeps the weights of the evaluation with the lowest loss on disk, where a resumed run finds them again."""

    def __init__(self, folder: Path) -> None:
        self.weights, self.record = folder / "best.safetensors", folder / "best.json"

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float],
        model: Any = None,
        **kwargs: Any,
    ) -> None:
        if not world.is_first() or metrics["eval_loss"] >= self.loss():
            return
        temporary = self.weights.with_suffix(".new")
        save_file({k: v.contiguous() for k, v in get_peft_model_state_dict(model).items()}, temporary)
        temporary.rename(self.weights)
        self.record.write_text(json.dumps({"step": state.global_step, "loss": metrics["eval_loss"]}))

    def loss(self) -> float:
        try:
            return float(json.loads(self.record.read_bytes())["loss"])
        except (OSError, ValueError, KeyError):
            return float("inf")

    def restore(self, model: Any) -> int | None:
        """Puts the best weights into ``model``; returns their step, None when there are none."""
        if self.loss() == float("inf") or not self.weights.exists():
            return None
        set_peft_model_state_dict(model, load_file(self.weights))
        return int(json.loads(self.record.read_bytes())["step"])
