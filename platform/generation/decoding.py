"""The one decoding loop: greedy, batched, step by step, with rows that join and leave at any step.

Everything that our engines write goes through `Batch`: bulk work, single answers and streams. Rows of one batch may use
different adapters. A row that joins is read alone with the others that join (its prompt
costs the rest one longer step) and its key-value cache is then stacked under theirs, padded on the left; a row that has
ended leaves at once. Rotary positions are each row's own, so a row's tokens do not depend on its neighbours beyond the
rounding of the matrix products.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from generation.engines import FinishReason
from generation.loops import LoopWatch

if TYPE_CHECKING:
    import torch


@dataclass(eq=False)
class Row:
    """One completion in the making."""

    prompt: list[int]
    max_new_tokens: int
    adapter: str | None = None
    tokens: list[int] = field(default_factory=list)
    """What was written so far, without the end token."""
    finish: FinishReason | None = None
    """Set from outside to make the row leave before its end."""
    looped: bool = False
    """It ran into a loop; ``tokens`` hold the repeated block once."""
    cut_loops: bool = True
    watch: LoopWatch = field(init=False)

    def __post_init__(self) -> None:
        self.watch = LoopWatch(self.prompt)

    @property
    def settled(self) -> list[int]:
        """The tokens that nothing will take back; all of them once the row has ended."""
        pending = self.watch.pending if self.finish is None and self.cut_loops else 0
        return self.tokens[: len(self.tokens) - pending]

    def append(self, token: int) -> None:
        """One more token, and what follows from it."""
        self.tokens.append(token)
        if self.cut_loops and (repeated := self.watch.follow(self.tokens)):
            del self.tokens[-repeated:]
            self.looped, self.finish = True, self.finish or "stop"
        elif len(self.tokens) >= self.max_new_tokens:
            self.finish = self.finish or "length"


class ModelSource(Protocol):
    """Where a batch finds its model at every step: loading an adapter between two steps may wrap it anew."""

    @property
    def device(self) -> torch.device:
        """Where its inputs must be."""
        ...

    def forward(self, adapters: Sequence[str | None], **inputs: Any) -> Any:
        """One pass, row i with ``adapters[i]``; the output has ``logits`` (rows, 1, vocabulary)."""
        ...


class Batch:
    """Rows that are decoded together. Not safe for use from several threads."""

    def __init__(self, source: ModelSource, *, end_tokens: frozenset[int], pad_token: int) -> None:
        self.rows: list[Row] = []
        self._source = source
        self._end_tokens = end_tokens
        self._pad = pad_token
        self._device = source.device
        self._cache: Any = None
        self._mask: torch.Tensor | None = None  # (rows, cached tokens), 1 where a token is real

    def add(self, rows: Sequence[Row]) -> None:
        """Reads the prompts of new rows and writes the first token of each."""
        import torch
        from transformers import DynamicCache

        width = max(len(row.prompt) for row in rows)
        ids = torch.full((len(rows), width), self._pad, dtype=torch.long)
        mask = torch.zeros((len(rows), width), dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, width - len(row.prompt) :] = torch.tensor(row.prompt)
            mask[i, width - len(row.prompt) :] = 1
        mask = mask.to(self._device)
        cache = DynamicCache()
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        following = self._forward(ids.to(self._device), mask, positions, cache, rows)
        if self._cache is None:
            self._cache, self._mask = cache, mask
        else:
            self._stack(cache, mask)
        self.rows += rows
        for row, token in zip(rows, following, strict=True):
            self._append(row, token)
        self._drop_finished()

    def step(self) -> None:
        """One more token for every row; rows that have ended leave."""
        import torch

        self._drop_finished()
        if not self.rows:
            return
        assert self._mask is not None
        ids = torch.tensor([[row.tokens[-1]] for row in self.rows], device=self._device)
        positions = self._mask.sum(1, keepdim=True)
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        following = self._forward(ids, self._mask, positions, self._cache, self.rows)
        for row, token in zip(self.rows, following, strict=True):
            self._append(row, token)
        self._drop_finished()

    def clear(self) -> None:
        """Forgets all rows, finished or not."""
        self.rows, self._cache, self._mask = [], None, None

    def _forward(
        self, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor, cache: Any, rows: Sequence[Row]
    ) -> list[int]:
        import torch

        with torch.inference_mode():
            output = self._source.forward(
                [row.adapter for row in rows],
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen: list[int] = output.logits[:, -1].argmax(-1).tolist()
        return chosen

    def _append(self, row: Row, token: int) -> None:
        if token in self._end_tokens:
            row.finish = row.finish or "stop"
            return
        row.append(token)

    def _stack(self, cache: Any, mask: torch.Tensor) -> None:
        """Puts the cache of new rows under that of the old ones, the shorter padded on the left."""
        import torch

        assert self._mask is not None
        width = max(self._mask.shape[1], mask.shape[1])

        def widen(tensor: torch.Tensor, dim: int) -> torch.Tensor:
            gap = width - tensor.shape[dim]
            return torch.nn.functional.pad(tensor, (0, 0) * (tensor.dim() - 1 - dim) + (gap, 0)) if gap else tensor

        self._mask = torch.cat([widen(self._mask, 1), widen(mask, 1)])
        for old, new in zip(self._cache.layers, cache.layers, strict=True):
            old.keys = torch.cat([widen(old.keys, 2), widen(new.keys, 2)])
            old.values = torch.cat([widen(old.values, 2), widen(new.values, 2)])

    def _drop_finished(self) -> None:
        import torch

        kept = [i for i, row in enumerate(self.rows) if row.finish is None]
        if len(kept) == len(self.rows):
            return
        if not kept:
            self.clear()
            return
        assert self._mask is not None
        self.rows = [self.rows[i] for i in kept]
        chosen = torch.tensor(kept, device=self._device)
        mask = self._mask[chosen]
        start = int(mask.any(0).int().argmax())  # columns that only held padding or rows that left
        self._mask = mask[:, start:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[chosen][:, :, start:]
            layer.values = layer.values[chosen][:, :, start:]
