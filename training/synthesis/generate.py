"""Writes questions from documents until enough are kept: tasks → drafts → filters → stored items, batch by batch.

Every item is stored, dropped ones with the filter's name and what it saw, so that a killed synthesis goes on where it
stopped and the funnel can show examples. What is decided depends on stored items and the seed alone.
"""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from django.conf import settings
from django.db.models import Count

from knowledge.query import question_vectors
from training.engine import bulk_engine
from training.models import Kind, Synthesis, SyntheticItem
from training.synthesis import filters
from training.synthesis.asking_each import TeacherFails
from training.synthesis.desk import Desk
from training.synthesis.judging import Judge, Judged
from training.synthesis.nearness import AskedBefore
from training.synthesis.plan import Plan
from training.synthesis.private import Screen
from training.synthesis.sentences import Material
from training.synthesis.writing import Writer

BATCH = 48
TEACHER_BATCH = 16
"""What a teacher has written is stored so often: its replies cost time and money, and must not be lost."""
MAX_TRIES_PER_WANTED = 5
"""Stop rule: a writer that cannot write must not read the whole archive in vain."""
MAX_QUESTION_TOKENS = 40
SILENT_BATCHES = 2
"""Batches without one usable reply after which a teacher is given up for now."""
ENOUGH = "Enough questions were kept."


def perform(synthesis: Synthesis) -> None:
    """Writes until enough are kept, nothing is left to write about, or a budget is used up.

    Raises:
        TeacherFails: no reply of a whole batch could be used, twice in a row; what is stored stays.
        training.synthesis.plan.PlanError: the stored plan is not one.
    """
    plan = Plan.from_dict(synthesis.plan)
    synthesis.beat(stage="reading the documents", done=0, total=synthesis.wanted)
    material = Material(synthesis.assistant, synthesis.seed)
    screen = Screen(synthesis.assistant)
    writer = Writer(
        synthesis, plan, material, screen, engine=bulk_engine, question_tokens=MAX_QUESTION_TOKENS
    )  # fmt: skip
    desk = Desk(synthesis, plan, material, by_rule_only=plan.writer == "rules")
    before = _kept_before(synthesis)
    judge = Judge(
        synthesis.assistant, material, before, screen, ask=writer.ask if plan.checks_answers else None,
        sure=writer.teaches or bool(settings.RATCHET_OPENAI_BASE_URL),
    )  # fmt: skip
    spent, began, silent = _spent(synthesis), time.monotonic(), 0
    while not (why := stop(plan, synthesis.wanted, desk, spent)):
        room = _most(plan, synthesis.wanted) - sum(desk.written.values())
        size = min(TEACHER_BATCH if writer.teaches else BATCH, max(16, 2 * (synthesis.wanted - desk.total)), room)
        tasks = desk.next_tasks(size)
        if not tasks:
            why = "The documents have nothing more to ask for in this plan."
            break
        drafts = writer.write(tasks)
        judged = judge.judge(drafts, missing_left=desk.missing_left)
        items = _accepted(synthesis, judge, desk, judged)
        spent["tokens"] += sum(item.lineage.get("tokens", 0) for item in items)
        spent["seconds"] += round(time.monotonic() - began, 3)
        items[-1].lineage["work"] = round(time.monotonic() - began, 3)
        began = time.monotonic()
        SyntheticItem.objects.bulk_create(items, ignore_conflicts=True)
        for item in items:
            desk.note(item.task, item.attempt, item.dropped_by, item.chunk_id, missing=item.form == "missing")
        desk.forget_order()
        synthesis.beat(stage="writing questions", done=desk.total, total=synthesis.wanted)
        silent = silent + 1 if all(item.dropped_by == filters.NO_REPLY for item in items) else 0
        if silent >= SILENT_BATCHES:
            _close(synthesis, "The teacher gave no usable reply any more.", desk, spent)
            raise TeacherFails(
                f"The teacher gave no usable reply for {silent} batches, the last time: {items[-1].note.rstrip('.')}. "
                f"{desk.total} questions are kept; go on when it answers again."
            )
    _close(synthesis, why, desk, spent)


def stop(plan: Plan, wanted: int, desk: Desk, spent: dict[str, float]) -> str:
    """Why nothing more is to be written, in one sentence; empty: go on."""
    written = sum(desk.written.values())
    if desk.total >= wanted:
        return ENOUGH
    if written >= _most(plan, wanted):
        return f"{written:,} questions were written, as many as the plan allows."
    if plan.max_tokens and spent["tokens"] >= plan.max_tokens:
        return f"{spent['tokens']:,.0f} tokens were used, as many as the plan allows."
    if plan.max_minutes and spent["seconds"] >= 60 * plan.max_minutes:
        return f"{plan.max_minutes:,} minutes were worked, as many as the plan allows."
    return ""


