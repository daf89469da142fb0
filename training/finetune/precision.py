"""Which precision trains faster on this processor: measured, because it depends on instructions that differ by model.

bf16 doubles the speed where the processor multiplies it natively and halves it where it must be emulated. No Django.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch

from training.finetune.rows import Tokens

REPEATS = 2
CLEARLY = 0.9
"""bf16 must take less than this share of the time of fp32: it is a little less exact."""


def faster_precision(model: Any, tokens: Sequence[Tokens]) -> str:
    """``fp32`` or ``bf16`` for ``model`` (in fp32), tried on a batch of rows, forward and backward."""
    width = max(len(t.input_ids) for t in tokens)
    ids = torch.tensor([t.input_ids + [0] * (width - len(t.input_ids)) for t in tokens])
    seconds = {"fp32": _seconds(model, ids, nullcontext())}
    rounded = copy.deepcopy(model).to(torch.bfloat16)  # a copy: rounding cannot be undone
    seconds["bf16"] = _seconds(rounded, ids, torch.autocast("cpu", torch.bfloat16))
    return "bf16" if seconds["bf16"] < CLEARLY * seconds["fp32"] else "fp32"


def _seconds(model: Any, ids: torch.Tensor, context: Any) -> float:
    """Processor seconds of one pass, the first not counted: it sets things up."""
    total = 0.0
    embedded = model.get_input_embeddings()(ids).detach()
    for attempt in range(REPEATS + 1):
        begin = time.process_time()
        inputs = embedded.clone().requires_grad_()
        with context:
            hidden = model.base_model(inputs_embeds=inputs, use_cache=False).last_hidden_state
        hidden.float().square().mean().backward(inputs=[inputs])
        total += (time.process_time() - begin) * (attempt > 0)
    return total / REPEATS
