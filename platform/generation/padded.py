"""Rows of one batch side by side, through transformers: for any model, on any device.

A row that joins is read alone with the others that join (its prompt costs the rest one longer step) and its key-value
cache is then stacked under theirs, padded on the left; a row that has ended leaves at once. Guesses that were wrong
leave holes in the cache, which the mask covers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from generation.decoding import Batch, Row
from generation.prefixes import MIN_TOKENS, Key, Prefixes

if TYPE_CHECKING:
    import torch

READ_ALONE = 128
"""Prompts from this length on are read one by one on a CPU: one fills it already, and none pays for others' padding."""

Layers = list[tuple[Any, Any]]
"""Keys and values of each layer, shape (1, heads, tokens, width)."""


class ModelSource(Protocol):
    """Where a batch finds its model at every step: loading an adapter between two steps may wrap it anew."""

    @property
    def device(self) -> torch.device:
        """Where its inputs must be."""
        ...

    def forward(self, adapters: Sequence[str | None], **inputs: Any) -> Any:
        """One pass, row i with ``adapters[i]``; the output has ``logits`` (rows, as many as asked for, vocabulary)."""
        ...


class PaddedBatch(Batch):
    """Not safe for use from several threads."""

    def __init__(
        self, source: ModelSource, *, end_tokens: frozenset[int], pad_token: int, prefixes: Prefixes | None = None
    ) -> None:
        super().__init__(end_tokens=end_tokens)
        self._prefixes = prefixes
        self._source = source
        self._pad = pad_token
        self._device = source.device
        self._cache: Any = None
        self._mask: torch.Tensor | None = None  # (rows, cached tokens), 1 where a token is real

    def add(self, rows: Sequence[Row]) -> None:
        together = self._device.type != "cpu" or max(len(row.prompt) for row in rows) < READ_ALONE
        for group in [rows] if together else [[row] for row in rows]:
            self._add(group)

    def _add(self, rows: Sequence[Row]) -> None:
        import torch

        shared, cache = self._opening(rows)
        width = max(len(row.prompt) for row in rows) - shared
        ids = torch.full((len(rows), width), self._pad, dtype=torch.long)
        mask = torch.zeros((len(rows), shared + width), dtype=torch.long)
        mask[:, :shared] = 1
        for i, row in enumerate(rows):
            rest = row.prompt[shared:]
            ids[i, width - len(rest) :] = torch.tensor(rest)
            mask[i, shared + width - len(rest) :] = 1
        mask = mask.to(self._device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        following = self._forward(ids.to(self._device), mask, positions, cache, rows)
        if self._cache is None:
            self._cache, self._mask = cache, mask
        else:
            self._stack(cache, mask)
        self.rows += rows
        for row, (token,) in zip(rows, following, strict=True):
            self._append(row, token)
        self._drop_finished()

    def _opening(self, rows: Sequence[Row]) -> tuple[int, Any]:
        """A cache that holds what these prompts begin with, and how many tokens that is; 0: read them whole.

        Only where all begin with the same number of tokens, as all questions of one house do, whatever the adapter.
        """
        from transformers import DynamicCache

        cache = DynamicCache()
        shared = rows[0].shared
        if self._prefixes is None or shared < MIN_TOKENS or any(row.shared != shared for row in rows):
            return 0, cache
        keys = [(row.adapter, tuple(row.prompt[:shared])) for row in rows]
        known = {key: self._prefixes.get(key) for key in keys}
        self._prefixes.reused += sum(known[key] is not None for key in keys)
        if missing := [key for key, layers in known.items() if layers is None]:
            for key, read in zip(missing, self._read(missing), strict=True):
                self._prefixes.put(key, read)
                known[key] = read
        self._fill(cache, [layers for key in keys if (layers := known[key]) is not None])
        return shared, cache

    def _read(self, beginnings: Sequence[Key]) -> list[Layers]:
        """One pass over beginnings of one length."""
        import torch
        from transformers import DynamicCache

        cache = DynamicCache()
        ids = torch.tensor([tokens for _, tokens in beginnings], device=self._device)
        positions = torch.arange(ids.shape[1], device=self._device).expand(ids.shape)
        with torch.inference_mode():
            self._source.forward(
                [adapter for adapter, _ in beginnings],
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
        return [
            [(layer.keys[i : i + 1].clone(), layer.values[i : i + 1].clone()) for layer in cache.layers]
            for i in range(len(beginnings))
        ]

    def _fill(self, cache: Any, layers_of_rows: Sequence[Layers]) -> None:
        import torch

        for number in range(len(layers_of_rows[0])):
            keys = torch.cat([layers[number][0] for layers in layers_of_rows])
            values = torch.cat([layers[number][1] for layers in layers_of_rows])
            cache.update(keys, values, number)

    def step(self) -> None:
        """One more token for every row, or several where guesses were right; rows that have ended leave."""
        import torch

        self._drop_finished()
        if not self.rows:
            return
        assert self._mask is not None
        guesses = self._guesses()
        width = 1 + max(map(len, guesses))
        fed = [[row.tokens[-1], *guess] for row, guess in zip(self.rows, guesses, strict=True)]
        ids = torch.tensor([tokens + [self._pad] * (width - len(tokens)) for tokens in fed], device=self._device)
        real = torch.tensor([[1] * len(tokens) + [0] * (width - len(tokens)) for tokens in fed], device=self._device)
        positions = self._mask.sum(1, keepdim=True) + torch.arange(width, device=self._device)
        mask = torch.cat([self._mask, real], dim=1)
        following = self._forward(ids, mask, positions, self._cache, self.rows, last=width)
        read = []
        for row, guess, chosen in zip(self.rows, guesses, following, strict=True):
            read.append(1 + self._follow(row, guess, chosen))
        self._keep(read, width)
        self._drop_finished()

    def _keep(self, read: Sequence[int], width: int) -> None:
        """After a step of ``width`` columns: row i keeps the first ``read[i]`` of them."""
        import torch

        assert self._mask is not None
        most = max(read)
        kept = torch.tensor([[1] * n + [0] * (most - n) for n in read], device=self._device)
        self._mask = torch.cat([self._mask, kept], dim=1)
        if most < width:  # what nobody keeps goes at once, so that a batch of one row has no holes at all
            for layer in self._cache.layers:
                layer.keys = layer.keys[:, :, : most - width]
                layer.values = layer.values[:, :, : most - width]

    def clear(self) -> None:
        self.rows, self._cache, self._mask = [], None, None

    def _forward(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        cache: Any,
        rows: Sequence[Row],
        *,
        last: int = 1,
    ) -> list[list[int]]:
        """What follows each of the ``last`` tokens of every row."""
        import torch

        with torch.inference_mode():
            output = self._source.forward(
                [row.adapter for row in rows],
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=last,
            )
            chosen: list[list[int]] = output.logits[:, -last:].argmax(-1).tolist()
        return chosen

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
