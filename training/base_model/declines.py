"""Decline sentences: training sees so many that the model copies whatever the system message holds."""

from __future__ import annotations

import random

from training.base_model import slots

_COMMON = (
    "I don't know. The passages do not say.",
    "I could not find this in our documents.",
    "Sorry, I cannot answer that.",
    "Our documents do not answer this.",
)
_OPEN = ["", "", "Sorry, ", "I am sorry, ", "Unfortunately, ", "I'm afraid ", "Sorry: "]
_CORE = [
    "I cannot find this in {docs}.", "{docs} do not say.", "I have no answer to that.", "I do not know that.",
    "this is not in {docs}.", "{docs} do not cover this.", "I can't answer this from {docs}.",
    "there is nothing about this here.",
    "I don't have that information.", "that question is outside {docs}.", "nothing in {docs} answers this.",
    "I found no passage on this.", "no answer found.", "we have not written that down yet.",
    "I would only be guessing.",
]  # fmt: skip
_DOCS = [
    "our documents",
    "the handbook",
    "the passages",
    "my sources",
    "the guide",
    "these pages",
    "our help pages",
    "the manual",
]
_MORE = [
    "", "", "Please contact {who}.", "Please ask {who}.", "You can write to {mail}.", "Call {phone} for help.",
    "Please try other words.", "Our team at {mail} can help.", "{who} will know.", "Ticket code {code}.",
    "Please ask a colleague.",
]  # fmt: skip


def decline_sentence(rng: random.Random) -> str:
    """One of many thousands of ways to say that the documents do not hold the answer."""
    if rng.random() < 0.08:
        return rng.choice(_COMMON)
    opening = rng.choice(_OPEN)
    core = rng.choice(_CORE).format(docs=rng.choice(_DOCS))
    core = opening + core if opening else core[:1].upper() + core[1:]
    who = rng.choice([slots.person(rng), slots.role(rng), f"the {slots.invented_name(rng)} team"])
    more = rng.choice(_MORE).format(who=who, mail=slots.email(rng), phone=slots.phone(rng), code=slots.odd_string(rng))
    return f"{core} {more[:1].upper() + more[1:]}".strip()
