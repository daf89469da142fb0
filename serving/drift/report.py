"""One drift report, as its process makes it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from serving.drift.models import DriftReport
from serving.drift.sample import Reference, Window, reference, window
from serving.drift.series import behaviour, documents, passages, wording
from serving.drift.two_sample import LEAST, compare
from serving.drift.words import words_of_rows, words_of_turns
from training.models import DatasetVersion
from training.rules.firing import report_drift

ALPHA = 0.05
STORED = 300
"""Questions of the window whose keys are kept, the most telling first."""


def perform(report: DriftReport) -> None:
    """Fills a report: {"n_now", "n_before", "logged": the dataset's logged questions were enough, "auc", "p": of the
    test that decides, "fisher_p", "mmd", "mmd_p", "words_p": its parts, "behaviour", "passages", "wording",
    "documents"}.

    Raises:
        RuntimeError: the dataset was deleted meanwhile.
    """
    dataset = report.dataset
    if dataset is None:
        raise RuntimeError("The dataset that it was to be compared with is gone. Start another report.")
    report.beat(stage="reading questions", done=0, total=3)
    new = window(report.assistant, report.since, report.until, without=dataset)
    old = reference(dataset, report.assistant)
    results: dict[str, Any] = {"n_now": len(new.keys), "n_before": len(old.keys), "logged": old.logged}
    report.beat(stage="counting", done=1)
    results |= _series(report, dataset, new, old)
    report.beat(stage="comparing", done=2)
    report.now = [[str(key), None] for key in new.keys[:STORED]]
    report.before = old.keys
    if min(len(new.keys), len(old.keys)) < LEAST:
        report.verdict = DriftReport.Verdict.TOO_FEW
    else:
        results |= _tests(report, new, old)
        report.verdict = DriftReport.Verdict.DRIFT if results["p"] <= ALPHA else DriftReport.Verdict.SAME
    report.results = results
    report.alarm = report.verdict == DriftReport.Verdict.DRIFT and _drifted_before(report)
    report.sentence = sentence(report)
    report.keep("results", "verdict", "alarm", "sentence", "now", "before")
    report.beat(stage="done", done=3)
    if report.alarm:
        report_drift(report.assistant, report.sentence)  # the assistant's rule may propose, or start, a retraining


def sentence(report: DriftReport) -> str:
    r = report.results
    if report.verdict == DriftReport.Verdict.TOO_FEW:
        return (
            f"Too few questions to say: {r['n_now']} of the window, one of each conversation, and {r['n_before']} of "
            f"the dataset. At least {LEAST} of each are needed."
        )
    numbers = f"AUC {r['auc']:.2f}, p = {r['p']:.3f}, {r['n_now']} questions against {r['n_before']}"
    if report.verdict == DriftReport.Verdict.SAME:
        return f"No change is shown between what users ask and what the adapter was trained on ({numbers})."
    running = " It was so in the window before, too." if report.alarm else ""
    return f"Users ask something else than the adapter was trained on ({numbers}).{running}"


def _tests(report: DriftReport, new: Window, old: Reference) -> dict[str, Any]:
    found = compare(old.vectors, new.vectors, seed=report.pk, words=(words_of_rows(old.keys), words_of_turns(new.keys)))
    ordered = sorted(zip(found.scores.tolist(), map(str, new.keys), strict=True), reverse=True)
    report.now = [[key, round(score, 4)] for score, key in ordered[:STORED]]
    return {
        "auc": round(found.auc, 4), "p": round(found.p, 4), "fisher_p": round(found.fisher_p, 4),
        "mmd": round(found.mmd, 6), "mmd_p": round(found.mmd_p, 4),
        "words_p": None if found.words_p is None else round(found.words_p, 4),
    }  # fmt: skip


def _series(report: DriftReport, dataset: DatasetVersion, new: Window, old: Reference) -> dict[str, Any]:
    return {
        "behaviour": behaviour(report.assistant, report.since, report.until),
        "passages": passages(new.keys, old.keys),
        "wording": wording(new.keys, old.keys),
        "documents": documents(report.assistant, dataset),
    }


def _drifted_before(report: DriftReport) -> bool:
    """Whether the window right before this one, against the same dataset, showed drift. Windows that overlap this one
    are no second witness."""
    earlier = DriftReport.objects.filter(
        assistant=report.assistant,
        dataset=report.dataset,
        state=DriftReport.State.SUCCEEDED,
        until__lte=report.since + timedelta(hours=1),
        until__gte=report.since - timedelta(days=1),
    )
    last = earlier.exclude(pk=report.pk).order_by("-until", "-pk").first()
    return last is not None and last.verdict == DriftReport.Verdict.DRIFT
