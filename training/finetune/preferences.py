"""Rows of preferences: pairs for DPO, good and bad answers for KTO: read, made into tokens, refused whole. No Django.

The formats are TRL's conversational ones, {prompt, chosen, rejected} and {prompt, completion, label}, with a ``weight``
(how often the row is seen in one epoch; 1 where it is missing). They are tokenised here and not by TRL: its own way
renders the template without defusing control tokens, and cuts at 1,024 tokens unless told otherwise.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.finetune.methods import Counts
from training.finetune.rows import MAX_ROWS, Row, RowsError, Tokens, tokenise


@dataclass(frozen=True)
class Pair:
    """Two answers to one prompt, of which the first is the better one."""

    prompt: list[dict[str, str]]
    chosen: list[dict[str, str]]
    rejected: list[dict[str, str]]
    weight: int = 1

    @property
    def row(self) -> Row:
        return Row(self.prompt, self.chosen, self.weight)


@dataclass(frozen=True)
class Labelled:
    """One answer, good or bad."""

    prompt: list[dict[str, str]]
    completion: list[dict[str, str]]
    label: bool
    weight: int = 1

    @property
    def row(self) -> Row:
        return Row(self.prompt, self.completion, self.weight)


def read_pairs(path: Path) -> list[Pair]:
    """Raises RowsError for a line that is no pair."""
    return [Pair(v["prompt"], v["chosen"], v["rejected"], v["weight"]) for v in _lines(path, ("chosen", "rejected"))]


def read_labelled(path: Path) -> list[Labelled]:
    """Raises RowsError for a line that is no labelled answer."""
    found = []
    for number, value in enumerate(_lines(path, ("completion",)), start=1):
        if not isinstance(value.get("label"), bool):
            raise RowsError(f"{path.name} row {number}: label must be true or false.")
        found.append(Labelled(value["prompt"], value["completion"], value["label"], value["weight"]))
    return found


def counts_of(rows: Sequence[Labelled]) -> Counts:
    """Good and bad rows, repetitions counted: what the loss sees."""
    good = sum(row.weight for row in rows if row.label)
    return Counts(good=good, bad=sum(row.weight for row in rows) - good)


@dataclass(frozen=True)
class PairTokens:
    prompt_ids: list[int]
    chosen_ids: list[int]
    rejected_ids: list[int]

    @property
    def longest(self) -> int:
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def total(self) -> int:
        return 2 * len(self.prompt_ids) + len(self.chosen_ids) + len(self.rejected_ids)

    def record(self) -> dict[str, Any]:
        return {"prompt_ids": self.prompt_ids, "chosen_ids": self.chosen_ids, "rejected_ids": self.rejected_ids}


@dataclass(frozen=True)
class LabelledTokens:
    prompt_ids: list[int]
    completion_ids: list[int]
    label: bool

    @property
    def longest(self) -> int:
        return len(self.prompt_ids) + len(self.completion_ids)

    @property
    def total(self) -> int:
        return self.longest

    def record(self) -> dict[str, Any]:
        return {"prompt_ids": self.prompt_ids, "completion_ids": self.completion_ids, "label": self.label}


def tokenise_pairs(rows: Sequence[Pair], tokenizer: Any) -> list[PairTokens]:
    chosen = tokenise([row.row for row in rows], tokenizer)
    rejected = tokenise([Row(row.prompt, row.rejected) for row in rows], tokenizer)
    return [PairTokens(*_halves(better), _halves(worse)[1]) for better, worse in zip(chosen, rejected, strict=True)]


def tokenise_labelled(rows: Sequence[Labelled], tokenizer: Any) -> list[LabelledTokens]:
    tokens = tokenise([row.row for row in rows], tokenizer)
    return [LabelledTokens(*_halves(t), row.label) for row, t in zip(rows, tokens, strict=True)]


def check_preference_lengths(tokens: Sequence[PairTokens | LabelledTokens], limit: int) -> int:
    """The longest sequence. Raises RowsError as `training.finetune.rows.check_lengths` does."""
    long = [i for i, row in enumerate(tokens) if row.longest > limit]
    if long:
        raise RowsError(
            f"{len(long)} of {len(tokens)} preference rows are longer than {limit} tokens (the longest has "
            f"{max(tokens[i].longest for i in long)}) and would be cut; the first is row {long[0] + 1}. Offer fewer "
            "evidence sentences or shorter passages, or use a base with a longer context."
        )
    return max((row.longest for row in tokens), default=0)


def with_mismatches(rows: Sequence[LabelledTokens], batch: int, seed: int) -> list[dict[str, Any]]:
    """Rows in a fixed order of batches, each with the completion of another row of its batch: KTO estimates from those
    how far the model has moved on prompts with answers that do not belong to them.

    TRL pairs each row with its neighbour, so that a row which is repeated is paired with itself, and so is a row that
    is alone in the last batch: its "distance" would be its own reward. Here the partner is the next row of the batch
    with another prompt; where there is none, one of another batch.
    """
    from training.finetune.order import length_order

    arranged = [rows[i] for i in length_order([row.longest for row in rows], batch, seed)]
    rng = random.Random(f"kto:{seed}")
    records = []
    for start in range(0, len(arranged), batch):
        members = arranged[start : start + batch]
        for place, row in enumerate(members):
            others = [*members[place + 1 :], *members[:place]]
            partner = next((other for other in others if other.prompt_ids != row.prompt_ids), None)
            if partner is None:
                strangers = [other for other in arranged if other.prompt_ids != row.prompt_ids]
                partner = rng.choice(strangers) if strangers else row
            records.append({**row.record(), "KL_completion_ids": partner.completion_ids})
    return records


def _halves(tokens: Tokens) -> tuple[list[int], list[int]]:
    border = next(i for i, label in enumerate(tokens.labels) if label >= 0)
    return tokens.input_ids[:border], tokens.input_ids[border:]


def _lines(path: Path, answers: tuple[str, ...]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            where = f"{path.name} line {number}"
            if number > MAX_ROWS:
                raise RowsError(f"{path.name} has more than {MAX_ROWS} rows.")
            try:
                value = json.loads(line)
                value.setdefault("weight", 1)
                messages = [*value["prompt"], *(message for name in answers for message in value[name])]
                whole = bool(value["prompt"]) and all(len(value[name]) == 1 for name in answers)
                texts = all(isinstance(m["role"], str) and isinstance(m["content"], str) for m in messages)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise RowsError(f"{where} is not a preference row: {type(error).__name__}.") from error
            weight = value["weight"]
            if not (whole and texts and isinstance(weight, int) and 1 <= weight <= 1000):
                raise RowsError(f"{where}: a row has a prompt, one message per answer, and a weight of 1 to 1000.")
            if not all(value[name][0]["content"].strip() for name in answers):
                raise RowsError(f"{where}: an empty answer teaches nothing and would be dropped.")
            found.append(value)
    return found
