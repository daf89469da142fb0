"""The newest labels of a scope, and their marks, as columns of numbers.

A page may be about 20,000 labels with as many passages again for each: made into objects of Python they take seconds.
PostgreSQL packs what is needed of each into bytes, and all of them into one value: rows cost a fifth of the page.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt
from django.contrib.auth.models import User
from django.db.models import (
    Aggregate,
    BigIntegerField,
    BinaryField,
    BooleanField,
    Case,
    F,
    FloatField,
    Func,
    Q,
    QuerySet,
    TextField,
    Value,
    When,
)
from django.db.models.expressions import Combinable
from django.db.models.functions import Cast, Coalesce, TruncWeek

from annotations.models import ContextMark
from annotations.trust.questions import ASKED, DECLINING, SILENT, VERDICT
from annotations.trust.rows import MAX_LABELS, Scope
from capture.models import Turn

Ints = npt.NDArray[np.int64]

_LABEL = np.dtype(
    [("turn", "S16"), ("pk", ">i8"), ("rater", ">i8"), ("said", ">i8"), ("at", ">i8"), ("week", ">i8"),
     ("seconds", ">f8")]
)  # fmt: skip
_TURN = np.dtype([("turn", "S16")])
_MARK = np.dtype([("retrieval", ">i8"), ("label", ">i8"), ("relevant", ">i8")])


@dataclass(frozen=True)
class Columns:
    """One entry a label, oldest first."""

    pk: Ints
    turn: Ints
    """Place in ``turns``."""
    rater: Ints
    """Place in ``names``."""
    said: Ints
    """Bit n: what the label says on `ASKED[n]`; on `DECLINING` only where the turn has several labels."""
    at: Ints
    """Microseconds since 1970."""
    week: Ints
    """Its Monday where the page is read, days since 1970."""
    seconds: npt.NDArray[np.float64]
    """On the page; NaN where nobody knows."""
    turns: npt.NDArray[np.bytes_]
    names: tuple[str, ...]
    """In order."""
    marks: Marks

    def __len__(self) -> int:
        return len(self.pk)

    def key(self, turn: int) -> uuid.UUID:
        return _key(self.turns[turn])


@dataclass(frozen=True)
class Marks:
    """One entry a mark, without "unsure", which says nothing about the passage. Only of turns with several labels:
    there is nobody to agree with on the others."""

    passage: Ints
    """A number for each passage of a turn."""
    label: Ints
    """Place of its label."""
    relevant: Ints
    """0 or 1."""


def read_columns(scope: Scope, *, with_marks: bool = True) -> Columns:
    """In four queries."""
    newest = scope.labels().order_by("-created_at", "-pk")
    rows = _read(newest.annotate(packed=_pack(*_label_parts()))[:MAX_LABELS], _LABEL)
    rows = rows[np.lexsort((rows["pk"], rows["at"]))]
    people, rater = np.unique(_ints(rows["rater"]), return_inverse=True)
    known: dict[int, str] = dict(User.objects.filter(pk__in=people.tolist()).values_list("pk", "username"))
    names = [known[one] for one in people.tolist()]
    order = sorted(range(len(names)), key=names.__getitem__)
    turns, turn = np.unique(rows["turn"], return_inverse=True)
    pk = _ints(rows["pk"])
    return Columns(
        pk=pk, turn=turn, rater=np.argsort(np.array(order, dtype=np.int64))[rater],
        said=_ints(rows["said"]) | _declined(_ints(rows["said"]), turn, turns) << ASKED.index(DECLINING),
        at=_ints(rows["at"]), week=_ints(rows["week"]), seconds=rows["seconds"].astype(np.float64), turns=turns,
        names=tuple(names[one] for one in order), marks=_read_marks(pk, turn if with_marks else turn[:0]),
    )  # fmt: skip


def _key(packed: np.bytes_) -> uuid.UUID:
    return uuid.UUID(bytes=bytes(packed).ljust(16, b"\0"))  # NumPy takes zeros at the end for padding


def _declined(said: Ints, turn: Ints, turns: npt.NDArray[np.bytes_]) -> Ints:
    """1 for each label that leaves it at a turn that was declined, where the turn has several labels."""
    silent = (said >> len(ASKED) & 1).astype(bool) & (np.bincount(turn, minlength=len(turns))[turn] > 1)
    asked = turns[np.unique(turn[silent])]
    declined = np.zeros(len(turns), dtype=np.int64)
    if len(asked):
        keys = asked.tobytes().hex()
        among = _any_of("pk", "uuid", (keys[at : at + 32] for at in range(0, len(keys), 32)))
        found = Turn.objects.filter(among, declined=True).order_by()
        rows = _read(found.annotate(packed=Func(F("pk"), function="uuid_send", output_field=BinaryField())), _TURN)
        declined[np.searchsorted(turns, rows["turn"])] = 1
    return declined[turn] & silent


def _any_of(column: str, kind: str, keys: Iterable[str]) -> Func:
    """As one text: Django takes a tenth of a second to write a list of 10,000, psycopg a tenth of that."""
    listed = Value("{" + ",".join(keys) + "}", output_field=TextField())
    return Func(F(column), listed, template=f"%(expressions)s::{kind}[])", arg_joiner=" = ANY(",
                output_field=BooleanField())  # fmt: skip


def _read_marks(pk: Ints, turn: Ints) -> Marks:
    several = pk[: len(turn)][np.bincount(turn)[turn] > 1] if len(turn) else turn
    if not len(several):
        nothing = np.zeros(0, dtype=np.int64)
        return Marks(nothing, nothing, nothing)
    relevant = Case(When(relevance=ContextMark.Relevance.RELEVANT, then=1), default=0)
    among = _any_of("annotation", "bigint", map(str, several.tolist()))
    marks = ContextMark.objects.filter(among).exclude(relevance=ContextMark.Relevance.UNSURE)
    rows = _read(
        marks.annotate(packed=_pack(*(_whole(part) for part in (F("retrieval"), F("annotation"), relevant)))), _MARK
    )
    _, passage = np.unique(_ints(rows["retrieval"]), return_inverse=True)
    by_key = np.argsort(pk)
    label = by_key[np.searchsorted(pk, _ints(rows["label"]), sorter=by_key)]
    return Marks(passage, label, _ints(rows["relevant"]))


def _label_parts() -> Iterable[Combinable]:
    asked = (*(question.yes or Q() for question in ASKED), SILENT)
    bits = [Case(When(yes, then=1 << n), default=0) for n, yes in enumerate(asked)]
    said = reduce(add, bits)
    # Most labels give no reason, and so say nothing on what is asked of reasons: half of the statement was asking them.
    if_plain = bits[ASKED.index(VERDICT)] + Value(1 << len(ASKED))
    yield Func(F("turn"), function="uuid_send")
    yield _whole(F("pk"))
    yield _whole(F("annotator"))
    yield _whole(Case(When(reasons=[], then=if_plain), default=said))
    yield _whole(Func(F("created_at"), template="round(EXTRACT(epoch FROM %(expressions)s) * 1000000)"))
    yield _whole(Func(TruncWeek("created_at"), template="(%(expressions)s)::date - DATE '1970-01-01'"))
    yield Func(Coalesce(F("seconds"), Value("NaN"), output_field=FloatField()), function="float8send")


def _whole(value: Combinable) -> Func:
    return Func(Cast(value, BigIntegerField()), function="int8send")


def _pack(*parts: Combinable) -> Func:
    return Func(*parts, template="%(expressions)s", arg_joiner=" || ", output_field=BinaryField())


class _Joined(Aggregate):
    template = "string_agg(%(expressions)s, ''::bytea)"
    output_field = BinaryField()


def _read(rows: QuerySet[Any], dtype: np.dtype[np.void]) -> npt.NDArray[np.void]:
    """In whatever order."""
    return np.frombuffer(rows.aggregate(all=_Joined("packed"))["all"] or b"", dtype=dtype)


def _ints(column: npt.NDArray[np.generic]) -> Ints:
    return column.astype(np.int64)
