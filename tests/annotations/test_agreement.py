from __future__ import annotations

import random
import time
from itertools import combinations
from typing import Any

import krippendorff
import numpy as np
import pytest
from django.test import Client
from django.urls import reverse
from statsmodels.stats.inter_rater import cohens_kappa

from annotations.agreement import (
    MAX_PEOPLE,
    Level,
    agreement_on,
    cohen_kappa,
    krippendorff_alpha,
    percent_agreement,
)
from annotations.machine.agreement import machine_agreement
from annotations.models import MachineLabel
from annotations.services import submit
from annotations.trust.of_queue import agreement_of
from tests.factories import make_assistant, make_queue, make_turn, make_user

# The worked example of Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): nominal α .743
OBSERVERS = {
    "A": [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
    "B": [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
    "C": [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
    "D": [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
}
LABELS = {
    unit: {who: str(values[unit]) for who, values in OBSERVERS.items() if values[unit] is not None}
    for unit in range(12)
}


def test_alpha_of_a_published_example() -> None:
    alpha = krippendorff_alpha(LABELS)
    assert alpha.value == pytest.approx(0.743, abs=0.001)
    assert alpha.n == 11  # the twelfth unit has one label only
    assert alpha.low is not None
    assert alpha.high is not None
    assert alpha.low < 0.743 < alpha.high


def test_kappa_of_a_published_example() -> None:
    # 50 proposals, two readers: 20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no → κ .40
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    kappa = cohen_kappa(first, second)
    assert kappa.value == pytest.approx(0.4, abs=1e-9)
    assert kappa.low is not None
    assert kappa.high is not None
    assert kappa.low < 0.4 < kappa.high


def test_what_is_not_defined_says_so() -> None:
    assert krippendorff_alpha({}).value is None
    assert percent_agreement({1: {"a": "good"}}).value is None
    same = {1: {"a": "good", "b": "good"}, 2: {"a": "good", "b": "good"}}
    assert krippendorff_alpha(same).value is None
    assert percent_agreement(same).value == 1.0
    assert cohen_kappa(["good"], ["good"]).value is None
    with pytest.raises(ValueError, match="cannot be compared"):
        cohen_kappa(["good"], [])


def test_intervals_do_not_flicker() -> None:
    assert krippendorff_alpha(LABELS) == krippendorff_alpha(LABELS)


@pytest.mark.django_db
def test_agreement_of_a_queue() -> None:
    assistant = make_assistant()
    ann, bob = make_user("ann"), make_user("bob")
    turns = [make_turn(assistant) for _ in range(4)]
    queue = make_queue(assistant, turns=turns, labels_needed=2)
    for i, turn in enumerate(turns):
        submit(turn=turn, annotator=ann, verdict="good", queue=queue, marks={1: "relevant", 2: "unsure"})
        if i < 2:
            submit(turn=turn, annotator=bob, verdict="good", queue=queue, marks={1: "relevant"})
        else:
            submit(turn=turn, annotator=bob, verdict="bad", reasons=["wrong"], queue=queue, marks={1: "not_relevant"})
    verdict, relevance = agreement_of(queue)
    assert verdict.percent.value == 0.5
    assert (verdict.pairs[0].first, verdict.pairs[0].second) == ("ann", "bob")
    assert verdict.pairs[0].kappa.value == 0.0
    assert relevance.percent.n == 4


@pytest.mark.django_db
def test_the_page_of_a_queue_measures_the_newest_labels(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ann, bob, adam = make_user("ann"), make_user("bob"), make_user("adam")
    assistant = make_assistant(members={"admin": [adam]})
    turns = [make_turn(assistant) for _ in range(3)]
    queue = make_queue(assistant, turns=turns, labels_needed=2)
    for i, turn in enumerate(turns):
        submit(turn=turn, annotator=ann, verdict="good", queue=queue, marks={1: "relevant"})
        bobs: dict[str, Any] = {"verdict": "good"} if i else {"verdict": "bad", "reasons": ["wrong"]}
        submit(turn=turn, annotator=bob, queue=queue, marks={1: "relevant"}, **bobs)
        MachineLabel.objects.create(
            assistant=assistant, turn=turn, client_id=f"j{i}", payload_digest="", kind="LLM", name="judge",
            verdict="bad" if i else "good",
        )  # fmt: skip
    MachineLabel.objects.create(
        assistant=assistant, turn=turns[2], client_id="j9", payload_digest="", kind="LLM", name="judge", verdict="good"
    )
    assert (agreement_of(queue)[0].percent.n, machine_agreement(queue)[0].labels) == (3, 3)
    client.force_login(adam)
    page = reverse("admin:annotations_queue_change", args=[queue.pk])
    assert "6 labels are measured" not in client.get(page).content.decode()
    for module in ("annotations.trust.columns", "annotations.machine.agreement", "annotations.admin"):
        monkeypatch.setattr(f"{module}.MAX_LABELS", 4)
    verdict, relevance = agreement_of(queue)
    assert (verdict.percent.value, verdict.percent.n, relevance.percent.n) == (1.0, 2, 2)  # the first turn is too old
    monkeypatch.setattr("annotations.machine.agreement.MAX_LABELS", 2)
    (machine,) = machine_agreement(queue)
    assert (machine.labels, machine.good) == (1, 1)  # of its two newest the last word, on the third turn
    assert machine.kappa.n == 1
    assert "The newest 4 of 6 labels are measured" in client.get(page).content.decode()


def test_pairs_are_of_those_with_the_most_labels() -> None:
    labels = {unit: {f"p{i:02}": "good" for i in range(MAX_PEOPLE + 2) if unit % (i + 1) == 0} for unit in range(60)}
    found = agreement_on("Verdict", labels)
    assert found.left_out == 2
    people = [f"p{i:02}" for i in range(MAX_PEOPLE)]
    assert [(pair.first, pair.second) for pair in found.pairs] == list(combinations(people, 2))
    assert found.percent.n == percent_agreement(labels).n  # everybody's labels


def test_what_the_bootstrap_draws_is_what_the_libraries_say() -> None:
    """The draws use the closed form; with the input itself as the only draw they give the libraries' values."""
    rng = random.Random(3)
    labels = {unit: {who: rng.choice("1123") for who in rng.sample("abcd", rng.randint(1, 4))} for unit in range(300)}
    levels: tuple[Level, ...] = ("nominal", "interval")
    for level in levels:
        alpha = krippendorff_alpha(labels, level)
        drawn = krippendorff_draws(labels, level, 400)
        assert alpha.value is not None
        assert alpha.low == pytest.approx(np.percentile(drawn, 2.5), abs=0.03)
        assert alpha.high == pytest.approx(np.percentile(drawn, 97.5), abs=0.03)
    first, second = [rng.choice("gb") for _ in range(200)], []
    for value in first:
        second.append(value if rng.random() < 0.7 else rng.choice("gb"))
    kappa = cohen_kappa(first, second)
    drawn = kappa_draws(first, second, 400)
    assert kappa.low == pytest.approx(np.percentile(drawn, 2.5), abs=0.03)
    assert kappa.high == pytest.approx(np.percentile(drawn, 97.5), abs=0.03)


def krippendorff_draws(labels: dict[int, dict[str, str]], level: Level, n: int) -> list[float]:
    """By the library, on units that are really drawn again."""
    rng = np.random.default_rng(11)
    units = [list(unit.values()) for unit in labels.values()]
    counts = np.array([[unit.count(value) for value in "123"] for unit in units if len(unit) > 1])
    return [
        krippendorff.alpha(
            value_counts=counts[rng.integers(0, len(counts), len(counts))],
            value_domain=[1.0, 2.0, 3.0],
            level_of_measurement=level,
        )
        for _ in range(n)
    ]


def kappa_draws(first: list[str], second: list[str], n: int) -> list[float]:
    rng = np.random.default_rng(11)
    pairs = np.array([("gb".index(a), "gb".index(b)) for a, b in zip(first, second, strict=True)])
    draws = []
    for _ in range(n):
        table = np.zeros((2, 2))
        np.add.at(table, tuple(pairs[rng.integers(0, len(pairs), len(pairs))].T), 1)
        draws.append(float(cohens_kappa(table, return_results=False)))
    return draws


def test_many_units_cost_no_more_than_few() -> None:
    """Thousands of units have few patterns of labels: an interval for 20,000 is a matter of milliseconds."""
    many = {unit: {"a": "good", "b": "bad" if unit % 3 else "good"} for unit in range(20_000)}
    started = time.process_time()
    assert krippendorff_alpha(many).n == 20_000
    assert time.process_time() - started < 1.0