def _most(plan: Plan, wanted: int) -> int:
    return plan.max_items or wanted * MAX_TRIES_PER_WANTED


def funnel(synthesis: Synthesis) -> dict[str, Any]:
    """{written, kept, dropped: {filter: n}, forms: {form: {written, kept}}} counted from the stored items."""
    dropped: Counter[str] = Counter()
    forms: dict[str, Counter[str]] = {}
    rows = synthesis.items.order_by().values_list("dropped_by", "form").annotate(n=Count("pk"))
    for why, form, n in rows:
        dropped[why] += n
        counted = forms.setdefault(form, Counter(written=0, kept=0))
        counted["written"] += n
        counted["kept"] += 0 if why else n
    kept = dropped.pop("", 0)
    return {
        "written": kept + sum(dropped.values()),
        "kept": kept,
        "dropped": dict(dropped),
        "forms": {form: dict(counted) for form, counted in sorted(forms.items())},
    }


def _close(synthesis: Synthesis, why: str, desk: Desk, spent: dict[str, float]) -> None:
    covered = {pk for pk, n in desk.chunk_kept.items() if n and pk in desk.material.chunks}
    paths = desk.material.chunks
    synthesis.funnel = funnel(synthesis) | {
        "covered": {
            "chunks": len(covered),
            "of_chunks": len(paths),
            "documents": len({paths[pk][0].path for pk in covered}),
            "of_documents": len({listed[0].path for listed in paths.values()}),
        },
        "tokens": int(spent["tokens"]),
    }
    synthesis.stopped_by = why[:300]
    synthesis.keep("funnel", "stopped_by")


def _accepted(synthesis: Synthesis, judge: Judge, desk: Desk, judged: list[Judged]) -> list[SyntheticItem]:
    """Rows of the drafts up to the last one that was wanted."""
    items: list[SyntheticItem] = []
    room = synthesis.wanted - desk.total
    for row in judged:
        judge.accept(row)
        items.append(_item(synthesis, row))
        room -= row.kept
        if room == 0:
            break
    return items


def _item(synthesis: Synthesis, row: Judged) -> SyntheticItem:
    draft, task = row.draft, row.draft.task
    places = draft.gold or task.places
    declines = draft.declines or row.missing
    response = draft.answer or " ".join(draft.texts)
    private = draft.dropped_by == filters.PERSONAL_DATA
    item = SyntheticItem(
        synthesis=synthesis,
        chunk=places[0].chunk if places else None,
        source=places[0].path if places else "",
        sentence=places[0].index if places else 0,
        question=draft.question,
        history=[dict(message) for message in draft.history],
        response="" if private else synthesis.assistant.decline_sentence if declines else response,
        form="missing" if row.missing else task.form,
        kind=Kind.DECLINE if declines else Kind.ANSWER,
        dropped_by=draft.dropped_by,
        note=draft.note,
        lineage={**draft.lineage, "expected": response} if row.missing else draft.lineage,
        task=task.key,
        attempt=task.attempt,
    )
    if row.kept and row.found is not None:
        item.contexts = row.found.contexts()
        item.lineage["retrieval"] = row.found.digest
        if declines:
            item.contexts["gold"] = None
            item.answer = [{"text": item.response, "refs": []}]
        elif draft.answer:
            item.answer = [{"text": draft.answer, "refs": list(row.found.gold)}]
        else:
            item.answer = [
                {"text": text, "refs": [place]} for text, place in zip(draft.texts, row.found.gold, strict=True)
            ]
    return item


def _kept_before(synthesis: Synthesis) -> AskedBefore:
    """The questions that an earlier attempt kept."""
    before = AskedBefore()
    rows = list(synthesis.items.filter(dropped_by="").values_list("question", "history"))
    vectors = question_vectors([(question, history) for question, history in rows], synthesis.assistant.glossary)
    for (question, history), vector in zip(rows, vectors, strict=True):
        asked = [message["content"] for message in history if message["role"] == "user"]
        before.add("\n".join([*asked, question]), vector)
    return before


def _spent(synthesis: Synthesis) -> dict[str, float]:
    """Tokens and seconds of work that earlier attempts have used."""
    spent = {"tokens": 0.0, "seconds": 0.0}
    for lineage in synthesis.items.values_list("lineage", flat=True).iterator():
        spent["tokens"] += lineage.get("tokens", 0)
        spent["seconds"] += lineage.get("work", 0)
    return spent
