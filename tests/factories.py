"""Rows for tests, written straight to the database: small, readable, with defaults that make sense together.

Every factory takes what the test is about by keyword and fills the rest. Nothing here calls a service, so a test of
one room never depends on another room's code.
"""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from annotations.models import Queue
    from assistants.models import Assistant
    from capture.models import Conversation, Feedback, Passage, Retrieval, Turn
    from knowledge.models import Document
    from training.models import Adapter, Benchmark, Evaluation

_numbers = itertools.count(1)

PASSWORD = "tulip-cable-96"

CONTEXTS: tuple[Mapping[str, str], ...] = (
    {
        "title": "Leaving early",
        "source": "tariffs/leaving.md",
        "text": "A fixed plan has an exit fee of £35. No fee is due in the last 49 days of the plan.",
    },
    {
        "title": "Moving house",
        "source": "moving/moving.md",
        "text": "Tell us 10 days before you move. Your plan can move with you to the new address.",
    },
    {
        "title": "Meter readings",
        "source": "meters/readings.md",
        "text": "Read the meter on the first day of the month. Send the figures before the dot only.",
    },
)


def make_user(
    username: str = "", *, superuser: bool = False, staff: bool = True, password: str = PASSWORD, **fields: Any
) -> User:
    """A user who can log in with `PASSWORD`; staff, so that the admin site lets them in."""
    from django.contrib.auth import get_user_model

    username = username or f"user{next(_numbers)}"
    user = get_user_model()(
        username=username, email=f"{username}@example.test", is_staff=staff, is_superuser=superuser, **fields
    )
    user.password = _hashed(password)
    user.save()
    return user


@lru_cache(maxsize=8)
def _hashed(password: str) -> str:
    """Hashing is slow on purpose: once per password is enough here."""
    from django.contrib.auth.hashers import make_password

    return make_password(password)


def make_assistant(slug: str = "", *, members: Mapping[str, Sequence[User]] | None = None, **fields: Any) -> Assistant:
    """An assistant; ``members`` maps a role to the users who have it: ``{"annotator": [ann, bob]}``."""
    from assistants.models import Assistant

    slug = slug or f"assistant-{next(_numbers)}"
    assistant = Assistant.objects.create(slug=slug, **{"name": slug.replace("-", " ").title(), **fields})
    for role, users in (members or {}).items():
        for user in users:
            add_member(assistant, user, role)
    return assistant


def add_member(assistant: Assistant, user: User, role: str = "annotator") -> None:
    from assistants.models import Membership

    Membership.objects.get_or_create(assistant=assistant, user=user, role=role)


def make_conversation(assistant: Assistant, external_id: str = "", **fields: Any) -> Conversation:
    from capture.models import Conversation

    return Conversation.objects.create(
        assistant=assistant, external_id=external_id or f"conversation-{next(_numbers)}", **fields
    )


def make_passage(assistant: Assistant, *, text: str, title: str = "", source: str = "", **fields: Any) -> Passage:
    """The passage of this text, stored once per assistant as capture does."""
    from capture.models import Passage

    digest = hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()
    return Passage.objects.get_or_create(
        assistant=assistant, digest=digest, defaults={"title": title, "source": source, "text": text, **fields}
    )[0]


def make_turn(
    assistant: Assistant | None = None,
    *,
    question: str = "What does it cost to leave a fixed plan early?",
    response: str = "The exit fee is £35. [1]",
    contexts: Sequence[Mapping[str, Any]] = CONTEXTS,
    history: Sequence[Mapping[str, str]] = (),
    citations: Sequence[Sequence[int]] = ((1, 0),),
    conversation: Conversation | None = None,
    asked_at: datetime | None = None,
    **fields: Any,
) -> Turn:
    """A scrubbed turn with its retrievals.

    ``contexts``: ``{"text", "title", "source", "score", "evidence", "metadata"}``, in rank order from 1; ``evidence``
    as `capture.models.Retrieval.evidence` (rank 1 offers its first sentence when nothing is said).
    """
    from django.utils import timezone

    from capture.models import Turn

    assistant = assistant or make_assistant()
    turn = Turn.objects.create(
        assistant=assistant,
        conversation=conversation or make_conversation(assistant),
        question=question,
        response=response,
        history=[dict(message) for message in history],
        citations=[list(pair) for pair in citations],
        asked_at=asked_at or timezone.now(),
        **{"client_id": f"turn-{next(_numbers)}", "model": "base", "policy_digest": "test", **fields},
    )
    for rank, context in enumerate(contexts, start=1):
        make_retrieval(turn, rank=rank, **context)
    return turn


