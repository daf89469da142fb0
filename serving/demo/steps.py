"""The steps of the main job, each through the door that users have; each reuses what is there already."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from django.conf import settings
from django.contrib.auth import get_user_model
from django.db import transaction
from django.utils import timezone

from assistants.background import BackgroundWork
from assistants.models import ApiKey, Assistant, Scope
from assistants.policies import Rules, change_policy
from assistants.services import create_assistant, issue_key, revoke_key
from capture.models import Quarantine, Turn
from generation.prompts import PromptStyle
from knowledge.configuration import checked, settings_of
from knowledge.configuring import activate, save_configuration
from knowledge.retrieval_models import RetrievalConfiguration
from knowledge.services import load_folder
from privacy.policy import Policy
from serving.demo import content
from serving.demo.frontend import DemoFailed, compose, post_feedback, post_log
from serving.demo.people import label_turns, make_annotators
from serving.services import PromotionRefused, deployment_of, promote
from training.data.benchmark import freeze_benchmark, read_items
from training.data.recipe import Recipe
from training.finetune.bases import digest_of_base
from training.finetune.config import FinetuneConfig
from training.models import Adapter, Arm, Benchmark, DatasetVersion, Evaluation, GateVerdict, Run, Synthesis
from training.retrieval.calibration import calibrate, labelled_items
from training.services import build_dataset, start_evaluation, start_run, start_synthesis

SYNTHETIC_QUESTIONS = 60
SCRUB_SECONDS = 600
WORK_SECONDS = 1800
KEY_NAME = "demo frontend"
BENCHMARK = "Held-out questions"
RECIPE = {
    "weight_corrected": 1,
    "weight_handoff": 1,
    "missing_oracle_share": 0.0,
    "missed": "leave out",
    "max_decline_share": 0.05,
    "max_handoff_share": 0.06,
}
"""Chosen on the questions for development (docs/log.md, 2026-11-22): without the declines due to retrieval more
answers are right, and with .05 instead of .09 fewer questions are refused that could be answered."""

Progress = Callable[[int, int, str], None]


def assistant_step() -> Assistant:
    """The demo assistant, as an admin would set it up."""
    found = Assistant.objects.filter(slug=content.SLUG).first()
    if found is not None:
        return found
    assistant = create_assistant(
        slug=content.SLUG,
        name=content.NAME,
        prompt_style=PromptStyle.SENTENCES.value,
        decline_sentence=content.DECLINE,
        handoff_sentence=content.HANDOFF,
        glossary=content.glossary(),
        evidence_sentences=6,  # six lines are what a small model reads quickly; eight find 3 % more
    )
    rules = Rules(policy=Policy(allow=tuple(content.PUBLIC)))
    change_policy(assistant=assistant, rules=rules, actor=None, reason="The house's own public contacts.")
    return assistant


def frontend_key(assistant: Assistant) -> str:
    """The demo frontend's key, kept in var/secrets so that a second run uses the same one."""
    file = Path(settings.SECRETS_DIR) / "demo_key"
    if file.exists():
        secret = file.read_text().strip()
        if ApiKey.objects.usable().filter(assistant=assistant, digest=ApiKey.digest_of(secret)).exists():
            return secret
    for old in ApiKey.objects.usable().filter(assistant=assistant, name=KEY_NAME):
        revoke_key(key=old, actor=None, reason="its secret is lost")
    _, secret = issue_key(
        assistant=assistant,
        name=KEY_NAME,
        scopes=[Scope.LOG, Scope.CHAT, Scope.READ],
        expires_at=timezone.now() + timedelta(days=90),
    )
    file.touch(mode=0o600)
    file.write_text(secret)
    return secret


def documents_step(assistant: Assistant, progress: Progress) -> str:
    report = load_folder(assistant=assistant, folder=content.DOCUMENTS, progress=progress)
    for path, why in report.failed:
        raise DemoFailed(f"{path}: {why}")
    return report.sentence


def log_step(assistant: Assistant, client: httpx.Client, progress: Progress) -> str:
    turns = content.turns()
    have = set(Turn.objects.of(assistant).values_list("client_id", flat=True))
    if all(turn.id in have for turn in turns):
        return f"{len(turns)} turns are there already"
    items = compose(assistant, turns)
    new = post_log(client, items, lambda done, total: progress(done, total, "posted"))
    return f"{new} turns posted"


