"""The home page: the loop as a picture with its counts, and what to do next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db.models import Count, Q, Sum
from django.http import HttpRequest
from django.urls import reverse
from django.utils import timezone

from annotations.models import Annotation, Queue, QueueItem, Resolution
from annotations.people import with_share
from assistants.access import assistants_of, roles_of
from assistants.models import Assistant, Role
from capture.models import Quarantine, Turn
from knowledge.models import Document
from serving.alerts.unserved import why_base_answers
from serving.models import Alert, Deployment, Promotion, TrafficHour
from training.models import Adapter, DatasetVersion, Evaluation, GateVerdict, Run

READERS = frozenset({Role.ADMIN.value, Role.REVIEWER.value})
"""Who sees the whole loop; others see what waits for them."""
RETRAIN_AFTER = 40
"""New resolved labels from which a retraining is worth its minutes."""

WEEK = timedelta(days=7)
EXACTLY = 100_000
"""Turns that are counted one by one; of more, those of users are added up from the hours of `serving.traffic`."""


@dataclass(frozen=True)
class Stage:
    """One station of the loop. ``trouble``: something is stuck here, in a sentence."""

    name: str
    count: int
    unit: str
    link: str
    trouble: str = ""


@dataclass(frozen=True)
class Step:
    """A next best step. ``tone``: amber, green or blue."""

    text: str
    action: str
    link: str
    tone: str


def dashboard(request: HttpRequest, context: dict[str, Any]) -> dict[str, Any]:
    """For django-unfold (DASHBOARD_CALLBACK): fills the index page of the admin."""
    assistants = list(assistants_of(request.user))
    wanted = request.GET.get("assistant")
    chosen = next((a for a in assistants if a.slug == wanted), next(iter(assistants), None))
    context |= {"assistants": assistants, "assistant": chosen}
    if chosen is None:
        return context
    roles = roles_of(request.user, chosen)
    if roles & READERS:
        counts = loop_counts(chosen)
        steps = next_steps(chosen, counts, roles, waiting_labels(chosen, request.user))
        shown = {"stages": stages(counts, roles), "steps": steps, "week": week(chosen, counts), "counts": counts}
        return context | shown | {"alerts": open_alerts(chosen)}
    return context | {"steps": own_steps(chosen, roles, request.user)}


def open_alerts(assistant: Assistant) -> list[Alert]:
    """What is wrong now and nobody has said to have seen; the urgent first, at most five. News are no alarm here."""
    unseen = Alert.objects.open().filter(assistant=assistant, acknowledged_at=None).exclude(level=Alert.Level.NEWS)
    return sorted(unseen[:50], key=lambda alert: alert.level != Alert.Level.URGENT)[:5]


def own_steps(assistant: Assistant, roles: set[str], user: Any) -> list[Step]:
    """What waits for somebody who sees a part of the loop only."""
    steps: list[Step] = []
    if Role.PRIVACY in roles and (held := Quarantine.objects.held().filter(assistant=assistant).count()):
        steps.append(_held(held, roles))
    if Role.ANNOTATOR in roles and (open_ := waiting_labels(assistant, user).theirs):
        steps.append(_to_label(open_))
    return steps


def _held(count: int, roles: set[str]) -> Step:
    text = f"{count:,} captured item{' is' if count == 1 else 's are'} held because scrubbing failed."
    if Role.PRIVACY in roles:
        return Step(text, "Review them", _list("capture_quarantine") + "?state__exact=held", "amber")
    return Step(f"{text} Somebody with the privacy role reviews them.", "See what comes in", _list("capture_turn"),
                "amber")  # fmt: skip


@dataclass(frozen=True)
class Waiting:
    """Open items, by who gets them: the person who looks, nobody (their queue is paused), or chosen others."""

    theirs: int = 0
    paused: int = 0
    others: int = 0


def waiting_labels(assistant: Assistant, user: Any) -> Waiting:
    """Two queries, of as many rows as the assistant has queues."""
    items = QueueItem.objects.filter(queue__assistant=assistant, done=False).order_by()
    open_ = dict(items.values_list("queue").annotate(n=Count("pk")))
    found: Counter[str] = Counter()
    queues: Any = with_share(Queue.objects.filter(assistant=assistant), user)
    for pk, paused, for_them in queues.values_list("pk", "paused", "for_them"):
        found["paused" if paused else "theirs" if for_them else "others"] += open_.get(pk, 0)
    return Waiting(**found)


def _to_label(count: int) -> Step:
    return Step(f"{_turns_wait(count)} for a label.", "Label", _list("annotations_queue"), "blue")


def _turns_wait(count: int) -> str:
    return f"{count:,} {'turn waits' if count == 1 else 'turns wait'}"


def _labelling(waiting: Waiting) -> list[Step]:
    """What keeps labels from being given, for whoever steers it, where there is nothing for themselves to do."""
    queues = _list("annotations_queue")
    if waiting.theirs:
        return [_to_label(waiting.theirs)]
    if waiting.others:
        return [Step(f"{_turns_wait(waiting.others)} for a label by those chosen for it.", "Queues", queues, "blue")]
    if waiting.paused:
        return [Step(f"{_turns_wait(waiting.paused)} for a label, and nobody gets them: paused.", "Queues", queues,
                     "amber")]  # fmt: skip
    return []


def loop_counts(assistant: Assistant) -> dict[str, Any]:
    """Everything the page counts: a fixed number of queries."""
    quarantine = Quarantine.objects.filter(assistant=assistant).aggregate(
        waiting=Count("pk", filter=Q(state=Quarantine.State.WAITING)),
        held=Count("pk", filter=Q(state=Quarantine.State.HELD)),
    )
    documents = Document.objects.filter(assistant=assistant).aggregate(
        ready=Count("pk", filter=Q(state=Document.State.READY)),
        failed=Count("pk", filter=Q(state=Document.State.FAILED)),
    )
    items = QueueItem.objects.filter(queue__assistant=assistant).aggregate(
        open=Count("pk", filter=Q(done=False)), done=Count("pk", filter=Q(done=True))
    )
    frozen = DatasetVersion.objects.filter(assistant=assistant, state=DatasetVersion.State.SUCCEEDED)
    dataset = frozen.select_related("leak_report").first()
    since = {"resolved_at__gt": dataset.created_at} if dataset else {}
    turns, turns_of_week = _turns(assistant)
    deployments = Deployment.objects.filter(assistant=assistant).select_related("assistant", "adapter__run__dataset")
    deployment = deployments.first()
    return {
        "documents": documents,
        "quarantine": quarantine,
        "items": items,
        "turns": turns,
        "turns_of_week": turns_of_week,
        "resolved": Resolution.objects.of(assistant).count(),
        "resolved_since": Resolution.objects.of(assistant).filter(**since).count(),
        "dataset": dataset,
        "run": Run.objects.filter(assistant=assistant).order_by("-created_at").first(),
        "evaluation": Evaluation.objects.filter(assistant=assistant).select_related("adapter").first(),
        "adapters": Adapter.objects.filter(assistant=assistant).count(),
        "deployment": deployment,
        "unserved": why_base_answers(deployment),
    }


def _turns(assistant: Assistant) -> tuple[int, int]:
    """(all, asked within a week). Three queries, of which none grows with the turns.

    By when they were asked, as the page **Live** counts: an import of last year's turns is no traffic of this week."""
    now = timezone.now()
    since = now - WEEK
    hours = TrafficHour.objects.filter(assistant=assistant)
    if assistant.keep_turns_days is not None:  # hours stay when their turns go
        hours = hours.filter(hour__gte=now - timedelta(days=assistant.keep_turns_days))
    by_hours = hours.aggregate(all=Sum("turns"), week=Sum("turns", filter=Q(hour__gte=since, hour__lte=now)))
    turns = Turn.objects.of(assistant).order_by()
    found = []
    for rows, name in ((turns, "all"), (turns.filter(asked_at__gte=since, asked_at__lte=now), "week")):
        counted = rows[: EXACTLY + 1].count()
        found.append(max(counted, by_hours[name] or 0) if counted > EXACTLY else counted)
    return found[0], found[1]


