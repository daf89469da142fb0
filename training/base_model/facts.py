"""Facts of generated documents: how each is stated, asked, and answered.

A fact has one plain wording (`canonical`). A document may state it plainly, decorated ("Please note that ...") or as
a table row; the answer to learn is the plain wording, so the model copies plain sentences and tidies the others.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from training.base_model import slots
from training.base_model.slots import Domain

_TO_FIRST_PERSON = ((r"\byou are\b", "I am"), (r"\byour\b", "my"), (r"\byou\b", "I"))
_SAME_MEANING = [
    line.split("|")
    for line in (
        "fee|charge|cost|price", "minimum|lowest|least", "maximum|highest|most", "deadline|last date|cut-off",
        "cancel|call off", "book|reserve", "rent|hire", "buy|purchase", "send|post", "change|alter|modify",
        "report|tell someone about", "get|obtain|receive", "bring|take along", "lost|missing|gone", "broken|damaged",
        "duration|length", "guests|visitors", "begin|start", "repair|fix", "allowed|permitted", "contact|reach",
        "children|kids", "start|beginning", "limit|cap", "deposit|security payment", "parcel|package", "needed|required",
        "notice period|period of notice", "processing time|time it takes", "validity|how long it is valid",
        "order|request", "return|give back", "storage|storing", "monthly|per month", "yearly|annual", "use|make use of",
        "extend|prolong", "pay|settle", "fails|does not work", "late|delayed", "account|profile", "swap|exchange",
    )
    for line in [line]
]  # fmt: skip
_OTHER_WORDS = {word: [w for w in group if w != word] for group in _SAME_MEANING for word in group}
_FIRST_PERSON_PREFIX = ["", "", "", "", "", "Hi, ", "Hello, ", "Quick question: ", "Please tell me: ", "Sorry, "]


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


def first_person(text: str) -> str:
    """What a reader writes where the document says "you"."""
    for pattern, replacement in _TO_FIRST_PERSON:
        text = re.sub(pattern, replacement, text, flags=re.I)
    return text


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def lower_first(text: str) -> str:
    return text[:1].lower() + text[1:] if not text[:2].isupper() and not text[:1].isdigit() else text


def vary_question(question: str, rng: random.Random) -> str:
    """The same question as somebody else would type it: other words, greetings, lower case, no question mark."""
    words = []
    for word in question.split(" "):
        bare = word.rstrip("?.,")
        others = _OTHER_WORDS.get(bare)
        swap = rng.choice(others) + word[len(bare) :] if others and rng.random() < 0.25 else word
        words.append(swap)
    question = " ".join(words)
    draw = rng.random()
    if draw < 0.08:
        question = question.lower()
    elif draw < 0.14:
        question = question.rstrip("?.")
    elif draw < 0.24:
        prefix = rng.choice(_FIRST_PERSON_PREFIX)
        question = prefix + (lower_first(question) if prefix and not question.startswith("I ") else question)
    elif draw < 0.27:
        question = question.rstrip("?.") + rng.choice([", please?", " exactly?", "??", " please", " then?"])
    return question


def decorate(plain: str, rng: random.Random) -> tuple[str, bool]:
    """A plain statement as a document may print it, and whether the answer should be the plain one."""
    draw = rng.random()
    if draw < 0.6:
        return plain, False
    if draw < 0.8:
        start = rng.choice(
            ["Please note that", "Note that", "Remember that", "Please be aware that", "It is important to know that",
             "We would like to point out that", "Good to know:", "Important:", "Reminder:"]
        )  # fmt: skip
        return f"{start} {lower_first(plain)}", True
    end = rng.choice(["(see section {n})", "(as of {m})", "(all sites)", "(rule {n})", "(updated in {m})", "(page {n})"])
    end = end.format(n=rng.randint(2, 40), m=rng.choice(slots.MONTHS))
    return f"{plain[:-1]} {end}.", True


def thing_phrase(thing: str) -> tuple[str, str, bool]:
    """``-stamps`` → ("stamps", "stamps", plural); ``adult card`` → ("adult card", "the adult card", False)."""
    if thing.startswith("-"):
        return thing[1:], thing[1:], thing.endswith("s")
    return thing, f"the {thing}", False


def _fact(
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
    """"The loan period for the adult card is 21 days." ``short_title``: the document's title names the thing."""
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
        closed += [(f"Is the {a} for {e} {wrong}?", f"No, {said}"), (f"Is it true that the {a} of {e} is {wrong}?", f"No, {said}")]
    elliptic = [f"And the {a}?", f"What about the {a}?", f"And what is the {a}?", f"What is its {a}?", f"{a}?"]
    return _fact(rng, ("property", name, a), name, plain, questions, others=others, closed=closed, short=v, elliptic=elliptic)


