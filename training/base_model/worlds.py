"""Small collections of documents with questions: invented handbooks, windows of the manuals, and lists to copy from."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from generation.prompts import Message, split_sentences
from training.base_model import fact_kinds, facts, questions, slots
from training.base_model.corpus import Section
from training.base_model.facts import Fact
from training.base_model.lexicon import Domain
from training.base_model.phrasing import lower_first, thing_phrase, upper_first, vary_question
from training.base_model.words import word_list


@dataclass(frozen=True)
class Line:
    """One sentence of a world's documents."""

    document: int
    title: str
    text: str


@dataclass(frozen=True)
class Item:
    """A question. ``gold``: (index into the world's lines, answer sentence); empty when no line answers it."""

    question: str
    gold: tuple[tuple[int, str], ...] = ()
    history: tuple[Message, ...] = ()
    short: str = ""


@dataclass
class World:
    """Documents and what is asked about them."""

    lines: list[Line] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    natural: bool = True
    """Whether its questions are such as people ask: only these are worth learning to write."""

    def add(self, document: int, title: str, text: str) -> bool:
        """Adds a line unless the prompt code would cut it or it is there already."""
        text = " ".join(text.split())
        if split_sentences(text) != [text] or any(line.text == text for line in self.lines):
            return False
        self.lines.append(Line(document, title, text))
        return True


_FILLERS = word_list("fillers")
_PARTS = word_list("parts")
_LONG_LISTS = 0.3
"""Share of the lists whose values are as long as sentences."""


def handbook_world(rng: random.Random, domain: Domain, *, words: Sequence[str] = (), items: int = 10) -> World:
    """An invented handbook of one domain: 3 to 6 documents that share things and properties (hard distractors).

    ``words``: any words; some things are called by them, so that the model meets its whole vocabulary in sentences.
    """
    world = World()
    things = [_named(rng, t, words) for t in rng.sample(domain.things, rng.randint(3, 5))]
    properties = rng.sample(domain.properties, rng.randint(2, 4))
    told: dict[int, Fact] = {}
    keys: set[tuple[str, ...]] = set()
    ghosts: list[Fact] = []
    for number in range(rng.randint(3, 6)):
        thing = rng.choice(things) if rng.random() < 0.45 else None
        name = thing_phrase(thing)[0] if thing else ""
        title = rng.choice(domain.titles)
        if thing:
            title = rng.choice([upper_first(name), f"{title} › {upper_first(name)}", f"{title}: {name}"])
        elif rng.random() < 0.3:
            title = f"{title} › {rng.choice(_PARTS)}"
        for _ in range(rng.randint(3, 8)):
            if rng.random() < 0.09:
                text = rng.choice(_FILLERS).format(
                    m=rng.choice(slots.MONTHS), p=slots.person(rng), l=rng.choice(domain.places)
                )
                world.add(number, title, text)
                continue
            fact = _draw_fact(rng, domain, things, properties, thing)
            if fact.key in keys:
                continue
            keys.add(fact.key)
            if rng.random() < 0.15:
                ghosts.append(fact)
                continue
            wording, tidy = rng.choice(fact.stated) if rng.random() < 0.6 else fact.stated[0]
            if world.add(number, title, wording):
                told[len(world.lines) - 1] = _with_answer(fact, fact.canonical if tidy else wording)
    _ask_handbook(rng, world, told, ghosts, items)
    return world


def _named(rng: random.Random, thing: str, words: Sequence[str]) -> str:
    """Some things get a name of their own: no model can know it beforehand."""
    if words and rng.random() < 0.3:
        return " ".join(rng.sample(words, rng.choice([1, 2, 2])))
    if rng.random() > 0.25:
        return thing
    dash, bare = ("-", thing[1:]) if thing.startswith("-") else ("", thing)
    name = rng.choice(
        [slots.invented_name(rng), f"{rng.choice('ABCDEHKLMRSTX')}{rng.randint(1, 99)}", slots.invented_name(rng)]
    )
    return f"{dash}{name} {bare}" if rng.random() < 0.6 else f"{dash}{bare} {name}"


def _draw_fact(
    rng: random.Random, domain: Domain, things: Sequence[str], properties: Sequence[tuple[str, str]], thing: str | None
) -> Fact:
    if rng.random() < (0.7 if thing else 0.35):
        short = thing is not None and rng.random() < 0.5
        return facts.property_fact(rng, thing or rng.choice(things), rng.choice(properties), short_title=short)
    makers, weights = zip(*fact_kinds.MAKERS, strict=True)
    return rng.choices(makers, weights)[0](rng, domain)


def _with_answer(fact: Fact, answer: str) -> Fact:
    return Fact(fact.key, fact.subject, answer, (), fact.questions, fact.closed, fact.short, fact.elliptic)


