"""Reads shards of token rows and makes training batches of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from training.base_model.packing import ANSWER, CONTEXT, FIRST, QUESTION, WRITTEN

if TYPE_CHECKING:
    from numpy.typing import NDArray

CONTEXT_SHARE = 0.15
"""Share of evidence tokens that are predicted too: a little language modelling, at a price of output-layer time."""
TARGET_WEIGHTS = {CONTEXT: 0.25, QUESTION: 0.15, ANSWER: 1.0, FIRST: 4.0, WRITTEN: 0.5}
"""The first answer token is the choice of the sentence: the one hard decision."""


@dataclass(frozen=True)
class Batch:
    """``weights[:, t]``: weight of predicting ``ids[:, t + 1]`` from position t."""

    ids: Tensor
    positions: Tensor
    allowed: Tensor
    weights: Tensor
    codes: Tensor


def attention_mask(groups: Tensor, branches: Tensor) -> Tensor:
    """(rows, 1, length, length), True where a token may look (see `packing`)."""
    length = groups.shape[1]
    same_group = groups[:, :, None] == groups[:, None, :]
    visible = (branches[:, None, :] == 0) | (branches[:, :, None] == branches[:, None, :])
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return (same_group & visible & causal).unsqueeze(1)


def make_batch(arrays: dict[str, NDArray[np.uint16]], generator: torch.Generator | None = None) -> Batch:
    """Without ``generator`` only answers count (validation)."""
    tensors = {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}
    codes = tensors["codes"]
    weights = torch.zeros(codes.shape)
    for code, weight in TARGET_WEIGHTS.items():
        if generator is None:
            weights[codes == code] = float(code in (ANSWER, FIRST))
        elif code == CONTEXT:
            weights[(codes == code) & (torch.rand(codes.shape, generator=generator) < CONTEXT_SHARE)] = weight
        else:
            weights[codes == code] = weight
    weights = torch.roll(weights, -1, 1)
    weights[:, -1] = 0
    targets = torch.roll(codes, -1, 1)
    mask = attention_mask(tensors["groups"], tensors["branches"])
    return Batch(tensors["ids"], tensors["positions"], mask, weights, targets)


class Shards:
    """Rows of all shards of one stage, each row once per pass; shards written meanwhile join at the next pass."""

    def __init__(self, folder: Path, stage: str, seed: int, part: tuple[int, int] = (0, 1)) -> None:
        """``part``: (this process, number of processes); each takes its share of the rows of a shard."""
        self.folder, self.stage, self.part = folder, stage, part
        self.random = np.random.default_rng(seed)
        self.queue: list[tuple[Path, int]] = []
        self.used: dict[Path, int] = {}
        self.loaded: dict[Path, dict[str, NDArray[np.uint16]]] = {}

    def next_rows(self, count: int) -> dict[str, NDArray[np.uint16]]:
        """``count`` rows, shuffled within a shard; least used shards first.

        Raises:
            FileNotFoundError: the folder holds no shard of this stage.
        """
        taken: list[dict[str, NDArray[np.uint16]]] = []
        while len(taken) < count:
            if not self.queue:
                self._refill()
            path, row = self.queue.pop()
            taken.append({name: array[row : row + 1] for name, array in self.loaded[path].items()})
        return {name: np.concatenate([part[name] for part in taken]) for name in taken[0]}

    def _refill(self) -> None:
        found = [p for p in sorted(self.folder.glob(f"stage{self.stage}-*.npz")) if not p.name.endswith(".tmp.npz")]
        if not found:
            raise FileNotFoundError(
                f"no shard of stage {self.stage} in {self.folder}; run training.base_model.generate"
            )
        path = min(found, key=lambda p: self.used.get(p, 0))
        self.used[path] = self.used.get(path, 0) + 1
        self.loaded = {path: read_shard(path)}
        mine, parts = self.part
        rows = self.random.permutation(len(self.loaded[path]["ids"]))[mine::parts]
        self.queue = [(path, int(row)) for row in rows]


def read_shard(path: Path) -> dict[str, NDArray[np.uint16]]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in ("ids", "codes", "positions", "groups", "branches")}
