"""What traces hold as input and output, in the shapes that frameworks write: messages, questions, answers, documents.

Every function takes any JSON value (or a text that holds one) and finds nothing rather than raise.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from capture.imports.values import first, fit_metadata, is_missing, number, structure, text
from capture.payloads import MAX_CONTEXTS, MAX_HISTORY, MAX_QUESTION

Message = dict[str, Any]
_ROLES = {
    "user": "user", "human": "user", "humanmessage": "user", "assistant": "assistant", "ai": "assistant",
    "aimessage": "assistant", "aimessagechunk": "assistant", "model": "assistant", "bot": "assistant",
    "system": "system", "developer": "system", "systemmessage": "system", "tool": "tool", "function": "tool",
    "toolmessage": "tool",
}  # fmt: skip
_QUESTIONS = (
    "question", "query", "user_input", "user_query", "user_message", "user_prompt", "input", "inputs", "prompt",
    "message", "text", "content", "chat_input", "args", "kwargs", "value",
)  # fmt: skip
_ANSWERS = (
    "answer", "response", "output", "outputs", "output_text", "result", "completion", "generated_text", "final_answer",
    "text", "content", "message", "value", "choices", "generations", "replies",
)  # fmt: skip
_DOCUMENTS = (
    "documents", "docs", "contexts", "context", "chunks", "passages", "nodes", "source_nodes", "source_documents",
    "retrieved_documents", "retrieved_contexts", "all_retrieved_documents", "citations", "results", "matches", "hits",
    "sources", "data", "output", "outputs", "result",
)  # fmt: skip
_DEPTH = 5


def messages_of(value: Any) -> list[Message] | None:
    """[{role, content}] with role user, assistant, system or tool; None when the value is no list of messages."""
    value = structure(value)
    if isinstance(value, Mapping):
        inner = first(value, "messages", "input_messages", "chat_history")
        return messages_of(inner) if inner is not None else None
    if not isinstance(value, list | tuple) or not value:
        return None
    if len(value) == 1 and isinstance(value[0], list | tuple):  # LangChain: one list per prompt of a batch
        return messages_of(list(value[0]))
    found = [message_of(part) for part in value]
    return [message for message in found if message] if all(message is not None for message in found) else None


def message_of(value: Any) -> Message | None:
    """One message as {role, content}, of OpenAI, LangChain, OpenInference, GenAI or Gemini; None when it is none."""
    if not isinstance(value, Mapping):
        return None
    if isinstance(value.get("message"), Mapping) and "role" not in value:
        return message_of(value["message"])
    if isinstance(value.get("kwargs"), Mapping):  # LangChain, serialised: {"id": [..., "HumanMessage"], "kwargs": {}}
        names = value.get("id")
        kind = names[-1] if isinstance(names, list) and names else value["kwargs"].get("type")
        return message_of({**value["kwargs"], "role": kind})
    role = _ROLES.get(str(first(value, "role", "type") or "").lower())
    if role is None or not {"content", "contents", "parts", "text", "tool_calls"} & value.keys():
        return None
    return {"role": role, "content": plain(first(value, "content", "contents", "parts", "text"))}


def plain(value: Any, depth: int = 0) -> str:
    """The text of a message's content: a text, or parts of which those of text count."""
    if isinstance(value, str):
        return value
    if isinstance(value, Mapping) and depth < _DEPTH:
        if isinstance(value.get("message_content"), Mapping):
            value = value["message_content"]
        return plain(first(value, "text", "content", "input_text", "output_text", "value"), depth + 1)
    if isinstance(value, list | tuple) and depth < _DEPTH:
        return "\n".join(part for part in (plain(part, depth + 1) for part in value) if part.strip())
    return text(value)


def question_of(value: Any, depth: int = 0) -> str:
    """What was asked: a text, the last message of the user, or the field of an object that is named like a question."""
    value = _unless_prose(value)
    if isinstance(value, str) or depth > _DEPTH:
        return text(value)
    messages = messages_of(value)
    if messages is not None:
        return next((m["content"].strip() for m in reversed(messages) if m["role"] == "user"), "")
    message = message_of(value)
    if message is not None:
        return message["content"].strip() if message["role"] == "user" else ""
    return _inner(value, _QUESTIONS, question_of, depth)


