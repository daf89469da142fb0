"""The kinds of facts besides plain properties: places, contacts, hours, codes, periods; and how often each is drawn."""

from __future__ import annotations

import random
from collections.abc import Callable

from training.base_model import slots
from training.base_model.action_facts import deed_fact, event_fact, how_fact, permission_fact
from training.base_model.facts import Fact, make_fact
from training.base_model.lexicon import Domain
from training.base_model.phrasing import first_person, thing_phrase
from training.base_model.words import word_list


def place_fact(rng: random.Random, domain: Domain) -> Fact:
    name, e, plural = thing_phrase(rng.choice(domain.things))
    place = rng.choice(domain.places)
    be = "are" if plural else "is"
    if rng.random() < 0.5:
        plain = rng.choice([f"You will find {e} at {place}.", f"{e} {be} kept at {place}."])
        questions = [f"Where {be} {e}?", f"Where can I find {e}?", f"Where do I look for {e}?", f"Location of {e}?"]
        return make_fact(
            rng, ("place", name), name, plain, questions, short=f"at {place}", elliptic=["And where?", "Where is that?"]
        )
    plain = rng.choice([f"Please pay for {e} at {place}.", f"You can pay for {e} at {place}."])
    questions = [f"Where do I pay for {e}?", f"Where can I pay for {e}?", f"At which place is {e} paid?"]
    return make_fact(rng, ("pay place", name), name, plain, questions, short=f"at {place}")


def contact_fact(rng: random.Random, domain: Domain) -> Fact:
    topic = rng.choice(domain.topics)
    draw = rng.random()
    if draw < 0.4:
        who = slots.person(rng)
        plain = rng.choice(
            [
                f"{who} answers questions about {topic}.",
                f"{who} is responsible for {topic}.",
                f"{who} looks after {topic}.",
            ]
        )
        questions = [f"Who is responsible for {topic}?", f"Who can help me with {topic}?",
        f"Who do I ask about {topic}?",
                     f"Who looks after {topic}?", f"Whom should I talk to about {topic}?"]  # fmt: skip
        return make_fact(rng, ("person", topic), topic, plain, questions, short=who)
    if draw < 0.7:
        number = slots.phone(rng)
        plain = rng.choice([f"For questions about {topic}, call {number}.", f"The number for {topic} is {number}."])
        questions = [
            f"Which number do I call about {topic}?",
            f"What is the phone number for {topic}?",
            f"How do I reach you about {topic} by phone?",
        ]
        return make_fact(
            rng, ("phone", topic), topic, plain, questions, short=number, elliptic=["And the phone number?"]
        )
    address = slots.email(rng)
    plain = rng.choice([f"Write to {address} about {topic}.", f"The address for {topic} is {address}."])
    questions = [
        f"What is the email address for {topic}?",
        f"Where do I write about {topic}?",
        f"Which address is for {topic}?",
    ]
    return make_fact(rng, ("email", topic), topic, plain, questions, short=address, elliptic=["And the email address?"])


def hours_fact(rng: random.Random, domain: Domain) -> Fact:
    place = rng.choice(domain.places)
    first, last = slots.clock(rng), slots.clock(rng)
    day = rng.choice([*[d + "s" for d in slots.WEEKDAYS], "weekdays", "weekends", "public holidays", "all days"])
    plain = f"On {day}, {place} is open from {first} to {last}."
    others = [(f"{place} is open from {first} to {last} on {day}.", False), (f"{day}: {place} {first}–{last}.", True)]
    questions = [f"When is {place} open on {day}?", f"What are the opening hours of {place} on {day}?",
                 f"From when to when is {place} open on {day}?", f"What time does {place} close on {day}?"]  # fmt: skip
    return make_fact(
        rng,
        ("hours", place, day),
        place,
        plain,
        questions,
        others=others,
        elliptic=[f"And on {day}?", f"What about {day}?"],
    )


def code_fact(rng: random.Random, domain: Domain) -> Fact:
    name, e, _ = thing_phrase(rng.choice(domain.things))
    what = rng.choice(
        ["code", "order number", "reference", "serial number", "setting", "file", "password hint", "label"]
    )
    code = slots.odd_string(rng)
    plain = f"The {what} for {e} is {code}."
    others = [(f"{what} of {e}: {code}.", True), (f"use {code} as the {what} for {e}.", False)]
    questions = [
        f"What is the {what} for {e}?",
        f"Which {what} belongs to {e}?",
        f"{name} {what}?",
        f"Give me the {what} of {e}.",
    ]
    return make_fact(
        rng, ("code", name, what), name, plain, questions, others=others, short=code, elliptic=[f"And the {what}?"]
    )


