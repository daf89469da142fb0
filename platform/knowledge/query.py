"""The text that is searched for: a follow-up question means little without what was said before it."""

from __future__ import annotations

from collections.abc import Sequence

from generation.prompts import Message

MAX_CHARS = 1000


def history_query(question: str, history: Sequence[Message] = ()) -> str:
    """The question, with the user's previous question behind it when there is one.

    Only what the *user* said: earlier answers are long and pull the search towards what was already found.
    """
    earlier = [m["content"] for m in history if m["role"] == "user"]
    parts = [question.strip(), *(text.strip() for text in earlier[-1:])]
    return "\n".join(part for part in parts if part)[:MAX_CHARS]
