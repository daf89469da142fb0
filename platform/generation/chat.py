"""From chat messages to the text that a model's tokenizer reads: one code for the engine and for training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from generation.prompts import CHAT_TEMPLATE_OPTIONS


def control_tokens(tokenizer: Any) -> list[str]:
    """The marks by which this model tells who speaks."""
    return [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special and len(str(token)) > 1]


def defuse(content: str, tokens: Sequence[str]) -> str:
    """Control tokens that stand in a text lose their meaning: a log must not speak as the system."""
    for token in tokens:
        content = content.replace(token, f"{token[0]} {token[1:]}")
    return content


def render_chat(
    tokenizer: Any, messages: Sequence[Mapping[str, object]], tokens: Sequence[str], *, answered: bool = False
) -> str:
    """The prompt up to where the assistant begins to speak; ``answered``: the last message is what it said.

    ``tokens`` are the `control_tokens` of the tokenizer. Raises jinja2.TemplateError when the template refuses.
    """
    clean = [{"role": m["role"], "content": defuse(str(m["content"]), tokens)} for m in messages]
    text: str = tokenizer.apply_chat_template(
        clean, add_generation_prompt=not answered, tokenize=False, **CHAT_TEMPLATE_OPTIONS
    )
    return text
