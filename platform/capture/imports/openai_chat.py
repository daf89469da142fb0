"""OpenAI chat JSONL: {"messages": […]}, with metadata, or a logged pair {"request": {…}, "response": {…}}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from capture.imports.contents import Message, documents_of, history_of, messages_of
from capture.imports.scores import Score, feedback_of, thumb_of
from capture.imports.units import Converted, Payload, Refused
from capture.imports.values import (
    content_id,
    first,
    fit_id,
    fit_metadata,
    fit_name,
    fit_tags,
    moment,
    number,
    structure,
    text,
    whole,
)

_CONTEXTS = ("contexts", "context", "documents", "retrieved_contexts", "retrieved_documents", "citations", "sources")
_OWN = {*_CONTEXTS, "id", "conversation", "conversation_id", "session_id", "time", "timestamp", "created", "created_at",
        "user", "user_id", "tags", "feedback", "latency_ms"}  # fmt: skip


def recognises(record: Mapping[str, Any]) -> bool:
    request = record.get("request")
    asked = record if isinstance(structure(record.get("messages")), list) else request
    return isinstance(asked, Mapping) and isinstance(structure(asked.get("messages")), list)


def convert(record: Any) -> Converted:
    """One turn per answer of the assistant to the user; the messages before it are its history.

    A record of several answers is a conversation. Turns of a record without an id are named by their content up to
    the answer, so that a log which repeats the whole conversation in every line gives each answer once.

    Raises:
        Refused: no messages, one that cannot be read, or no answer to a question among them.
    """
    if not isinstance(record, Mapping):
        raise Refused("not an object")
    outer, record = record, _whole(record)
    messages = messages_of(record.get("messages"))
    if not messages:
        given = structure(record.get("messages"))
        some = isinstance(given, list) and given
        raise Refused("a message without content or of an unknown role" if some else "no messages")
    metadata = structure(record.get("metadata"))
    known = {
        **(metadata if isinstance(metadata, Mapping) else {}),
        **{k: v for k, v in record.items() if v is not None},
    }
    answers = [place for place, message in enumerate(messages) if _is_answer(messages, place)]
    if not answers:
        raise Refused("no answer of the assistant to a message of the user")
    converted = Converted()
    base = _base(record, known, converted.notes)
    given = fit_id(first(known, "id", "request_id", "completion_id"), prefix="openai", limit=180)
    conversation = fit_id(first(known, "conversation", "conversation_id", "session_id", "thread_id"), prefix="openai")
    for place in answers:
        last = place == answers[-1]
        turn = _turn(messages, place, converted.notes)
        turn |= base if last else {key: base[key] for key in base.keys() & {"model", "metadata", "tags"}}
        spoken = [messages[: place + 1], conversation, base.get("time")]
        if not given:
            turn["id"] = content_id("openai", *spoken)
        else:
            turn["id"] = given if last else f"{given}:{answers.index(place) + 1}"
        if conversation or len(answers) > 1:
            turn["conversation"] = conversation or given or content_id("openai-chat", messages[: answers[0] + 1])
        contexts = _contexts(messages, place, known if last else {}, converted.notes)
        if contexts:
            turn["contexts"] = contexts
        converted.turns.append(turn)
    converted.feedback = _feedback(outer, known, converted)
    return converted


def _whole(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """A logged request and response as one record, with the answer behind the messages."""
    request, response = structure(record.get("request")), structure(record.get("response"))
    if not isinstance(request, Mapping) or "messages" in record:
        return record
    inner = request.get("body")
    request = inner if isinstance(inner, Mapping) else request
    body = response if isinstance(response, Mapping) else {}
    body = body["body"] if isinstance(body.get("body"), Mapping) else body
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], Mapping) else {}
    answer = choice.get("message")
    asked = structure(request.get("messages"))
    merged = {k: v for k, v in record.items() if k not in ("request", "response")}
    merged |= {k: request[k] for k in ("metadata", "user", "model") if k in request}
    merged |= {k: body[k] for k in ("id", "model", "created", "usage") if k in body}
    said = [{"role": "assistant", **answer}] if isinstance(answer, Mapping) else []
    return {**merged, "messages": [*(asked if isinstance(asked, list) else []), *said]}


def _is_answer(messages: list[Message], place: int) -> bool:
    if messages[place]["role"] != "assistant" or not messages[place]["content"].strip():
        return False
    before = [m for m in messages[:place] if m["role"] in ("user", "assistant") and m["content"].strip()]
    return bool(before) and before[-1]["role"] == "user"


def _turn(messages: list[Message], place: int, notes: list[str]) -> Payload:
    asked = max(i for i in range(place) if messages[i]["role"] == "user" and messages[i]["content"].strip())
    turn: Payload = {"question": messages[asked]["content"], "response": messages[place]["content"]}
    if history := history_of(messages[:asked], notes, system=True):
        turn["history"] = history
    return turn


def _contexts(messages: list[Message], place: int, known: Mapping[str, Any], notes: list[str]) -> list[dict[str, Any]]:
    """Passages named in the record or in the answer; else those that tools returned since the question."""
    given = first(known, *_CONTEXTS)
    if given is not None and (found := documents_of(given, notes)):
        return found
    raw = structure(known.get("messages"))
    answer = raw[place] if isinstance(raw, list) and place < len(raw) else None
    if isinstance(answer, Mapping) and answer.get("context") and (found := documents_of(answer["context"], notes)):
        return found
    since = max(i for i in range(place) if messages[i]["role"] == "user")
    tools = [structure(m["content"]) for m in messages[since:place] if m["role"] == "tool"]
    return documents_of([part for value in tools for part in documents_of(value, notes)], notes)


def _base(record: Mapping[str, Any], known: Mapping[str, Any], notes: list[str]) -> Payload:
    usage = record.get("usage")
    usage = usage if isinstance(usage, Mapping) else {}
    metadata = fit_metadata(record.get("metadata"), notes)
    metadata = {key: value for key, value in metadata.items() if key not in _OWN}
    if user := text(first(known, "user", "user_id")):
        metadata["user"] = user[:500]
    base: Payload = {
        "model": fit_name(first(known, "model")),
        "time": moment(first(known, "time", "timestamp", "created", "created_at")),
        "tags": fit_tags(known.get("tags"), notes),
        "latency_ms": number(known.get("latency_ms")),
        "prompt_tokens": whole(first(usage, "prompt_tokens", "input_tokens")),
        "completion_tokens": whole(first(usage, "completion_tokens", "output_tokens")),
        "metadata": metadata,
    }
    return {key: value for key, value in base.items() if value not in (None, "", [], {})}


def _feedback(outer: Mapping[str, Any], known: Mapping[str, Any], converted: Converted) -> list[Payload]:
    """``feedback`` of the record, or the ``label`` that KTO rows carry: a thumb on the last answer."""
    label = outer.get("label")
    given: Any = known["feedback"] if "feedback" in known else label if isinstance(label, bool) else None
    turn = converted.turns[-1]["id"]
    when = converted.turns[-1].get("time") or ""
    if isinstance(given, Mapping):
        when = moment(first(given, "time", "timestamp", "created_at")) or when
        value, label = number(first(given, "value", "score")), text(first(given, "label", "thumb"))
        name = text(given.get("name")) or "feedback"
        score = Score("feedback", name, value, label, comment=text(given.get("comment")), time=when)
    elif isinstance(given, bool | int | float | str):
        value = float(given) if isinstance(given, bool) else number(given)
        score = Score("feedback", "feedback", value, given if isinstance(given, str) else "", time=when)
        if thumb_of(score.value, score.label) is None and isinstance(given, str):
            score = Score("feedback", "comment", None, given, time=when)
    else:
        return []
    prefix = f"openai:{turn}" if len(turn) <= 80 else content_id("openai", turn)
    return feedback_of(score, turn=turn, prefix=prefix, notes=converted.notes)
