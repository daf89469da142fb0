"""Facts on what people do and on what happens: procedures, permissions, events, prices and deadlines of actions."""

from __future__ import annotations

import random

from training.base_model import slots
from training.base_model.facts import Fact, make_fact
from training.base_model.lexicon import Domain
from training.base_model.phrasing import first_person, lower_first


def _step(rng: random.Random, domain: Domain) -> str:
    place = rng.choice(domain.places)
    return rng.choice(
        [
            f"ask at {place}", f"call {slots.phone(rng)}", f"write to {slots.email(rng)}",
            f"open the menu and choose {slots.button(rng)}", f"tell {slots.role(rng)} {slots.value('span', rng)} ahead",
            f"fill in form {slots.odd_string(rng)} and leave it at {place}", f"sign the list at {place}",
            f"send a message to {slots.person(rng)}", f"press {slots.button(rng)} and wait {slots.value('span', rng)}",
            f"log in to {slots.invented_name(rng)} and click {slots.button(rng)}",
            f"speak to {slots.person(rng)} at {place}",
            f"pay {slots.value('money', rng)} at {place} first", f"show your card at {place}",
            f"use the code {slots.odd_string(rng)} at {place}",
        ]
    )  # fmt: skip


def how_fact(rng: random.Random, domain: Domain) -> Fact:
    action = rng.choice(domain.actions)
    step, mine = _step(rng, domain), first_person(action)
    plain = f"To {action}, {step}."
    others = [
        (f"If you want to {action}, {step}.", False), (f"{step} to {action}.", False),
        (f"{action}: {step}.", True), (f"whoever wants to {action} should {step}.", True),
        (f"In order to {action}, please {step}.", False),
    ]  # fmt: skip
    questions = [
        f"How do I {mine}?", f"How can I {mine}?", f"What do I have to do to {mine}?", f"I want to {mine}. How?",
        f"What is the way to {mine}?", f"How does one {mine}?", f"I would like to {mine}.", f"how to {mine}",
    ]  # fmt: skip
    return make_fact(rng, ("how", action), action, plain, questions, others=others)


def permission_fact(rng: random.Random, domain: Domain) -> Fact:
    action, people = rng.choice(domain.actions), rng.choice(domain.people)
    mine = first_person(action)
    condition = rng.choice(
        ["on weekdays only", f"after {slots.clock(rng)}", f"if {slots.role(rng)} agrees", f"until {slots.date(rng)}",
         f"for {slots.value('money', rng)}", "free of charge", f"up to {rng.randint(2, 9)} times a month",
         "at any time",
         f"with a letter from {slots.role(rng)}", f"at {rng.choice(domain.places)}"]
    )  # fmt: skip
    draw = rng.random()
    questions = [f"Can {people} {mine}?", f"Are {people} allowed to {mine}?", f"May {people} {mine}?"]
    if draw < 0.4:
        plain = rng.choice([f"{people} may {action} {condition}.", f"{people} can {action} {condition}."])
        closed = [(q, f"Yes, {plain}") for q in questions]
        opened = [f"Under what condition may {people} {mine}?", f"What applies to {people} who want to {action}?"]
    elif draw < 0.75:
        plain = rng.choice(
            [f"{people} may not {action}.", f"{people} are not allowed to {action}.", f"{people} cannot {action}."]
        )
        closed = [(q, f"No, {plain}") for q in questions]
        opened = [f"What is the rule for {people} who want to {action}?", f"Who may not {mine}?"]
    else:
        plain = f"Only {people} may {action}."
        opened = [f"Who may {mine}?", f"Who is allowed to {mine}?", f"Who can {mine}?"]
        closed = [
            (f"Can {people} {mine}?", f"Yes, {lower_first(plain)}"),
            (f"May everybody {mine}?", f"No, {lower_first(plain)}"),
        ]
    elliptic = [f"And {people}?", f"What about {people}?"]
    return make_fact(rng, ("permission", action), action, plain, opened, closed=closed, elliptic=elliptic)


def event_fact(rng: random.Random, domain: Domain) -> Fact:
    event, consequence = rng.choice(domain.events), rng.choice(domain.consequences)
    mine = first_person(event)
    plain = f"If {event}, {consequence}."
    others = [(f"When {event}, {consequence}.", False), (f"{consequence} if {event}.", False),
              (f"In case {event}, {consequence}.", False), (f"{event}: {consequence}.", True)]  # fmt: skip
    questions = [
        f"What happens if {mine}?", f"What if {mine}?", f"What should I do when {mine}?", f"{mine}. What now?",
        f"What is the rule if {mine}?", f"What is the procedure when {mine}?", f"What follows if {mine}?",
    ]  # fmt: skip
    elliptic = [f"And if {mine}?", f"What if {mine} instead?"]
    return make_fact(rng, ("event", event), event, plain, questions, others=others, elliptic=elliptic)


def deed_fact(rng: random.Random, domain: Domain) -> Fact:
    """Price, deadline, frequency or approval of an action."""
    action, people = rng.choice(domain.actions), rng.choice(domain.people)
    mine, draw = first_person(action), rng.randrange(4)
    if draw == 0:
        v = slots.value("money", rng)
        plain = rng.choice([f"It costs {v} to {action}.", f"There is a charge of {v} if you {action}."])
        questions = [
            f"What does it cost to {mine}?",
            f"How much do I pay to {mine}?",
            f"How expensive is it to {mine}?",
            f"Is there a charge if I {mine}?",
        ]
        return make_fact(
            rng,
            ("deed cost", action),
            action,
            plain,
            questions,
            short=v,
            elliptic=["And what does that cost?", "How much is that?"],
        )
    if draw == 1:
        v = rng.choice([slots.date(rng), slots.clock(rng), f"the end of {rng.choice(slots.MONTHS)}"])
        plain = rng.choice([f"{people} must {action} by {v}.", f"The deadline for {people} to {action} is {v}."])
        questions = [
            f"By when must {people} {mine}?",
            f"When do {people} have to {mine}?",
            f"What is the deadline for {people} to {mine}?",
        ]
        return make_fact(
            rng, ("deed deadline", action), action, plain, questions, short=v, elliptic=["By when?", "And until when?"]
        )
    if draw == 2:
        n, unit = rng.randint(2, 12), rng.choice(["week", "month", "year", "season", "day"])
        plain = f"{people} can {action} up to {n} times a {unit}."
        questions = [
            f"How often can {people} {mine}?",
            f"How many times may {people} {mine}?",
            f"How many times a {unit} can {people} {mine}?",
        ]
        return make_fact(
            rng, ("deed often", action), action, plain, questions, short=f"{n} times a {unit}", elliptic=["How often?"]
        )
    who = rng.choice([slots.role(rng), slots.person(rng)])
    plain = rng.choice(
        [f"{who} has to approve it when you {action}.", f"You need the permission of {who} to {action}."]
    )
    questions = [
        f"Who approves it when I {mine}?",
        f"Whose permission do I need to {mine}?",
        f"Who has to agree if I {mine}?",
    ]
    return make_fact(
        rng, ("deed approval", action), action, plain, questions, short=who, elliptic=["Who decides that?"]
    )