def _step(rng: random.Random, domain: Domain) -> str:
    place = rng.choice(domain.places)
    return rng.choice(
        [
            f"ask at {place}", f"call {slots.phone(rng)}", f"write to {slots.email(rng)}",
            f"open the menu and choose {slots.button(rng)}", f"tell {slots.role(rng)} {slots.value('span', rng)} ahead",
            f"fill in form {slots.odd_string(rng)} and leave it at {place}", f"sign the list at {place}",
            f"send a message to {slots.person(rng)}", f"press {slots.button(rng)} and wait {slots.value('span', rng)}",
            f"log in to {slots.invented_name(rng)} and click {slots.button(rng)}", f"speak to {slots.person(rng)} at {place}",
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
    return _fact(rng, ("how", action), action, plain, questions, others=others)


def permission_fact(rng: random.Random, domain: Domain) -> Fact:
    action, people = rng.choice(domain.actions), rng.choice(domain.people)
    mine = first_person(action)
    condition = rng.choice(
        ["on weekdays only", f"after {slots.clock(rng)}", f"if {slots.role(rng)} agrees", f"until {slots.date(rng)}",
         f"for {slots.value('money', rng)}", "free of charge", f"up to {rng.randint(2, 9)} times a month", "at any time",
         f"with a letter from {slots.role(rng)}", f"at {rng.choice(domain.places)}"]
    )  # fmt: skip
    draw = rng.random()
    questions = [f"Can {people} {mine}?", f"Are {people} allowed to {mine}?", f"May {people} {mine}?"]
    if draw < 0.4:
        plain = rng.choice([f"{people} may {action} {condition}.", f"{people} can {action} {condition}."])
        closed = [(q, f"Yes, {plain}") for q in questions]
        opened = [f"Under what condition may {people} {mine}?", f"What applies to {people} who want to {action}?"]
    elif draw < 0.75:
        plain = rng.choice([f"{people} may not {action}.", f"{people} are not allowed to {action}.", f"{people} cannot {action}."])
        closed = [(q, f"No, {plain}") for q in questions]
        opened = [f"What is the rule for {people} who want to {action}?", f"Who may not {mine}?"]
    else:
        plain = f"Only {people} may {action}."
        opened = [f"Who may {mine}?", f"Who is allowed to {mine}?", f"Who can {mine}?"]
        closed = [(f"Can {people} {mine}?", f"Yes, {lower_first(plain)}"), (f"May everybody {mine}?", f"No, {lower_first(plain)}")]
    elliptic = [f"And {people}?", f"What about {people}?"]
    return _fact(rng, ("permission", action), action, plain, opened, closed=closed, elliptic=elliptic)


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
    return _fact(rng, ("event", event), event, plain, questions, others=others, elliptic=elliptic)


def place_fact(rng: random.Random, domain: Domain) -> Fact:
    name, e, plural = thing_phrase(rng.choice(domain.things))
    place = rng.choice(domain.places)
    be = "are" if plural else "is"
    if rng.random() < 0.5:
        plain = rng.choice([f"You will find {e} at {place}.", f"{e} {be} kept at {place}."])
        questions = [f"Where {be} {e}?", f"Where can I find {e}?", f"Where do I look for {e}?", f"Location of {e}?"]
        return _fact(rng, ("place", name), name, plain, questions, short=f"at {place}", elliptic=["And where?", "Where is that?"])
    plain = rng.choice([f"Please pay for {e} at {place}.", f"You can pay for {e} at {place}."])
    questions = [f"Where do I pay for {e}?", f"Where can I pay for {e}?", f"At which place is {e} paid?"]
    return _fact(rng, ("pay place", name), name, plain, questions, short=f"at {place}")


def contact_fact(rng: random.Random, domain: Domain) -> Fact:
    topic = rng.choice(domain.topics)
    draw = rng.random()
    if draw < 0.4:
        who = slots.person(rng)
        plain = rng.choice([f"{who} answers questions about {topic}.", f"{who} is responsible for {topic}.", f"{who} looks after {topic}."])
        questions = [f"Who is responsible for {topic}?", f"Who can help me with {topic}?", f"Who do I ask about {topic}?",
                     f"Who looks after {topic}?", f"Whom should I talk to about {topic}?"]  # fmt: skip
        return _fact(rng, ("person", topic), topic, plain, questions, short=who)
    if draw < 0.7:
        number = slots.phone(rng)
        plain = rng.choice([f"For questions about {topic}, call {number}.", f"The number for {topic} is {number}."])
        questions = [f"Which number do I call about {topic}?", f"What is the phone number for {topic}?", f"How do I reach you about {topic} by phone?"]
        return _fact(rng, ("phone", topic), topic, plain, questions, short=number, elliptic=["And the phone number?"])
    address = slots.email(rng)
    plain = rng.choice([f"Write to {address} about {topic}.", f"The address for {topic} is {address}."])
    questions = [f"What is the email address for {topic}?", f"Where do I write about {topic}?", f"Which address is for {topic}?"]
    return _fact(rng, ("email", topic), topic, plain, questions, short=address, elliptic=["And the email address?"])


def hours_fact(rng: random.Random, domain: Domain) -> Fact:
    place = rng.choice(domain.places)
    first, last = slots.clock(rng), slots.clock(rng)
    day = rng.choice([*[d + "s" for d in slots.WEEKDAYS], "weekdays", "weekends", "public holidays", "all days"])
    plain = f"On {day}, {place} is open from {first} to {last}."
    others = [(f"{place} is open from {first} to {last} on {day}.", False), (f"{day}: {place} {first}–{last}.", True)]
    questions = [f"When is {place} open on {day}?", f"What are the opening hours of {place} on {day}?",
                 f"From when to when is {place} open on {day}?", f"What time does {place} close on {day}?"]  # fmt: skip
    return _fact(rng, ("hours", place, day), place, plain, questions, others=others, elliptic=[f"And on {day}?", f"What about {day}?"])


def code_fact(rng: random.Random, domain: Domain) -> Fact:
    name, e, _ = thing_phrase(rng.choice(domain.things))
    what = rng.choice(["code", "order number", "reference", "serial number", "setting", "file", "password hint", "label"])
    code = slots.odd_string(rng)
    plain = f"The {what} for {e} is {code}."
    others = [(f"{what} of {e}: {code}.", True), (f"use {code} as the {what} for {e}.", False)]
    questions = [f"What is the {what} for {e}?", f"Which {what} belongs to {e}?", f"{name} {what}?", f"Give me the {what} of {e}."]
    return _fact(rng, ("code", name, what), name, plain, questions, others=others, short=code, elliptic=[f"And the {what}?"])


def term_fact(rng: random.Random, domain: Domain) -> Fact:
    term = slots.invented_name(rng)
    other = rng.choice(domain.things)
    _, e, _ = thing_phrase(other)
    plain = rng.choice(
        [f"{term} is our name for {e}.", f"By {term} we mean {e} used by {rng.choice(domain.people)}.",
         f"{term} stands for everything about {rng.choice(domain.topics)}.", f"{term} is the team at {rng.choice(domain.places)}."]
    )  # fmt: skip
    questions = [f"What is {term}?", f"What does {term} mean?", f"What do you mean by {term}?", f"Explain {term}.", f"{term}?"]
    return _fact(rng, ("term", term), term, plain, questions)


_REASONS = (
    "the floor is being renewed|the insurance asks for it|staff is short|the neighbours complained|the old rule was unfair|"
    "the law demands it|a part is missing|it costs too much|nobody asked for it|the wiring is old|safety comes first|"
    "the supplier stopped it|it is checked every week|the space is needed|too many people misused it"
).split("|")


def reason_fact(rng: random.Random, domain: Domain) -> Fact:
    name, e, plural = thing_phrase(rng.choice(domain.things))
    state = rng.choice(["closed on {d}s", "not offered in {m}", "limited to {p}", "not available at {l}", "checked every {d}"])
    state = state.format(d=rng.choice(slots.WEEKDAYS), m=rng.choice(slots.MONTHS), p=rng.choice(domain.people), l=rng.choice(domain.places))
    be, reason = ("are" if plural else "is"), rng.choice(_REASONS)
    plain = f"{e} {be} {state} because {reason}."
    others = [(f"because {reason}, {e} {be} {state}.", False)]
    questions = [f"Why {be} {e} {state}?", f"What is the reason that {e} {be} {state}?", f"How come {e} {be} {state}?"]
    closed = [(f"{be} {e} {state}?", f"Yes, {plain}")]
    return _fact(rng, ("reason", name), name, plain, questions, others=others, closed=closed, elliptic=["Why?", "And why is that?"])


def includes_fact(rng: random.Random, domain: Domain) -> Fact:
    picks = rng.sample(domain.things, 3)
    name, e, plural = thing_phrase(picks[0])
    (_, first, _), (_, second, _) = thing_phrase(picks[1]), thing_phrase(picks[2])
    plain = f"{e} {'include' if plural else 'includes'} {first} and {second}."
    do = "do" if plural else "does"
    questions = [f"What {do} {e} include?", f"What is included in {e}?", f"What do I get with {e}?", f"What comes with {e}?"]
    closed = [(f"{do} {e} include {first}?", f"Yes, {plain}"), (f"Is {second} included in {e}?", f"Yes, {plain}")]
    return _fact(rng, ("includes", name), name, plain, questions, closed=closed, elliptic=["And what is included?"])


_PAPERS = (
    "a passport photo|proof of address|the signed form|a valid card|the receipt|a written order|two copies|a bank statement|"
    "the old key|a medical note|a stamped letter|the serial number|a parent's signature|a small lamp|sturdy shoes"
).split("|")


def needs_fact(rng: random.Random, domain: Domain) -> Fact:
    first, second = rng.sample(_PAPERS, 2)
    if rng.random() < 0.5:
        name, e, _ = thing_phrase(rng.choice(domain.things))
        plain = f"For {e} you need {first} and {second}."
        questions = [f"What do I need for {e}?", f"Which documents do I need for {e}?", f"What must I bring for {e}?"]
        return _fact(rng, ("needs", name), name, plain, questions, elliptic=["And what do I need?", "What do I have to bring?"])
    action = rng.choice(domain.actions)
    plain = f"You need {first} and {second} to {action}."
    mine = first_person(action)
    questions = [f"What do I need to {mine}?", f"Which papers do I need to {mine}?", f"What should I have with me to {mine}?"]
    return _fact(rng, ("needs", action), action, plain, questions, elliptic=["And what do I need for that?"])


def deed_fact(rng: random.Random, domain: Domain) -> Fact:
    """Price, deadline, frequency or approval of an action."""
    action, people = rng.choice(domain.actions), rng.choice(domain.people)
    mine, draw = first_person(action), rng.randrange(4)
    if draw == 0:
        v = slots.value("money", rng)
        plain = rng.choice([f"It costs {v} to {action}.", f"There is a charge of {v} if you {action}."])
        questions = [f"What does it cost to {mine}?", f"How much do I pay to {mine}?", f"How expensive is it to {mine}?", f"Is there a charge if I {mine}?"]
        return _fact(rng, ("deed cost", action), action, plain, questions, short=v, elliptic=["And what does that cost?", "How much is that?"])
    if draw == 1:
        v = rng.choice([slots.date(rng), slots.clock(rng), f"the end of {rng.choice(slots.MONTHS)}"])
        plain = rng.choice([f"{people} must {action} by {v}.", f"The deadline for {people} to {action} is {v}."])
        questions = [f"By when must {people} {mine}?", f"When do {people} have to {mine}?", f"What is the deadline for {people} to {mine}?"]
        return _fact(rng, ("deed deadline", action), action, plain, questions, short=v, elliptic=["By when?", "And until when?"])
    if draw == 2:
        n, unit = rng.randint(2, 12), rng.choice(["week", "month", "year", "season", "day"])
        plain = f"{people} can {action} up to {n} times a {unit}."
        questions = [f"How often can {people} {mine}?", f"How many times may {people} {mine}?", f"How many times a {unit} can {people} {mine}?"]
        return _fact(rng, ("deed often", action), action, plain, questions, short=f"{n} times a {unit}", elliptic=["How often?"])
    who = rng.choice([slots.role(rng), slots.person(rng)])
    plain = rng.choice([f"{who} has to approve it when you {action}.", f"You need the permission of {who} to {action}."])
    questions = [f"Who approves it when I {mine}?", f"Whose permission do I need to {mine}?", f"Who has to agree if I {mine}?"]
    return _fact(rng, ("deed approval", action), action, plain, questions, short=who, elliptic=["Who decides that?"])


def period_fact(rng: random.Random, domain: Domain) -> Fact:
    name, e, plural = thing_phrase(rng.choice(domain.things))
    first, last = slots.date(rng), slots.date(rng)
    be = "are" if plural else "is"
    plain = f"{e} {be} available from {first} to {last}."
    others = [(f"{name}: {first} – {last}.", True), (f"from {first} to {last} you can get {e}.", False)]
    questions = [f"When {be} {e} available?", f"Until when can I get {e}?", f"From when {be} {e} available?", f"In what period {be} {e} offered?"]
    return _fact(rng, ("period", name), name, plain, questions, others=others, short=f"{first} to {last}", elliptic=["And when?"])


MAKERS: tuple[tuple[Callable[[random.Random, Domain], Fact], int], ...] = (
    (how_fact, 5), (permission_fact, 5), (event_fact, 5), (place_fact, 3), (contact_fact, 3), (hours_fact, 2),
    (code_fact, 2), (term_fact, 1), (reason_fact, 2), (includes_fact, 2), (needs_fact, 2), (deed_fact, 4), (period_fact, 1),
)  # fmt: skip