def term_fact(rng: random.Random, domain: Domain) -> Fact:
    term = slots.invented_name(rng)
    other = rng.choice(domain.things)
    _, e, _ = thing_phrase(other)
    plain = rng.choice(
        [f"{term} is our name for {e}.", f"By {term} we mean {e} used by {rng.choice(domain.people)}.",
         f"{term} stands for everything about {rng.choice(domain.topics)}.",
         f"{term} is the team at {rng.choice(domain.places)}."]
    )  # fmt: skip
    questions = [
        f"What is {term}?",
        f"What does {term} mean?",
        f"What do you mean by {term}?",
        f"Explain {term}.",
        f"{term}?",
    ]
    return make_fact(rng, ("term", term), term, plain, questions)


_REASONS = word_list("reasons")


def reason_fact(rng: random.Random, domain: Domain) -> Fact:
    name, e, plural = thing_phrase(rng.choice(domain.things))
    state = rng.choice(
        ["closed on {d}s", "not offered in {m}", "limited to {p}", "not available at {l}", "checked every {d}"]
    )
    state = state.format(
        d=rng.choice(slots.WEEKDAYS),
        m=rng.choice(slots.MONTHS),
        p=rng.choice(domain.people),
        l=rng.choice(domain.places),
    )
    be, reason = ("are" if plural else "is"), rng.choice(_REASONS)
    plain = f"{e} {be} {state} because {reason}."
    others = [(f"because {reason}, {e} {be} {state}.", False)]
    questions = [f"Why {be} {e} {state}?", f"What is the reason that {e} {be} {state}?", f"How come {e} {be} {state}?"]
    closed = [(f"{be} {e} {state}?", f"Yes, {plain}")]
    return make_fact(
        rng,
        ("reason", name),
        name,
        plain,
        questions,
        others=others,
        closed=closed,
        elliptic=["Why?", "And why is that?"],
    )


def includes_fact(rng: random.Random, domain: Domain) -> Fact:
    picks = rng.sample(domain.things, 3)
    name, e, plural = thing_phrase(picks[0])
    (_, first, _), (_, second, _) = thing_phrase(picks[1]), thing_phrase(picks[2])
    plain = f"{e} {'include' if plural else 'includes'} {first} and {second}."
    do = "do" if plural else "does"
    questions = [
        f"What {do} {e} include?",
        f"What is included in {e}?",
        f"What do I get with {e}?",
        f"What comes with {e}?",
    ]
    closed = [(f"{do} {e} include {first}?", f"Yes, {plain}"), (f"Is {second} included in {e}?", f"Yes, {plain}")]
    return make_fact(rng, ("includes", name), name, plain, questions, closed=closed, elliptic=["And what is included?"])


_PAPERS = word_list("papers")


def needs_fact(rng: random.Random, domain: Domain) -> Fact:
    first, second = rng.sample(_PAPERS, 2)
    if rng.random() < 0.5:
        name, e, _ = thing_phrase(rng.choice(domain.things))
        plain = f"For {e} you need {first} and {second}."
        questions = [f"What do I need for {e}?", f"Which documents do I need for {e}?", f"What must I bring for {e}?"]
        return make_fact(
            rng, ("needs", name), name, plain, questions, elliptic=["And what do I need?", "What do I have to bring?"]
        )
    action = rng.choice(domain.actions)
    plain = f"You need {first} and {second} to {action}."
    mine = first_person(action)
    questions = [
        f"What do I need to {mine}?",
        f"Which papers do I need to {mine}?",
        f"What should I have with me to {mine}?",
    ]
    return make_fact(rng, ("needs", action), action, plain, questions, elliptic=["And what do I need for that?"])


def period_fact(rng: random.Random, domain: Domain) -> Fact:
    name, e, plural = thing_phrase(rng.choice(domain.things))
    first, last = slots.date(rng), slots.date(rng)
    be = "are" if plural else "is"
    plain = f"{e} {be} available from {first} to {last}."
    others = [(f"{name}: {first} – {last}.", True), (f"from {first} to {last} you can get {e}.", False)]
    questions = [
        f"When {be} {e} available?",
        f"Until when can I get {e}?",
        f"From when {be} {e} available?",
        f"In what period {be} {e} offered?",
    ]
    return make_fact(
        rng, ("period", name), name, plain, questions, others=others, short=f"{first} to {last}", elliptic=["And when?"]
    )


MAKERS: tuple[tuple[Callable[[random.Random, Domain], Fact], int], ...] = (
    (how_fact, 5), (permission_fact, 5), (event_fact, 5), (place_fact, 3), (contact_fact, 3), (hours_fact, 2),
    (code_fact, 2), (term_fact, 1), (reason_fact, 2), (includes_fact, 2), (needs_fact, 2), (deed_fact, 4),
    (period_fact, 1),
)  # fmt: skip