def make_retrieval(
    turn: Turn,
    *,
    rank: int,
    text: str,
    title: str = "",
    source: str = "",
    score: float | None = None,
    evidence: Sequence[Sequence[float]] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Retrieval:
    from capture.models import Retrieval

    if evidence is None:
        evidence = [[0, 0, 0.8]] if rank == 1 else []
    return Retrieval.objects.create(
        turn=turn,
        passage=make_passage(turn.assistant, text=text, title=title, source=source, metadata=dict(metadata or {})),
        rank=rank,
        score=round(0.9 - 0.1 * rank, 3) if score is None else score,
        evidence=[list(row) for row in evidence],
    )


def make_feedback(turn: Turn, *, kind: str = "thumb", value: float | None = -1.0, text: str = "") -> Feedback:
    from capture.models import Feedback

    return Feedback.objects.create(assistant=turn.assistant, turn=turn, kind=kind, value=value, text=text)


def make_queue(assistant: Assistant, *, turns: Sequence[Turn] = (), **fields: Any) -> Queue:
    """A queue whose items each need ``labels_needed`` labels (overlap is the service's business)."""
    from annotations.models import Queue, QueueItem

    queue = Queue.objects.create(assistant=assistant, **{"name": f"Queue {next(_numbers)}", **fields})
    QueueItem.objects.bulk_create(
        QueueItem(queue=queue, turn=turn, labels_needed=queue.labels_needed) for turn in turns
    )
    return queue


def make_document(assistant: Assistant, *, path: str = "", title: str = "", text: str = "", **fields: Any) -> Document:
    """A ready document without chunks (chunks carry vectors: load them through `knowledge.services`)."""
    from knowledge.models import Document
    from knowledge.scrubbing import source_key

    path = path or f"docs/{next(_numbers)}.md"
    text = text or "A fixed plan has an exit fee of £35."
    return Document.objects.create(
        assistant=assistant,
        source_key=source_key(assistant.pk, path),
        path=path,
        title=title or path,
        text=text,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        **{"media_type": "text/markdown", "state": Document.State.READY, **fields},
    )


def make_adapter(assistant: Assistant, *, number: int = 1, seed: int = 0, **fields: Any) -> Adapter:
    """A registered adapter; with ``seed`` there is a real one behind it (for `tests.tiny_model.shared_base`)."""
    from django.conf import settings

    from generation.adapters import base_digest
    from tests.tiny_model import shared_adapter, shared_base
    from training.finetune.bases import relative_to_state
    from training.models import Adapter

    folder = settings.RATCHET_ADAPTERS_DIR / assistant.slug / str(number)
    if seed:
        shutil.copytree(shared_adapter(assistant.prompt_digest, seed), folder, dirs_exist_ok=True)
        fields.setdefault("base_digest", base_digest(shared_base()))
    return Adapter.objects.create(
        assistant=assistant,
        number=number,
        **{
            "folder": relative_to_state(folder),
            "base_digest": "0" * 64,
            "prompt_digest": assistant.prompt_digest,
            **fields,
        },
    )


def make_benchmark(assistant: Assistant, *, name: str = "", **fields: Any) -> Benchmark:
    from training.models import Benchmark

    return Benchmark.objects.create(
        assistant=assistant, name=name or f"Benchmark {next(_numbers)}", **{"content_hash": "0" * 64, **fields}
    )


def make_evaluation(adapter: Adapter, *, benchmark: Benchmark | None = None, **fields: Any) -> Evaluation:
    """A finished evaluation without answers; ``verdict`` not proven unless said."""
    from training.models import Evaluation

    return Evaluation.objects.create(
        assistant=adapter.assistant,
        adapter=adapter,
        benchmark=benchmark or make_benchmark(adapter.assistant),
        prompt_digest=adapter.prompt_digest,
        **{"state": "succeeded", "verdict": "not_proven", "sentence": "It was measured.", **fields},
    )
