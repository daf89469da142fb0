"""Agreement on real ratings, against values that were computed elsewhere: IBM/mt-rag-benchmark, 477 answers that two or
three people rated from 1 to 4.

The known α (faithfulness .55, completeness .39, appropriateness .05) are those of Krippendorff's α with the interval
metric on the whole matrix of raters and answers, as the note beside the data has them. They stand here to two digits;
the full value is compared with the library on that matrix too.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Hashable
from functools import cache
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
import pytest

from annotations.agreement import krippendorff_alpha
from annotations.models import Annotation
from annotations.trust.columns import read_columns
from annotations.trust.of_queue import alpha_on_verdicts
from annotations.trust.rows import Scope
from tests.factories import make_assistant, make_queue, make_turn, make_user

FOLDER = Path(os.environ.get("RATCHET_SHARED_DATA", "")) / "mtrag"
FILE = FOLDER / "human_eval_responses.jsonl.gz"

pytestmark = pytest.mark.skipif(
    not (os.environ.get("RATCHET_SHARED_DATA") and FILE.is_file()), reason="RATCHET_SHARED_DATA has no mtrag/"
)


@cache
def ratings(measure: str) -> tuple[dict[str, str], ...]:
    """{rater: "1" … "4"} of each answer, in the order of the file."""
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        rows: list[dict[str, Any]] = [json.loads(line)["annotations"] for line in lines]
    return tuple({rater: str(given["value"]) for rater, given in row[measure].items()} for row in rows)


def matrix(rows: tuple[dict[str, str], ...]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Raters × answers, as the library wants it, with gaps."""
    raters = sorted({rater for row in rows for rater in row})
    return np.array([[float(row.get(rater, "nan")) for row in rows] for rater in raters])


@pytest.mark.parametrize(
    ("measure", "known"), [("faithfulness", 0.55), ("completeness", 0.39), ("appropriateness", 0.05)]
)
def test_alpha_of_the_ratings(measure: str, known: float) -> None:
    rows = ratings(measure)
    labels: dict[Hashable, dict[Hashable, str]] = {place: dict(row.items()) for place, row in enumerate(rows)}
    alpha = krippendorff_alpha(labels, "interval")
    assert alpha.n == 477
    assert alpha.value == pytest.approx(known, abs=0.02)
    assert alpha.value == pytest.approx(
        krippendorff.alpha(reliability_data=matrix(rows), level_of_measurement="interval"), abs=1e-9
    )
    assert alpha.low is not None
    assert alpha.high is not None
    assert alpha.low < known < alpha.high


@pytest.mark.django_db
@pytest.mark.parametrize("measure", ["faithfulness", "completeness"])
def test_the_ratings_as_labels_of_three_annotators(measure: str) -> None:
    """Seven people rated, three each: the first, second and third of an answer become three annotators (α does not ask
    who is who), 3 and 4 become good, and our labels have the α of the library on the raw matrix."""
    rows = ratings(measure)
    people = [make_user(name) for name in ("one", "two", "three")]
    assistant = make_assistant()
    turns = [make_turn(assistant, contexts=(), citations=()) for _ in rows]
    queue = make_queue(assistant, turns=turns, labels_needed=3)
    Annotation.objects.bulk_create(
        Annotation(turn=turn, queue=queue, annotator=person, verdict="good" if value >= "3" else "bad")
        for turn, row in zip(turns, rows, strict=True)
        for person, value in zip(people, row.values(), strict=False)
    )
    assert read_columns(Scope(assistant)).names == ("one", "three", "two")
    ours = alpha_on_verdicts(queue)
    raw = matrix(rows)
    as_verdicts = np.where(np.isnan(raw), np.nan, raw >= 3)
    known = krippendorff.alpha(reliability_data=as_verdicts, level_of_measurement="nominal")
    assert ours.n == 477
    assert ours.value == pytest.approx(known, abs=1e-9)