def scrub_step(assistant: Assistant, client: httpx.Client, progress: Progress) -> str:
    """Waits until the worker has scrubbed everything; nothing is readable before."""
    waiting = Quarantine.objects.waiting().filter(assistant=assistant)
    total = waiting.count()
    deadline = time.monotonic() + SCRUB_SECONDS
    while left := waiting.count():
        progress(total - left, total, "scrubbed")
        if time.monotonic() > deadline:
            raise DemoFailed(f"{left} turns are still in quarantine after {SCRUB_SECONDS} s; see var/log/worker.log.")
        time.sleep(0.5)
    if held := Quarantine.objects.held().filter(assistant=assistant).count():
        raise DemoFailed(f"{held} turns are held: scrubbing failed. See the quarantine page and var/log/worker.log.")
    post_feedback(client, content.turns())
    masked = sum(len(pii) for pii in Turn.objects.of(assistant).values_list("pii", flat=True))
    return f"{total} turns scrubbed, {masked} values masked"


def labels_step(assistant: Assistant, progress: Progress) -> str:
    people = make_annotators(assistant)
    given = label_turns(assistant, people, content.turns(), lambda done, total: progress(done, total, "labelled"))
    resolved = Turn.objects.of(assistant).filter(resolution__isnull=False).count()
    return f"{given} labels given, {resolved} turns resolved"


def benchmark_step(assistant: Assistant, progress: Progress, *, development: bool) -> Benchmark:
    items = read_items(content.benchmark_lines(development=development))
    name = f"{BENCHMARK} for development" if development else BENCHMARK
    return freeze_benchmark(
        assistant=assistant, name=name, items=items, progress=lambda done, total: progress(done, total, "frozen")
    )


def calibrate_step(assistant: Assistant, progress: Progress) -> str:
    """The threshold for declining, read off the questions for development, as the page Threshold would suggest it.
    Before questions are written and a dataset is made: only what lies above it is learnt. One that somebody has taken
    back stays away."""
    once = RetrievalConfiguration.objects.filter(assistant=assistant, settings__evidence_threshold__gt=0)
    if not assistant.evidence_threshold and once.exists():
        return "somebody has taken the threshold back; it stays so"
    if not assistant.evidence_threshold:
        benchmark = benchmark_step(assistant, progress, development=True)
        proposed = calibrate(labelled_items(benchmark)).proposed
        if proposed is None or not proposed.declined:
            return "no threshold helps"
        wanted = checked(settings_of(assistant).model_dump() | {"evidence_threshold": proposed.threshold})
        with transaction.atomic():  # stored and not active, it would look as if somebody had taken it back
            version = save_configuration(
                assistant=assistant, name=f"Threshold {proposed.threshold:g}", settings=wanted,
                note=f"Read off the benchmark “{benchmark.name}”: declining is right for {proposed.precision:.0%} of "
                f"what it declines, and {proposed.lost:.1%} of the answers are lost.",
            )  # fmt: skip
            activate(configuration=version)
        assistant.refresh_from_db()
    return f"below a similarity of {assistant.evidence_threshold:g} no model is asked"


def synthesis_step(assistant: Assistant, progress: Progress) -> Synthesis:
    found = Synthesis.objects.filter(assistant=assistant, state=BackgroundWork.State.SUCCEEDED).first()
    if found is None:
        found = start_synthesis(assistant=assistant, wanted=SYNTHETIC_QUESTIONS, created_by=None)
        wait_for(found, progress)
    return found


def dataset_step(
    assistant: Assistant,
    benchmark: Benchmark,
    synthesis: Synthesis,
    progress: Progress,
    recipe: Mapping[str, Any] | None = None,
) -> DatasetVersion:
    chosen = Recipe.from_dict({**RECIPE, **(recipe or {})})
    found = DatasetVersion.objects.filter(
        assistant=assistant, state=BackgroundWork.State.SUCCEEDED, benchmark=benchmark, synthesis=synthesis,
        prompt_digest=assistant.prompt_digest, recipe=chosen.as_dict(),
    ).first()  # fmt: skip
    if found is None:
        found = build_dataset(assistant=assistant, benchmark=benchmark, synthesis=synthesis, recipe=chosen)
        wait_for(found, progress)
    return found