def _ask_handbook(rng: random.Random, world: World, told: dict[int, Fact], ghosts: Sequence[Fact], wanted: int) -> None:
    indexes = list(told)
    rng.shuffle(indexes)
    for at in indexes[:wanted]:
        fact = told[at]
        draw = rng.random()
        if draw < 0.16 and fact.closed:
            question, answer = rng.choice(fact.closed)
            world.items.append(Item(vary_question(question, rng), ((at, answer),)))
        elif draw < 0.26 and len(indexes) > 1:
            world.items.append(_joined(rng, told, at, rng.choice([i for i in indexes if i != at])))
        elif draw < 0.42 and len(indexes) > 1:
            world.items.append(_follow_up(rng, told, at))
        else:
            world.items.append(
                Item(vary_question(rng.choice(fact.questions), rng), ((at, fact.canonical),), short=fact.short)
            )
    for fact in ghosts[:2]:
        asked = [*fact.questions, *(q for q, _ in fact.closed)]
        world.items.append(Item(vary_question(rng.choice(asked), rng)))


def _joined(rng: random.Random, told: dict[int, Fact], first: int, second: int) -> Item:
    """Two questions in one: both sentences are needed, in the order of the questions."""
    one, two = rng.choice(told[first].questions).rstrip("?. "), rng.choice(told[second].questions)
    glue = rng.choice([", and", " and", "? And", ". Also:", "? Besides,", ", and second,"])
    question = f"{one}{glue} {lower_first(two)}"
    return Item(question, ((first, told[first].canonical), (second, told[second].canonical)))


def _follow_up(rng: random.Random, told: dict[int, Fact], at: int) -> Item:
    """A question that needs the turn before it: same subject with another property, or same property elsewhere."""
    fact = told[at]
    related = [i for i, f in told.items() if i != at and f.subject == fact.subject]
    twins = [
        i for i, f in told.items() if i != at and f.key[0] == fact.key[0] == "property" and f.key[2] == fact.key[2]
    ]
    if related and fact.elliptic:
        before, question = rng.choice(related), rng.choice(fact.elliptic)
    elif twins:
        before = rng.choice(twins)
        e = thing_phrase(fact.subject)[1]
        question = rng.choice([f"And for {e}?", f"What about {e}?", f"And {e}?", f"How is it for {e}?"])
    else:
        before, question = rng.choice(list(told)), rng.choice(fact.questions)
        if before == at:
            return Item(vary_question(question, rng), ((at, fact.canonical),))
    earlier = told[before]
    history: tuple[Message, ...] = (
        {"role": "user", "content": vary_question(rng.choice(earlier.questions), rng)},
        {"role": "assistant", "content": earlier.canonical},
    )
    return Item(question, ((at, fact.canonical),), history)


def manual_world(rng: random.Random, sections: Sequence[Section], start: int, *, items: int = 9) -> World:
    """Neighbouring sections of the manuals, sometimes with strangers mixed in."""
    picked = list(range(start, min(start + rng.randint(3, 6), len(sections))))
    if rng.random() < 0.4:
        picked += [rng.randrange(len(sections)) for _ in range(2)]
    world = World(natural=False)
    for number, at in enumerate(picked):
        section = sections[at]
        title = section.title.split(" — ")[0] or "Manual"
        if rng.random() < 0.3:
            title = f"{section.page.rsplit('/', 1)[-1].removesuffix('.html').replace('-', ' ')} › {title}"
        for sentence in section.sentences:
            world.add(number, title, sentence)
    order = list(range(len(world.lines)))
    rng.shuffle(order)
    for at in order:
        if len(world.items) >= items:
            break
        text = world.lines[at].text
        asked = questions.ask(text, rng)
        if asked is None:
            continue
        answer = f"{asked.opening}, {lower_first(text)}" if asked.opening else text
        world.items.append(Item(vary_question(asked.question, rng), ((at, answer),)))
    return world


def list_world(rng: random.Random, words: Sequence[str], pieces: Sequence[str] = (), *, items: int = 8) -> World:
    """Keys with values: exact copying of whatever stands there, from the first step of training on.

    ``pieces``: the tokens of the vocabulary as text; strung together at random they make every token a target.
    """
    world = World(natural=False)
    frames = [("the {k} is {v}.", "What is the {k}?"), ("{k}: {v}.", "{k}?"),
    ("for {k} use {v}.", "What do I use for {k}?"),
              ("{k} = {v}.", "What is {k}?"), ("{k} comes after {v}.", "What comes before {k}?")]  # fmt: skip
    said, asked = rng.choice(frames)
    title = upper_first(" ".join(rng.sample(list(words), 2)))
    long = rng.random() < _LONG_LISTS
    for _ in range(rng.randint(3, 8) if long else rng.randint(5, 14)):
        key = (
            " ".join(rng.sample(list(words), rng.choice([1, 2, 2]))) if rng.random() < 0.7 else slots.invented_name(rng)
        )
        v = slots.odd_string(rng) if rng.random() < 0.5 else " ".join(rng.sample(list(words), rng.randint(1, 4)))
        if pieces and rng.random() < 0.7:
            v = "".join(rng.choices(pieces, k=rng.randint(3, 14))).strip()
        if long:
            v = slots.long_text(rng, words)
        elif rng.random() < 0.15:
            v = f"{v} {v} {slots.odd_string(rng)}"
        text = upper_first(said.format(k=key, v=v))
        if world.add(0, title, text):
            answered = rng.random() < 0.85
            gold = ((len(world.lines) - 1, text),) if answered else ()
            if not answered:
                world.lines.pop()
            world.items.append(Item(upper_first(asked.format(k=key)), gold))
    rng.shuffle(world.items)
    world.items = world.items[:items]
    return world