def answer_of(value: Any, depth: int = 0) -> str:
    """What was answered, likewise."""
    value = _unless_prose(value)
    if isinstance(value, str) or depth > _DEPTH:
        return text(value)
    messages = messages_of(value)
    if messages is not None:
        return next((m["content"].strip() for m in reversed(messages) if m["role"] == "assistant"), "")
    message = message_of(value)
    if message is not None:
        return message["content"].strip() if message["role"] == "assistant" else ""
    return _inner(value, _ANSWERS, answer_of, depth)


def _unless_prose(value: Any) -> Any:
    """As `structure`, but a text such as "[1]" is what somebody said and no list."""
    found = structure(value)
    said = isinstance(found, list) and not any(isinstance(part, Mapping | list) for part in found)
    return value if said and isinstance(value, str) else found


def _inner(value: Any, names: Iterable[str], read: Any, depth: int) -> str:
    if isinstance(value, list | tuple):
        return next((found for found in (read(part, depth + 1) for part in reversed(value[-20:])) if found), "")
    if not isinstance(value, Mapping):
        return ""
    for name in names:
        if not is_missing(value.get(name)) and (found := read(value[name], depth + 1)):
            return str(found)
    if len(value) == 1:
        return str(read(next(iter(value.values())), depth + 1))
    return ""


def history_of(messages: list[Message], notes: list[str], *, system: bool) -> list[Message]:
    """Messages of user and assistant (and the system's, where asked for) within the limits of the log API."""
    roles = {"user", "assistant"} | ({"system"} if system else set())
    kept = [m for m in messages if m["role"] in roles and m["content"].strip()]
    short = [m for m in kept if len(m["content"]) <= MAX_QUESTION]
    if len(short) < len(kept):
        notes.append("messages of the history over 20,000 characters were left out")
    if len(short) > MAX_HISTORY:
        notes.append("messages of the history before the last 100 were left out")
    return short[-MAX_HISTORY:]


def documents_of(value: Any, notes: list[str]) -> list[dict[str, Any]]:
    """Passages as the log API takes them, in the order given; equal texts once."""
    found: dict[str, dict[str, Any]] = {}
    for document in _documents(structure(value), 0):
        context = context_of(document, notes)
        if context:
            found.setdefault(context["text"], context)
    return limited(list(found.values()), notes)


def limited(contexts: list[dict[str, Any]], notes: list[str]) -> list[dict[str, Any]]:
    """The first 50: more a turn does not take."""
    if len(contexts) > MAX_CONTEXTS:
        notes.append("passages after the 50th were left out")
    return contexts[:MAX_CONTEXTS]


def _documents(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, list | tuple):
        for part in value:
            if isinstance(part, list | tuple) and depth < _DEPTH:
                yield from _documents(part, depth + 1)
            else:
                yield part
    elif isinstance(value, Mapping) and depth < _DEPTH:
        inner = next((structure(value[n]) for n in _DOCUMENTS if isinstance(structure(value.get(n)), list)), None)
        if inner is not None:
            yield from _documents(inner, depth + 1)
        elif body_of(value):
            yield value


def body_of(document: Mapping[str, Any]) -> str:
    """The text of a document, whatever the field is called."""
    names = ("text", "content", "page_content", "pageContent", "document", "body", "chunk", "snippet", "passage")
    return text(first(document, *names))


def context_of(document: Any, notes: list[str]) -> dict[str, Any] | None:
    """One passage from a text or an object; None when there is no text in it."""
    if isinstance(document, str):
        return {"text": document} if document.strip() else None
    if not isinstance(document, Mapping):
        return None
    outer, document = document, structure(first(document, "node", "document", "chunk") or document)
    if not isinstance(document, Mapping):
        document = outer
    body = body_of(document) or body_of(outer)
    if not body:
        return None
    metadata = fit_metadata(first(document, "metadata", "payload", "extra_info") or {}, notes)
    merged = {**metadata, **{key: value for key, value in {**outer, **document}.items() if not is_missing(value)}}
    context: dict[str, Any] = {"text": body}
    if title := text(first(merged, "title", "heading", "name")):
        context["title"] = title[:500]
    source = first(merged, "source", "filepath", "file_path", "path", "file_name", "url", "uri", "id", "document_id")
    if text(source):
        context["source"] = text(source)[:500]
    score = number(first(merged, "score", "similarity", "relevance_score", "_score", "rerank_score"))
    if score is not None:
        context["score"] = score
    if metadata:
        context["metadata"] = metadata
    return context
