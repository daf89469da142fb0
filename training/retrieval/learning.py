"""Learns a map of questions from pairs of question and right passage, against the passages that were taken for right.

InfoNCE (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748) over each question's right passage, its hard
negatives (the nearest passages that are not right, as in DPR: Karpukhin et al. 2020, https://arxiv.org/abs/2004.04906)
and the right passages of the other questions of the batch. Only a low-rank step on the question is learned, which
begins as nothing, as LoRA does: few pairs cannot bend the space far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from knowledge.query_maps import Weights

if TYPE_CHECKING:
    from numpy.typing import NDArray

TEMPERATURE = 0.05
HARD = 12
"""Hard negatives of each question."""
TWIN = 0.95
"""A passage this near to the right one may say the same, and is no negative."""
MAX_PAIRS = 50_000


@dataclass(frozen=True)
class Pair:
    """``right``: rows of the passages that answer; ``wrong``: rows that somebody has marked as not relevant. ``group``
    (conversation or document) is on one side of a split only."""

    right: tuple[int, ...]
    group: str
    wrong: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """``step``: how much of what was learned is taken. Half of it is better than all on questions that were not seen
    (docs/log.md), as between any weights and their fine-tuned ones: Wortsman et al. 2022, WiSE-FT."""

    rank: int = 16
    epochs: int = 12
    batch: int = 64
    rate: float = 5e-4
    decay: float = 1e-2
    step: float = 0.5
    seed: int = 0


def hard_negatives(
    questions: NDArray[np.float32], passages: NDArray[np.float32], pairs: Sequence[Pair], *, count: int = HARD
) -> NDArray[np.int64]:
    """Rows of the nearest passages that are not right, shape (questions, count); marked ones first.

    Args:
        questions: unit vectors, shape (n, d); passages: shape (m, d) with m > count.
    """
    found = np.empty((len(pairs), count), dtype=np.int64)
    for place, pair in enumerate(pairs):
        right = list(pair.right)
        scores = passages @ questions[place]
        scores[(passages @ passages[right].T).max(axis=1) > TWIN] = -np.inf
        scores[right] = -np.inf
        marked = [row for row in dict.fromkeys(pair.wrong) if np.isfinite(scores[row])][:count]
        scores[marked] = np.inf
        found[place] = np.argsort(-scores, kind="stable")[:count]
    return found


def learn(
    questions: NDArray[np.float32],
    passages: NDArray[np.float32],
    pairs: Sequence[Pair],
    *,
    plan: Plan | None = None,
    beat: Callable[[int, int], object] = lambda done, total: None,
) -> Weights:
    """The same input and seed give the same weights. ``beat``: (epochs done, of how many).

    Raises:
        ValueError: there are no pairs, or hardly any passages.
    """
    import torch

    plan = plan or Plan()
    if not pairs or len(passages) <= HARD:
        raise ValueError("There is nothing to learn from: no pairs, or hardly any passages.")
    generator = torch.Generator().manual_seed(plan.seed)
    draw = np.random.default_rng(plan.seed)
    size = questions.shape[1]
    down = (torch.randn(plan.rank, size, generator=generator) / size**0.5).requires_grad_()
    up = torch.zeros(size, plan.rank, requires_grad=True)
    optimiser = torch.optim.AdamW([down, up], lr=plan.rate, weight_decay=plan.decay)
    asked, known = torch.from_numpy(questions), torch.from_numpy(passages)
    wrong = torch.from_numpy(hard_negatives(questions, passages, pairs))
    for epoch in range(plan.epochs):
        for chosen in _batches(len(pairs), plan.batch, draw):
            right = np.array([draw.choice(pairs[i].right) for i in chosen])
            query = asked[chosen]
            query = torch.nn.functional.normalize(query + (query @ down.T) @ up.T, dim=1)
            others = query @ known[right].T
            # What is right for one question may be right for another one of the batch: no negative there.
            same = torch.tensor([[r in pairs[i].right for r in right] for i in chosen])
            others = others.masked_fill(same & ~torch.eye(len(chosen), dtype=torch.bool), -torch.inf)
            hard = torch.einsum("nd,nkd->nk", query, known[wrong[chosen]])
            scores = torch.cat([others, hard], dim=1) / TEMPERATURE
            loss = torch.nn.functional.cross_entropy(scores, torch.arange(len(chosen)))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        beat(epoch + 1, plan.epochs)
    return Weights(down.detach().numpy().astype("<f4"), (plan.step * up).detach().numpy().astype("<f4"))


def _batches(count: int, size: int, draw: np.random.Generator) -> list[NDArray[np.int64]]:
    order = draw.permutation(count)
    return [order[start : start + size] for start in range(0, count, size)]


def ranks(questions: NDArray[np.float32], passages: NDArray[np.float32], pairs: Sequence[Pair]) -> list[int]:
    """Of each question: the place of its first right passage by similarity alone, 1 is first."""
    found = []
    for start in range(0, len(pairs), 512):
        scores = questions[start : start + 512] @ passages.T
        for row, pair in zip(scores, pairs[start : start + 512], strict=True):
            best = row[list(pair.right)].max()
            found.append(int((row > best).sum()) + 1)
    return found