def stages(c: dict[str, Any], roles: Collection[str]) -> list[Stage]:
    """The loop from left to right. Each leads to its page, or to one beside it where ``roles`` do not open it."""
    failed_run = c["run"] is not None and c["run"].state == Run.State.FAILED
    held = c["quarantine"]["held"]
    quarantine = "capture_quarantine" if Role.PRIVACY in roles else "capture_turn"
    return [
        Stage("Documents", c["documents"]["ready"], "ready", _list("knowledge_document"),
              f"{c['documents']['failed']:,} could not be read" if c["documents"]["failed"] else ""),
        Stage("Quarantine", c["quarantine"]["waiting"] + held, "not scrubbed", _list(quarantine),
              f"{held:,} held: scrubbing failed" if held else ""),
        Stage("Turns", c["turns"], "captured", _list("capture_turn")),
        Stage("To label", c["items"]["open"], "open", _list("annotations_queue")),
        Stage("Resolved", c["resolved"], "verdicts", _list("annotations_resolution")),
        Stage("Dataset", c["dataset"].rows if c["dataset"] else 0, "rows", _list("training_datasetversion")),
        Stage("Adapters", c["adapters"], "trained", _list("training_adapter"),
              "the last run failed" if failed_run else ""),
        _live_stage(c),
    ]  # fmt: skip


