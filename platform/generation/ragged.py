"""Rows of one batch one after the other, each with a store of its own: no padding, no masks, nothing to copy.

A step is one pass over the tokens of all rows. A row joins by reading its prompt into its store and leaves with it; of
guesses that were wrong nothing is left but room that is written over.
"""

from __future__ import annotations

from collections.abc import Sequence

from generation.copying import LONGEST_GUESS
from generation.decoding import Batch, Row
from generation.fused import FusedDecoder, Piece, Store
from generation.prefixes import MIN_TOKENS, Prefixes

AT_ONCE = 512
"""Tokens of a prompt that are read in one pass: bounds the memory of what lies between two products."""


class RaggedBatch(Batch):
    """Not safe for use from several threads."""

    def __init__(self, model: FusedDecoder, *, end_tokens: frozenset[int], prefixes: Prefixes | None = None) -> None:
        super().__init__(end_tokens=end_tokens)
        self._model = model
        self._prefixes = prefixes
        self._stores: list[Store] = []

    def add(self, rows: Sequence[Row]) -> None:
        for row in rows:  # one prompt fills a processor's caches already
            store = self._model.store(len(row.prompt) + row.max_new_tokens + LONGEST_GUESS)
            self._open(row, store)
            token = self._read(row.prompt, store, row.adapter)
            self.rows.append(row)
            self._stores.append(store)
            self._append(row, token)
        self._drop_finished()

    def _read(self, tokens: Sequence[int], store: Store, adapter: str | None) -> int:
        """The tokens, as far as they are not read yet; what follows them."""
        following = -1
        while store.length < len(tokens):
            part = tokens[store.length : store.length + AT_ONCE]
            ((following,),) = self._model.next_tokens([Piece(part, store, adapter)])
        return following

    def _open(self, row: Row, store: Store) -> None:
        """What the prompt begins with, if other prompts begin with it too, is fetched, or read once and kept."""
        if self._prefixes is None or row.shared < MIN_TOKENS or row.shared >= len(row.prompt):
            return
        key = (row.adapter, tuple(row.prompt[: row.shared]))
        kept = self._prefixes.get(key)
        if kept is None:
            opening = self._model.store(row.shared)
            if not self._prefixes.takes(opening.values.nbytes):
                return  # it is read with the rest, once for each question
            self._read(key[1], opening, row.adapter)
            kept = opening.values
            self._prefixes.put(key, kept)
        else:
            self._prefixes.reused += 1
        store.values[:, :, :, : row.shared] = kept
        store.length = row.shared

    def step(self) -> None:
        self._drop_finished()
        if not self.rows:
            return
        guesses = self._guesses()
        pieces = [
            Piece([row.tokens[-1], *guess], store, row.adapter, last=1 + len(guess))
            for row, guess, store in zip(self.rows, guesses, self._stores, strict=True)
        ]
        chosen = self._model.next_tokens(pieces)
        for row, guess, store, tokens in zip(self.rows, guesses, self._stores, chosen, strict=True):
            store.length -= len(guess) - self._follow(row, guess, tokens)
        self._drop_finished()

    def clear(self) -> None:
        self.rows, self._stores = [], []

    def _drop_finished(self) -> None:
        kept = [i for i, row in enumerate(self.rows) if row.finish is None]
        if len(kept) < len(self.rows):
            self.rows = [self.rows[i] for i in kept]
            self._stores = [self._stores[i] for i in kept]