def run_step(
    assistant: Assistant,
    dataset: DatasetVersion,
    progress: Progress,
    *,
    seed: int = 1,
    settings: Mapping[str, Any] | None = None,
) -> Adapter:
    wanted = FinetuneConfig.from_dict(dict(settings or {}))
    # An adapter of an earlier base model cannot be served any more; one that another method has made is another one.
    found = Run.objects.filter(
        dataset=dataset, state=BackgroundWork.State.SUCCEEDED, base_digest=digest_of_base(), seed=seed,
        settings=wanted.as_dict(), method="sft", parent=None,
    ).first()  # fmt: skip
    if found is None:
        found = start_run(assistant=assistant, dataset=dataset, settings=wanted, seed=seed, created_by=None)
        wait_for(found, progress)
    return found.adapter


def evaluation_step(assistant: Assistant, adapter: Adapter, benchmark: Benchmark, progress: Progress) -> Evaluation:
    done = Evaluation.objects.filter(adapter=adapter, benchmark=benchmark, state=BackgroundWork.State.SUCCEEDED)
    found = next((one for one in done if one.threshold == assistant.evidence_threshold), None)
    if found is None:
        found = start_evaluation(assistant=assistant, adapter=adapter, benchmark=benchmark, created_by=None)
        wait_for(found, progress)
    return found


def promote_step(assistant: Assistant, evaluation: Evaluation) -> str:
    if deployment_of(assistant).adapter_id == evaluation.adapter_id:
        return f"{evaluation.adapter} is live already"
    if evaluation.verdict != GateVerdict.PASSED:
        return f"not promoted: {GateVerdict(evaluation.verdict).label.lower()}"
    try:
        promote(
            assistant=assistant, adapter=evaluation.adapter, evaluation=evaluation,
            actor=get_user_model().objects.filter(is_superuser=True).first(), reason="The demo's gate was passed.",
        )  # fmt: skip
    except PromotionRefused as refused:
        raise DemoFailed(str(refused)) from refused
    return f"{evaluation.adapter} is live"


def ask_step(assistant: Assistant, client: httpx.Client, evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(question, answer of the base, answer of the adapter) for three held-out questions, over HTTP."""
    live = f"{assistant.slug}:{evaluation.adapter.number}"
    if deployment_of(assistant).adapter_id == evaluation.adapter_id:
        live = assistant.slug
    out = []
    for item in sample_items(evaluation):
        messages = [*item.history, {"role": "user", "content": item.question}]
        answers = [_chat(client, model, messages) for model in (f"{assistant.slug}:base", live)]
        out.append((item.question, answers[0], answers[1]))
    return out


def sample_items(evaluation: Evaluation) -> list[Any]:
    """The first held-out question of each kind of behaviour: one to answer, one to decline, one to hand over."""
    items = evaluation.benchmark.items.filter(history=[]).order_by("pk")
    first: dict[str, Any] = {}
    for item in items:
        if item.kind != "answer" or item.contexts["clean"]["has_gold"]:
            first.setdefault(item.kind, item)
    return [first[kind] for kind in ("answer", "decline", "handoff") if kind in first]


def _chat(client: httpx.Client, model: str, messages: list[dict[str, str]]) -> str:
    answer = client.post("/v1/chat/completions", json={"model": model, "messages": messages}, timeout=60)
    if answer.status_code != 200:
        raise DemoFailed(f"The chat endpoint answered {answer.status_code}: {answer.text[:300]}")
    return str(answer.json()["choices"][0]["message"]["content"])


def wait_for(work: BackgroundWork, progress: Progress) -> None:
    """Follows background work to its end.

    Raises:
        DemoFailed: it failed, was cancelled, or took far too long.
    """
    deadline = time.monotonic() + WORK_SECONDS
    while True:
        work.refresh_from_db()
        if work.state == BackgroundWork.State.SUCCEEDED:
            return
        if not work.is_active:
            raise DemoFailed(f"{work} {work.get_state_display().lower()}: {work.error or 'see var/log'}")
        if time.monotonic() > deadline:
            raise DemoFailed(f"{work} is still {work.get_state_display().lower()} after {WORK_SECONDS} s.")
        done, total = work.progress.get("done") or 0, work.progress.get("total") or 0
        progress(done, total, str(work.progress.get("stage") or "waiting"))
        time.sleep(0.5)


def arm_rows(evaluation: Evaluation) -> list[tuple[str, str, int, float, float, float]]:
    """(arm, condition, n, share, low, high) of the primary measure."""
    rows = []
    for arm, label in Arm.choices:
        for condition, values in sorted(evaluation.results.get(arm, {}).items()):
            e = values["grounded_correct"]
            rows.append((label, condition.replace("_", " "), e["n"], e["value"], e["low"], e["high"]))
    return rows
