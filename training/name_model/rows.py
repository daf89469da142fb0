"""Labelled texts as batches of pieces."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from privacy.name_model.labels import LABELS, WINDOW
from privacy.name_model.pieces import FEATURES, Pieces, load_tokenizer, read_pieces

IGNORED = -100
_CLS, _SEP = 101, 102
_SORTED_TOGETHER = 64

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class Row:
    """One text (at most WINDOW pieces of it): ids, features and the label of each piece."""

    ids: NDArray[np.int32]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def piece_labels(pieces: Pieces, spans: Sequence[Sequence[Any]]) -> NDArray[np.int64]:
    """The label of each piece from [start, end, type] stretches; IGNORED where the type is IGNORE."""
    labels = np.zeros(len(pieces), dtype=np.int64)
    for start, end, kind in spans:
        inside = np.flatnonzero((pieces.starts < end) & (pieces.ends > start))
        if not len(inside):
            continue
        if kind == "IGNORE":
            labels[inside] = IGNORED
            continue
        labels[inside] = LABELS.index(f"I-{kind}")
        first = pieces.words[inside] == pieces.words[inside[0]]
        labels[inside[first]] = LABELS.index(f"B-{kind}")
    return labels


def read_rows(path: Path, tokenizer_folder: Path) -> list[Row]:
    """The texts of a file of JSON lines; those without any piece are left out."""
    tokenizer = load_tokenizer(tokenizer_folder)
    rows = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            plain = json.loads(line)
            pieces = read_pieces(tokenizer, plain["text"])
            labels = piece_labels(pieces, plain["spans"])
            for at in range(0, len(pieces), WINDOW):
                part = slice(at, at + WINDOW)
                rows.append(Row(pieces.ids[part], pieces.features[part], labels[part]))
    return rows


def batches(rows: Sequence[Row], tokens: int, rng: random.Random | None) -> Iterator[Batch]:
    """(ids, features, mask, labels) of rows of like length, about `tokens` padded pieces each; shuffled with `rng`."""
    order = list(range(len(rows)))
    if rng is not None:
        rng.shuffle(order)
    group_size = max(1, tokens * _SORTED_TOGETHER // 40)
    for at in range(0, len(order), group_size):
        group = sorted(order[at : at + group_size], key=lambda i: len(rows[i].ids))
        made: list[list[Row]] = [[]]
        for i in group:
            if made[-1] and (len(made[-1]) + 1) * (len(rows[i].ids) + 2) > tokens:
                made.append([])
            made[-1].append(rows[i])
        if rng is not None:
            rng.shuffle(made)
        yield from map(collate, made)


def collate(rows: Sequence[Row]) -> Batch:
    """Padded tensors with the special pieces around every row."""
    width = max(len(row.ids) for row in rows) + 2
    ids = np.zeros((len(rows), width), dtype=np.int64)
    features = np.zeros((len(rows), width, FEATURES), dtype=np.float32)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    labels = np.full((len(rows), width), IGNORED, dtype=np.int64)
    for i, row in enumerate(rows):
        size = len(row.ids)
        ids[i, 0], ids[i, size + 1] = _CLS, _SEP
        ids[i, 1 : size + 1] = row.ids
        features[i, 1 : size + 1] = row.features
        mask[i, : size + 2] = 1
        labels[i, 1 : size + 1] = row.labels
    return torch.from_numpy(ids), torch.from_numpy(features), torch.from_numpy(mask), torch.from_numpy(labels)
