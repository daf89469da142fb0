"""What a comparison says: how often the candidate wins, and how far people agree.

The win rate is the mean over pairs of the mean over the people who judged the pair (candidate 1, baseline 0, a tie ½),
so a pair counts once however many judged it. Its interval is Wilson's (statsmodels) with the number of pairs as n: a
pair's mean varies no more than a coin's toss, so the interval is never too narrow, and it stays sensible for a handful
of pairs and for a clean sweep, where a bootstrap would shrink to a point.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from django.contrib.auth.models import User
from django.db.models import Count

from annotations.agreement import Agreement, Estimate, agreement_on
from annotations.comparing.blindness import still_judging
from annotations.comparing.models import Choice, ComparisonChoice, ComparisonPair, ComparisonRound
from annotations.comparing.services import SETTLERS
from assistants.models import Membership

WORTH = {Choice.CANDIDATE: 1.0, Choice.BASELINE: 0.0, Choice.BOTH_GOOD: 0.5, Choice.BOTH_BAD: 0.5}


MAX_SHOWN = 20


@dataclass(frozen=True)
class PersonResult:
    name: str
    judged: int
    candidate: int
    baseline: int
    median_seconds: float | None

    @property
    def ties(self) -> int:
        return self.judged - self.candidate - self.baseline


@dataclass(frozen=True)
class RoundResult:
    """``win_rate`` of the candidate; n is the number of judged pairs. ``left``: choices of an answer that fell on the
    left one, of ``decided``."""

    round: ComparisonRound
    pairs: int
    win_rate: Estimate
    counts: tuple[tuple[str, int], ...]
    people: tuple[PersonResult, ...]
    agreement: Agreement
    left: int
    decided: int

    @property
    def choices(self) -> int:
        return sum(n for _, n in self.counts)

    @property
    def verdict(self) -> str:
        """One sentence."""
        rate = self.win_rate
        if rate.value is None or rate.low is None or rate.high is None:
            return "Nobody has judged a pair yet."
        if rate.low > 0.5:
            said = "People prefer the candidate."
        elif rate.high < 0.5:
            said = "People prefer what is there today."
        else:
            said = "Which one people prefer is not shown."
        return said


@dataclass(frozen=True)
class ListedRound:
    """``result`` is None for whoever still has pairs to judge in the round."""

    round: ComparisonRound
    result: RoundResult | None


def results_of(rounds: Sequence[ComparisonRound]) -> list[RoundResult]:
    """Of each round: two queries, however many rounds."""
    keys = [opened.pk for opened in rounds]
    counted = ComparisonPair.objects.filter(round__in=keys).order_by().values_list("round").annotate(n=Count("pk"))
    pairs: dict[int, int] = dict.fromkeys(keys, 0) | dict(counted)
    chosen: dict[int, list[ComparisonChoice]] = {key: [] for key in keys}
    current = ComparisonChoice.objects.current().filter(pair__round__in=keys).order_by("created_at", "pk")
    fields = ("choice", "candidate_left", "seconds", "pair__round", "person__username")
    for choice in current.select_related("pair", "person").only(*fields):
        chosen[choice.pair.round_id].append(choice)
    return [_result(opened, pairs[opened.pk], chosen[opened.pk]) for opened in rounds]


def rounds_of(source: str, source_id: int, *, viewer: User) -> list[ListedRound]:
    """The newest `MAX_SHOWN` rounds on one evaluation (or another source), newest first: at most five queries."""
    found = ComparisonRound.objects.filter(source=source, source_id=source_id).select_related("assistant")
    rounds = list(found.order_by("-created_at", "-pk")[:MAX_SHOWN])
    blind = still_judging(viewer, rounds)
    results = {result.round.pk: result for result in results_of([one for one in rounds if one.pk not in blind])}
    return [ListedRound(opened, results.get(opened.pk)) for opened in rounds]


def judges_of(opened: ComparisonRound) -> list[str]:
    """Names of those who are asked to judge."""
    named = [person.get_username() for person in opened.people.all()]
    if named:
        return sorted(named)
    members = Membership.objects.filter(assistant=opened.assistant, role__in=SETTLERS)
    return sorted(set(members.values_list("user__username", flat=True)))


def win_rate(choices: Collection[tuple[int, str]]) -> Estimate:
    """Of (pair, choice) rows."""
    from statsmodels.stats.proportion import proportion_confint

    by_pair: dict[int, list[float]] = {}
    for pair, choice in choices:
        by_pair.setdefault(pair, []).append(WORTH[Choice(choice)])
    n = len(by_pair)
    if not n:
        return Estimate(None, None, None, 0)
    wins = sum(statistics.fmean(worths) for worths in by_pair.values())
    low, high = proportion_confint(wins, n, alpha=0.05, method="wilson")
    return Estimate(wins / n, float(low), float(high), n)


def _result(opened: ComparisonRound, pairs: int, choices: Sequence[ComparisonChoice]) -> RoundResult:
    labels: dict[object, dict[object, str]] = {}
    by_person: dict[str, list[ComparisonChoice]] = {}
    for choice in choices:
        name = choice.person.get_username()
        labels.setdefault(choice.pair_id, {})[name] = choice.choice
        by_person.setdefault(name, []).append(choice)
    decided = [c for c in choices if c.choice in (Choice.CANDIDATE, Choice.BASELINE)]
    return RoundResult(
        round=opened,
        pairs=pairs,
        win_rate=win_rate([(choice.pair_id, choice.choice) for choice in choices]),
        counts=tuple((str(one.label), sum(choice.choice == one for choice in choices)) for one in Choice),
        people=tuple(_person(name, own) for name, own in sorted(by_person.items())),
        agreement=agreement_on("Choice", labels),
        left=sum((choice.choice == Choice.CANDIDATE) == choice.candidate_left for choice in decided),
        decided=len(decided),
    )


def _person(name: str, choices: Sequence[ComparisonChoice]) -> PersonResult:
    seconds = [choice.seconds for choice in choices if choice.seconds is not None]
    return PersonResult(
        name=name,
        judged=len(choices),
        candidate=sum(choice.choice == Choice.CANDIDATE for choice in choices),
        baseline=sum(choice.choice == Choice.BASELINE for choice in choices),
        median_seconds=statistics.median(seconds) if seconds else None,
    )
