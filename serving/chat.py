"""One question, from retrieval to prompt: what the chat endpoint, the demo and the tests all ask through."""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.utils import timezone
from pydantic import TypeAdapter, ValidationError

from assistants.models import ApiKey, Assistant
from capture.payloads import Name
from capture.services import receive_turns
from generation.engines import GenerationResult, declining
from generation.prompts import Answer, Message, Prompt, PromptPassage, build_prompt, parse_answer
from knowledge.configuration import RetrievalSettings, checked, settings_of
from knowledge.query import Pending
from knowledge.retrieval import RetrievalResult, begin_query, retrieve
from serving.experiments import exposures
from serving.experiments.assignment import Exposed, Unit, choose_arm
from serving.live import deployment_of
from training.models import Adapter

logger = logging.getLogger(__name__)

MAX_NAME, MAX_ADAPTER_NAME = 200, 120
"""Characters, as capture takes them."""
_NAME: TypeAdapter[str] = TypeAdapter(Name)
_NOT_IN_NAMES = re.compile(r"[^\w.:/+~,=()\[\]\- ]", re.ASCII)
BASE_SUFFIX = ":base"
"""``model`` names: ``<assistant>`` is what is live, ``<assistant>:base`` the base, ``<assistant>:7`` adapter 7."""


class UnknownModel(LookupError):
    """The request names a model that this key's assistant does not have."""


class ForeignPrompt(ValueError):
    """The adapter was trained with another prompt format than the assistant uses now."""


@dataclass(frozen=True)
class Arm:
    """Which weights answer. ``adapter`` None: the base model. ``exposed``: as which arm of an experiment."""

    model: str
    adapter: Adapter | None
    exposed: Exposed | None = None
    pinned: bool = False
    """Asked for by number: then nothing else may answer in its place."""


@dataclass(frozen=True)
class Asked:
    """A question that is ready for the engine, with everything that its turn will record."""

    id: str
    assistant: Assistant
    arm: Arm
    question: str
    history: Sequence[Message]
    retrieval: RetrievalResult
    prompt: Prompt
    dropped: int = 0
    """Sentences of evidence (in the style ``passages``: passages) that were left out because they did not fit."""

    def without_model(self) -> GenerationResult | None:
        """The decline sentence, where the threshold withheld everything; None: ask a model.

        A model that is offered nothing need not decline: the bundled one makes something up.
        """
        return declining(self.assistant.house) if self.retrieval.withheld else None


def resolve_model(assistant: Assistant, name: str, unit: Unit | None = None) -> Arm:
    """Which weights a model name stands for; in an experiment, also ``unit`` decides: whose question it is.

    An adapter of another prompt format is never asked: what is live then falls back to the base model, so that users
    go on getting answers after a change of style or wording.

    Raises:
        UnknownModel: a name of another assistant, or an adapter that is not there.
        ForeignPrompt: an adapter asked for by number has another prompt format.
    """
    slug, _, version = name.partition(":")
    if slug != assistant.slug:
        raise UnknownModel(f"The model {name!r} does not exist; this key asks {assistant.slug!r}.")
    if not version:
        live, exposed = choose_arm(deployment_of(assistant), unit or Unit())
        if live is not None and live.prompt_digest != assistant.prompt_digest:
            logger.warning("%s is live but has another prompt format; the base model answers.", live.engine_name)
            live = exposed = None
        return Arm(name, live, exposed)
    if f":{version}" == BASE_SUFFIX:
        return Arm(name, None)
    adapter = None
    if version.isdecimal() and len(version) < 10:
        adapter = Adapter.objects.filter(assistant=assistant, number=int(version)).select_related("assistant").first()
    if adapter is None:
        raise UnknownModel(f"{assistant.slug!r} has no adapter {version!r}.")
    if adapter.prompt_digest != assistant.prompt_digest:
        raise ForeignPrompt(
            f"{adapter} was trained with prompt format {adapter.prompt_digest}; {assistant.slug!r} now uses "
            f"{assistant.prompt_digest}. Train a new adapter."
        )
    return Arm(name, adapter, pinned=True)


def models_of(assistant: Assistant) -> list[str]:
    numbers = Adapter.objects.filter(assistant=assistant).order_by("number").values_list("number", flat=True)
    return [assistant.slug, f"{assistant.slug}{BASE_SUFFIX}", *(f"{assistant.slug}:{n}" for n in numbers)]


@dataclass(frozen=True)
class Begun:
    """A question that is being embedded. ``query`` None: nothing is to be retrieved. ``settings`` None: the active
    ones, which `retrieve` then also remembers under their digest."""

    query: Pending | None
    settings: RetrievalSettings | None


def begin(
    *, assistant: Assistant, question: str, history: Sequence[Message], options: Mapping[str, Any] | None = None
) -> Begun:
    """Has the question embedded while something else is asked.

    Args:
        options: fields of `RetrievalSettings` for this question only; ``k`` 0: nothing is retrieved.

    Raises:
        knowledge.configuration.SettingsRefused: an option is unknown or out of bounds.
    """
    given = dict(options or {})
    if given.get("k") == 0:
        return Begun(None, None)
    settings = checked(settings_of(assistant).model_dump() | given) if given else None
    return Begun(begin_query(assistant=assistant, question=question, history=history, settings=settings), settings)


