"""What happens in a comparison: a round is drawn, people choose, and take a choice back."""

from __future__ import annotations

import random
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, fields
from typing import Any

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.utils import timezone

from annotations.comparing.drawing import stratified
from annotations.comparing.errors import AlreadyChosen, NothingToTakeBack, RoundClosed
from annotations.comparing.models import Aspect, Choice, ComparisonChoice, ComparisonPair, ComparisonRound
from annotations.validation import clean_seconds
from assistants.access import has_role
from assistants.models import Assistant, Membership, Role
from assistants.services import audit
from capture.models import Turn

MAX_PAIRS = 500
MAX_PEOPLE = 50
JUDGES = (Role.ANNOTATOR, Role.REVIEWER, Role.ADMIN)
"""Who may be named; where nobody is, reviewers and admins judge."""
SETTLERS = (Role.REVIEWER, Role.ADMIN)
SIDES = ("left", "right", "both_good", "both_bad")


@dataclass(frozen=True)
class PairTexts:
    """One question with two answers, as `ComparisonPair` keeps it."""

    key: str
    stratum: str
    history: list[Any]
    question: str
    contexts: list[dict[str, Any]]
    prompt: list[Any]
    candidate_text: str
    baseline_text: str
    candidate_completion: str
    baseline_completion: str
    turn: Turn | None = None
    """Where the question was asked by a user: an erasure of the turn takes the pair along."""


@transaction.atomic
def create_round(
    *,
    assistant: Assistant,
    name: str,
    source: tuple[str, int],
    held_out: str,
    arms: tuple[str, str],
    found: Sequence[PairTexts],
    questions: int,
    pairs: int,
    people: Collection[User],
    created_by: User | None,
    differing: int | None = None,
) -> ComparisonRound:
    """Draws ``pairs`` of the differing answers ``found``, stratified, and opens them to ``people``.

    Args:
        source: what the answers are from and its key: ``("evaluation", 12)``.
        arms: names of candidate and baseline.
        questions: how many both arms answered, equal answers among them.
        differing: how many of them differently, where ``found`` is already a sample of those.

    Raises:
        ValidationError: a bad name or number, nothing to compare, or somebody who does not work on this assistant.
    """
    name = name.strip()
    if not name or len(name) > 120:
        raise ValidationError({"name": "Give it a name of at most 120 characters."})
    if ComparisonRound.objects.filter(assistant=assistant, name=name).exists():
        raise ValidationError({"name": "There is a comparison of this name already."})
    if not 1 <= pairs <= MAX_PAIRS:
        raise ValidationError({"pairs": f"From 1 to {MAX_PAIRS} pairs."})
    if not found:
        raise ValidationError({"pairs": "The two gave the same answer to every question: there is nothing to compare."})
    _check_people(assistant, people)
    # The sides must not be guessable from what a judge can see; reproducible they are by the stored number.
    seed = secrets.randbits(62)
    opened = ComparisonRound.objects.create(
        assistant=assistant,
        name=name,
        source=source[0],
        source_id=source[1],
        held_out=held_out[:120],
        candidate_arm=arms[0],
        baseline_arm=arms[1],
        questions=questions,
        differing=len(found) if differing is None else differing,
        seed=seed,
        created_by=created_by,
    )
    opened.people.set(people)
    rng = random.Random(seed)
    drawn = stratified(found, pairs, stratum=lambda pair: pair.stratum, rng=rng)
    ComparisonPair.objects.bulk_create(
        [ComparisonPair(round=opened, position=i, **_fields_of(pair)) for i, pair in enumerate(drawn, start=1)],
        batch_size=100,
    )
    audit(
        assistant=assistant, actor=created_by, action="comparison.created", target=str(opened),
        details={"source": list(source), "pairs": len(drawn), "people": sorted(p.get_username() for p in people)},
    )  # fmt: skip
    return opened


def _fields_of(pair: PairTexts) -> dict[str, Any]:
    """Its own fields as they are: `asdict` would copy the turn."""
    return {one.name: getattr(pair, one.name) for one in fields(PairTexts)}