def _live_stage(c: dict[str, Any]) -> Stage:
    """One that is live and cannot be served does not count: the base model answers."""
    live = c["deployment"].adapter if c["deployment"] else None
    trouble = f"the base model answers, not {live}: {c['unserved']}" if c["unserved"] else ""
    answers = live is not None and not trouble
    return Stage("Live", int(answers), "adapter", _list("serving_deployment"), trouble)


def next_steps(assistant: Assistant, c: dict[str, Any], roles: set[str], waiting: Waiting) -> list[Step]:
    """At most four, the most pressing first; none that leads where ``roles`` do not."""
    steps: list[Step] = []
    admin = Role.ADMIN in roles
    if held := c["quarantine"]["held"]:
        steps.append(_held(held, roles))
    live = c["deployment"].adapter if c["deployment"] else None
    if c["unserved"]:
        steps.append(
            Step(
                f"Users get the base model's answers, not {live}'s: {c['unserved']}.",
                "Look at what is live",
                reverse("admin:serving_deployment_change", args=[c["deployment"].pk]),
                "amber",
            )
        )
    if live is not None and live.erased_rows:
        steps.append(
            Step(
                f"{live} is live and holds erased data: {live.erased_rows} of its rows were erased.",
                "Build a new dataset and train again" if admin else "Look at the datasets",
                reverse("admin:training_datasetversion_add") if admin else _list("training_datasetversion"),
                "amber",
            )
        )
    if c["dataset"] and c["dataset"].leak_report and c["dataset"].leak_report.blocks:
        steps.append(
            Step(
                f"The leak audit blocks {c['dataset']}.",
                "Read what it found",
                reverse("admin:capture_leakreport_change", args=[c["dataset"].leak_report_id]),
                "amber",
            )
        )
    if not c["documents"]["ready"]:
        steps.append(Step("The assistant knows nothing yet.", "Load documents", _list("knowledge_document"), "blue"))
    if not c["turns"]:
        steps.append(
            Step(
                "No conversation has been captured yet.",
                "Create a key for your chatbot" if admin else "Look at the turns",
                _list("assistants_apikey" if admin else "capture_turn"),
                "blue",
            )
        )
    evaluation, deployment = c["evaluation"], c["deployment"]
    if (
        evaluation
        and evaluation.verdict == GateVerdict.PASSED
        and (deployment is None or deployment.adapter_id != evaluation.adapter_id)
        and not _taken_back(evaluation)
    ):
        steps.append(
            Step(
                f"{evaluation.adapter} has passed the gate.",
                "Read before / after and promote" if admin else "Read before / after",
                reverse("dashboards:before-after", args=[evaluation.pk]),
                "green",
            )
        )
    steps += _labelling(waiting)
    if c["resolved_since"] >= RETRAIN_AFTER:
        steps.append(
            Step(
                f"{c['resolved_since']:,} verdicts are new since the last dataset: a retraining is worth it.",
                "Build a dataset" if admin else "Look at the datasets",
                _list("training_datasetversion"),
                "green",
            )
        )
    elif c["turns"] and not c["items"]["open"]:
        missing = RETRAIN_AFTER - c["resolved_since"]
        steps.append(
            Step(
                f"{missing} more verdicts until a retraining is worth it.",
                "Add turns to a queue",
                _list("annotations_queue"),
                "blue",
            )
        )
    return steps[:4]  # fmt: skip


def _taken_back(evaluation: Evaluation) -> bool:
    """It passed, and then disappointed: whoever wants it again reads why it came back first."""
    back = (Promotion.Action.ROLL_BACK, Promotion.Action.TAKE_BACK)
    return Promotion.objects.filter(from_adapter=evaluation.adapter_id, action__in=back).exists()


def week(assistant: Assistant, counts: dict[str, Any]) -> dict[str, int]:
    since = timezone.now() - WEEK
    return {
        "turns": counts["turns_of_week"],
        "labels": Annotation.objects.of(assistant).current().filter(created_at__gte=since).count(),
        "runs": Run.objects.filter(assistant=assistant, created_at__gte=since).count(),
    }


def _list(name: str) -> str:
    return reverse(f"admin:{name}_changelist")
