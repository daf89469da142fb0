"""Facts of generated documents: how each is stated, asked, and answered.

A fact has one plain wording (`canonical`). A document may state it plainly, decorated ("Please note that ...") or as
a table row; the answer to learn is the plain wording, so the model copies plain sentences and tidies the others.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from training.base_model import slots
from training.base_model.phrasing import decorate, lower_first, thing_phrase, upper_first


@dataclass(frozen=True)
class Fact:
    """One thing a document can say. ``key`` tells facts apart that would answer the same question."""

    key: tuple[str, ...]
    subject: str
    canonical: str
    stated: tuple[tuple[str, bool], ...]
    """(wording in a document, True when the answer is the canonical wording instead of this one)."""
    questions: tuple[str, ...]
    closed: tuple[tuple[str, str], ...] = ()
    """Yes/no questions with their answers."""
    short: str = ""
    elliptic: tuple[str, ...] = field(default=())
    """Follow-up questions that only make sense after a question on ``subject``."""


def make_fact(
    rng: random.Random,
    key: tuple[str, ...],
    subject: str,
    plain: str,
    questions: Sequence[str],
    *,
    others: Sequence[tuple[str, bool]] = (),
    closed: Sequence[tuple[str, str]] = (),
    short: str = "",
    elliptic: Sequence[str] = (),
) -> Fact:
    stated = (decorate(upper_first(plain), rng), *((upper_first(text), tidy) for text, tidy in others))
    return Fact(
        key, subject, upper_first(plain), stated, tuple(upper_first(q) for q in questions),
        tuple((upper_first(q), a) for q, a in closed), short, tuple(elliptic),
    )  # fmt: skip


_ASK_BY_KIND = {
    "money": ["How much is the {a} for {e}?", "How much do I pay for {e} ({a})?", "How high is the {a} of {e}?"],
    "span": ["How long is the {a} for {e}?", "How long does the {a} of {e} last?"],
    "count": ["How many is the {a} for {e}?", "What number applies as {a} of {e}?"],
    "age": ["How old do I have to be ({a}) for {e}?"],
    "clock": ["At what time is the {a} for {e}?", "When is the {a} of {e}?"],
    "date": ["When is the {a} for {e}?", "On what date is the {a} of {e}?"],
    "weight": ["How heavy is the {a} for {e}?"],
    "length": ["How long or wide is the {a} for {e}?"],
    "temperature": ["How warm is the {a} for {e}?", "How many degrees is the {a} of {e}?"],
    "percent": ["What percentage is the {a} for {e}?"],
}
_ASK_BY_NAME = {
    "price": ["How much does {e} cost?", "What do I pay for {e}?", "What does {e} cost?"],
    "fee": ["How much does {e} cost?", "What will {e} cost me?"],
    "minimum age": ["How old must you be for {e}?", "From what age is {e} allowed?"],
    "weight limit": ["How heavy can {e} be?"],
    "maximum weight": ["How heavy may {e} be?"],
    "group size": ["How many people can take part in {e}?", "How big are the groups for {e}?"],
    "duration": ["How long does {e} take?", "How much time does {e} take?"],
    "delivery time": ["How long does it take until {e} arrives?", "When will {e} arrive?"],
    "capacity": ["How much fits into {e}?", "How many fit into {e}?"],
    "validity": ["How long is {e} valid?"],
    "deposit": ["How much do I leave as a deposit for {e}?"],
    "discount": ["How much cheaper is {e}?"],
    "start time": ["When does {e} start?"],
    "notice period": ["How far ahead must I give notice for {e}?"],
    "maximum stay": ["How long may I stay with {e}?"],
    "water temperature": ["How warm is the water in {e}?"],
}


def property_fact(rng: random.Random, thing: str, prop: tuple[str, str], *, short_title: bool = False) -> Fact:
    """ "The loan period for the adult card is 21 days." ``short_title``: the document's title names the thing."""
    name, e, plural = thing_phrase(thing)
    a, kind = prop
    v, wrong = slots.value(kind, rng), slots.value(kind, rng)
    plain = f"The {a} for {e} is {v}."
    has = "have" if plural else "has"
    article = "an" if a[0] in "aeiou" else "a"
    others = [
        (f"{e} {has} {article} {a} of {v}.", False), (f"for {e}, the {a} is {v}.", False),
        (f"the {a} of {e} is {v}.", False), (f"{name}: {a} {v}.", True), (f"{name} | {a} | {v}", True),
        (f"since {slots.date(rng)}, the {a} for {e} has been {v}.", False), (f"{v} is the {a} for {e}.", True),
        (f"with {e} comes {article} {a} of {v}.", False), (f"when it comes to {e}, expect {article} {a} of {v}.", True),
    ]  # fmt: skip
    if kind == "money":
        others += [(f"we charge {v} for {e} as {a}.", False), (f"you pay {v} for {e} ({a}).", True)]
    if short_title:
        plain = f"The {a} is {v}."
        others = [(f"{a}: {v}.", True), (f"{a} | {v}", True), (f"it has {article} {a} of {v}.", False)]
    asks = [
        "What is the {a} for {e}?", "What is the {a} of {e}?", "Which {a} applies to {e}?", "{n} {a}?",
        "Tell me the {a} of {e}.", "I need the {a} for {e}.", *_ASK_BY_KIND.get(kind, ()), *_ASK_BY_NAME.get(a, ()),
        *_ASK_BY_NAME.get(a, ()),
    ]  # fmt: skip
    questions = [ask.format(a=a, e=e, n=name) for ask in asks]
    said = lower_first(plain)
    closed = [(f"Is the {a} for {e} {v}?", f"Yes, {said}"), (f"Is the {a} of {e} {v}?", f"Yes, {said}")]
    if wrong != v:
        closed += [
            (f"Is the {a} for {e} {wrong}?", f"No, {said}"),
            (f"Is it true that the {a} of {e} is {wrong}?", f"No, {said}"),
        ]
    elliptic = [f"And the {a}?", f"What about the {a}?", f"And what is the {a}?", f"What is its {a}?", f"{a}?"]
    return make_fact(
        rng, ("property", name, a), name, plain, questions, others=others, closed=closed, short=v, elliptic=elliptic
    )