def may_judge(person: User, opened: ComparisonRound) -> bool:
    """Whether this person judges here: named ones, or reviewers and admins where nobody is named."""
    return is_judge(person, opened, list(opened.people.values_list("pk", flat=True)))


def is_judge(person: User, opened: ComparisonRound, named: Collection[int] | None) -> bool:
    """`may_judge` where it is known who is named (keys of users)."""
    roles = JUDGES if named else SETTLERS
    return has_role(person, opened.assistant, *roles) and (not named or person.pk in named)


@transaction.atomic
def choose(
    *, pair: ComparisonPair, person: User, side: str, aspects: Sequence[str] = (), seconds: float | None = None
) -> ComparisonChoice:
    """Stores what a person chose: ``side`` is one of `SIDES`, as they saw them. The same again changes nothing.

    Raises:
        ValidationError: no side, or an unknown aspect.
        RoundClosed: nobody judges here any more.
        AlreadyChosen: they chose otherwise before, and have not taken it back.
    """
    if side not in SIDES:
        raise ValidationError({"side": ["Choose one answer, both good, or both bad."]})
    if any(aspect not in Aspect.values for aspect in aspects):
        raise ValidationError({"aspects": ["That is not one of the reasons."]})
    if ComparisonRound.objects.filter(pk=pair.round_id, closed=True).exists():
        raise RoundClosed
    candidate_left = pair.candidate_is_left(person.pk)
    choice = _choice(side, candidate_left)
    wanted = [aspect for aspect in Aspect.values if aspect in aspects]
    try:
        with transaction.atomic():
            made = ComparisonChoice.objects.create(
                pair=pair,
                person=person,
                choice=choice,
                candidate_left=candidate_left,
                aspects=wanted,
                seconds=clean_seconds(seconds),
            )
    except IntegrityError:
        earlier = ComparisonChoice.objects.current().filter(pair=pair, person=person).first()
        if earlier is None or (earlier.choice, earlier.aspects) != (choice, wanted):
            raise AlreadyChosen from None
        return earlier
    audit(
        assistant=pair.round.assistant, actor=person, action="comparison.judged", target=str(pair.round),
        details={"choice": made.pk, "pair": pair.position},
    )  # fmt: skip
    return made


@transaction.atomic
def take_back(*, opened: ComparisonRound, person: User) -> ComparisonPair:
    """Takes back this person's last choice in the round; it stays stored, uncounted.

    Raises:
        RoundClosed, NothingToTakeBack.
    """
    if ComparisonRound.objects.filter(pk=opened.pk, closed=True).exists():
        raise RoundClosed
    mine = ComparisonChoice.objects.current().filter(pair__round=opened, person=person)
    last = mine.select_for_update(of=("self",)).select_related("pair").order_by("-created_at", "-pk").first()
    if last is None:
        raise NothingToTakeBack
    last.withdrawn_at = timezone.now()
    last.save(update_fields=["withdrawn_at"])
    audit(
        assistant=opened.assistant, actor=person, action="comparison.taken_back", target=str(opened),
        details={"choice": last.pk, "pair": last.pair.position},
    )  # fmt: skip
    return last.pair


def _choice(side: str, candidate_left: bool) -> Choice:
    if side in ("both_good", "both_bad"):
        return Choice(side)
    return Choice.CANDIDATE if (side == "left") == candidate_left else Choice.BASELINE


def _check_people(assistant: Assistant, people: Collection[User]) -> None:
    if len(people) > MAX_PEOPLE:
        raise ValidationError({"people": f"At most {MAX_PEOPLE} people."})
    members = Membership.objects.filter(assistant=assistant, role__in=JUDGES, user__in=people)
    known = set(members.values_list("user", flat=True))
    for person in people:
        if person.pk not in known and not person.is_superuser:
            raise ValidationError({"people": f"{person.get_username()} does not label for {assistant.name}."})