def ask(
    *,
    assistant: Assistant,
    arm: Arm,
    question: str,
    history: Sequence[Message],
    retrieval_options: Mapping[str, Any] | None = None,
    begun: Begun | None = None,
) -> Asked:
    """Retrieves and builds the prompt.

    Args:
        retrieval_options: as those of `begin`.
        begun: of `begin`, where that came first.

    Raises:
        knowledge.configuration.SettingsRefused: an option is unknown or out of bounds.
    """
    begun = begun or begin(assistant=assistant, question=question, history=history, options=retrieval_options)
    retrieval = _nothing()
    if begun.query is not None:
        retrieval = retrieve(
            assistant=assistant, question=question, history=history, query=begun.query, settings=begun.settings
        )
    prompt = prompt_of(assistant, question, history, retrieval)
    asked = Asked(f"chatcmpl-{uuid.uuid4().hex}", assistant, arm, question, history, retrieval, prompt)
    if arm.exposed is not None:
        exposures.note(arm.exposed, asked.id)
    return asked


def _nothing() -> RetrievalResult:
    import numpy as np

    return RetrievalResult([], [], "none", np.zeros(0, dtype=np.float32), 0.0)


def prompt_of(assistant: Assistant, question: str, history: Sequence[Message], retrieval: RetrievalResult) -> Prompt:
    return build_prompt(
        house=assistant.house,
        question=question,
        passages=[PromptPassage(p.rank, p.title, p.text) for p in retrieval.passages],
        evidence=[e.ref for e in retrieval.evidence],
        similarity=[e.similarity for e in retrieval.evidence],
        history=history,
    )


def read_answer(asked: Asked, completion: str) -> Answer:
    return parse_answer(house=asked.assistant.house, prompt=asked.prompt, completion=completion)


def message_context(asked: Asked, answer: Answer | None = None) -> dict[str, Any]:
    """The passages behind an answer, in the shape that Azure's "on your data" made usual: ``message.context``."""
    context: dict[str, Any] = {
        "citations": [
            {
                "title": p.title, "filepath": p.source, "content": p.text, "chunk_id": str(p.chunk_id), "rank": p.rank,
                "score": p.score,
            }
            for p in asked.retrieval.passages
        ]
    }  # fmt: skip
    if asked.retrieval.withheld:
        context["withheld"] = True
    if asked.dropped:
        context["dropped"] = asked.dropped
    if answer is not None:
        context["declined"] = answer.declined
        context["sentences"] = [[ref.rank, ref.sentence] for ref in answer.citations]
    return context


def turn_item(
    asked: Asked, *, completion: str, conversation: str, latency_ms: float, prompt_tokens: int | None,
    completion_tokens: int | None, user: dict[str, str], tags: Sequence[str] = (),
) -> dict[str, Any]:  # fmt: skip
    """The turn as the log API would take it, with the provenance that only we know."""
    answer = read_answer(asked, completion)
    offered: dict[int, list[list[float]]] = {}
    # What was ranked is kept also where the threshold withheld it: `withheld` says that no prompt held it.
    for place, sentence in enumerate(asked.retrieval.evidence or asked.retrieval.below):
        offered.setdefault(sentence.rank, []).append([place, sentence.sentence, sentence.similarity])
    return {
        "id": asked.id,
        "conversation": conversation or asked.id,
        "question": asked.question,
        "history": [dict(m) for m in asked.history],
        "contexts": [
            {
                "text": p.text, "title": p.title, "source": p.source, "rank": p.rank, "score": p.score,
                "chunk": p.chunk_id, "evidence": offered.get(p.rank, []),
            }
            for p in asked.retrieval.passages
        ],
        "response": answer.marked or "(empty)",
        "completion": completion,
        "citations": [[ref.rank, ref.sentence] for ref in answer.citations],
        "model": base_name(),
        "adapter": captured_name(asked.arm.adapter.engine_name, MAX_ADAPTER_NAME) if asked.arm.adapter else "",
        "prompt_digest": asked.assistant.prompt_digest,
        "retrieval_config": asked.retrieval.config_digest,
        "withheld": asked.retrieval.withheld,
        "latency_ms": latency_ms,
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "time": timezone.now().isoformat(),
        "tags": ["chat", *tags],
        "metadata": {"user": user} if user else {},
    }  # fmt: skip


def base_name() -> str:
    """How turns name the base model: a hub name, or a folder as seen from the checkout (never a path of this host)."""
    return captured_name(_base_name(), MAX_NAME)


def _base_name() -> str:
    if settings.RATCHET_OPENAI_BASE_URL:
        return str(settings.RATCHET_OPENAI_MODEL)
    folder = Path(settings.RATCHET_BASE_MODEL)
    if not folder.is_absolute():
        return str(folder)
    root = Path(settings.BASE_DIR)
    return str(folder.relative_to(root)) if folder.is_relative_to(root) else folder.name


def captured_name(name: str, longest: int) -> str:
    """A model's name as a turn may hold it: hosts have names such as ``@cf/meta/llama-3.1-8b-instruct``, and the turn
    is not to be lost over an at-sign. What is taken as it is stays as it is."""
    try:
        _NAME.validate_python(name)
    except ValidationError:
        name = _NOT_IN_NAMES.sub("_", name)
    return name[:longest]


def capture(asked: Asked, api_key: ApiKey | None, item: dict[str, Any]) -> None:
    """Stores the turn through the same door as everybody else's.

    Raises:
        CaptureRefused: the item did not pass; it would be a bug of ours.
    """
    (result,) = receive_turns(assistant=asked.assistant, api_key=api_key, items=[item])
    if result.status == "invalid":
        raise CaptureRefused(f"own turn refused: {[e['field'] for e in result.errors]}")


class CaptureRefused(RuntimeError):
    """Our own turn was not valid."""
