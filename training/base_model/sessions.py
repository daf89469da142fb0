"""From worlds to training examples: which sentences are offered, in which order, and what the model should say.

An example is one set of evidence with one or more independent questions on it (`Example.branches`). Every branch reads
exactly like a served request; they only share the computation of the evidence.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from generation.prompts import (
    House,
    Message,
    Prompt,
    PromptPassage,
    SentenceRef,
    build_prompt,
    build_question_prompt,
    render_completion,
)
from training.base_model import slots
from training.base_model.declines import decline_sentence
from training.base_model.words import word_list
from training.base_model.worlds import Item, Line, World

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_OPEN_QUESTION = frozenset(word_list("question words"))
_STOP_WORDS = frozenset(word_list("stop words"))
_ANYTHING = re.compile(
    r"What (?:do I need to know|is the connection|is said|does it say|about|follows from|applies|happens|if)\b"
)
"""Questions that fit any sentence, as rules make them: a model that is to write questions would write nothing else."""
_UNNAMED = re.compile(r"\b(?:it|they|them|he|she|him|her|this|that|these|those|one)\b", re.IGNORECASE)
SHORT_INSTRUCTION = "Answer in a few words."


@dataclass(frozen=True)
class Mix:
    """How hard the examples are. The first stage teaches choosing by content, the second the order that is served."""

    shuffled: float
    """Share of evidence in random instead of similarity order."""
    branches: int
    """Most questions per evidence set."""
    eased: float = 0.0
    """Share of questions that lose half of the distractors ranked above their sentence (handbooks are hard)."""
    removed: float = 0.09
    """Share of answerable questions whose sentence is taken out of the evidence: they are to be declined."""
    missed: float = 0.15
    """Share of questions whose sentence ranks too low that stay unanswerable; for the others it is put last."""
    left_out: float = 0.0
    """Share of questions whose sentence ranks too low that are not asked at all."""
    unmeasured: float = 0.1
    """Share of examples that do not show similarities."""
    written: float = 0.4
    """Share of the questions fit for it that are to be written instead of answered (about one in ten is)."""


HELD_OUT = "held"
STAGES = {
    "1": Mix(shuffled=0.6, branches=7),
    "2": Mix(shuffled=0.0, branches=2, eased=0.75, removed=0.10, missed=0.35, left_out=0.5),
    HELD_OUT: Mix(shuffled=0.0, branches=1, written=0.0, unmeasured=0.0),
}


@dataclass(frozen=True)
class Branch:
    """A prompt with its completion. ``gold``: pointers that the answer should name (empty: decline)."""

    messages: tuple[Message, ...]
    completion: str
    gold: tuple[int, ...] = ()
    writes_question: bool = False
    key: str = ""
    """What a right answer must hold: the value asked for, else the whole sentence."""


@dataclass(frozen=True)
class Example:
    branches: tuple[Branch, ...]
    decline: str = ""
    evidence: tuple[str, ...] = ()
    similarity: float = 0.0
    """Of the first question to its best evidence sentence."""
    right: tuple[bool, ...] = ()
    """Per evidence sentence: whether it stands in a document that holds an answer."""
    answerable: bool = True
    """Whether the evidence answers the first question."""


def examples(rng: random.Random, world: World, similarity: NDArray[np.float32], mix: Mix) -> Iterator[Example]:
    """Examples of one world. ``similarity``: (items, lines) as `Ranker.similarities` gives it."""
    for at, item in enumerate(world.items):
        if rng.random() < mix.written:
            written = _question_example(rng, world, item)
            if written:
                yield written
                continue
        evidence = _choose_evidence(rng, item, similarity[at], mix)
        if evidence is None or (not evidence and rng.random() > 0.1):
            continue
        house = _house(rng, item)
        chosen = [at, *_companions(rng, world, item, evidence, mix)]
        shown = rng.random() >= mix.unmeasured
        asked = [(world.items[i], [float(similarity[i][line]) for line in evidence]) for i in chosen]
        yield _example(house, world, asked, evidence, shown=shown)


def example_of(
    world: World,
    item: Item,
    evidence: Sequence[int],
    scores: NDArray[np.float32],
    decline: str,
    *,
    answerable: bool | None = None,
) -> Example:
    """One question with the evidence given. ``scores``: similarity of each line of the world to the question.
    ``answerable`` where no sentence is marked (else: all needed are there)."""
    example = _example(House(decline=decline), world, [(item, [float(scores[at]) for at in evidence])], evidence)
    return example if answerable is None else replace(example, answerable=answerable)


def _example(
    house: House,
    world: World,
    asked: Sequence[tuple[Item, Sequence[float]]],
    evidence: Sequence[int],
    *,
    shown: bool = True,
) -> Example:
    """``asked``: questions, each with the similarity of every evidence sentence to it."""
    branches = tuple(_branch(house, world, evidence, item, scores if shown else ()) for item, scores in asked)
    documents = {world.lines[at].document for at, _ in asked[0][0].gold}
    return Example(
        branches,
        house.decline,
        tuple(world.lines[i].text for i in evidence),
        max(asked[0][1], default=0.0),
        tuple(world.lines[i].document in documents for i in evidence),
        bool(branches[0].gold),
    )


def _house(rng: random.Random, item: Item) -> House:
    instructions = ""
    draw = rng.random()
    if draw < 0.07:
        instructions = SHORT_INSTRUCTION
    elif draw < 0.13:
        name = slots.invented_name(rng)
        instructions = rng.choice(
            [f"You are the assistant of {name}.", "Be brief.", f"You speak for {name}. Be polite.", "Use plain words."]
        )
    return House(decline=decline_sentence(rng), instructions=instructions)


def _choose_evidence(rng: random.Random, item: Item, scores: NDArray[np.float32], mix: Mix) -> list[int] | None:
    """Indexes of the lines on offer, best first; None: do not ask this."""
    count = 6 if rng.random() < 0.45 else rng.choice([1, 2, 3, 3, 4, 4, 5, 5, 7, 8, 8, 10])
    gold = {at for at, _ in item.gold}
    order = [int(i) for i in (-scores).argsort(kind="stable")]
    if gold and rng.random() < mix.removed:
        order = [i for i in order if i not in gold]
        gold = set()
    if gold and rng.random() < mix.eased:
        first = min(order.index(i) for i in gold)
        order = [i for at, i in enumerate(order) if at >= first or rng.random() < 0.5]
    best = order[:count]
    absent = [i for i in order[count:] if i in gold]
    if absent and rng.random() < mix.left_out:
        return None
    if absent and rng.random() >= mix.missed:
        keep = [i for i in best if i in gold]
        others = [i for i in best if i not in gold][: max(0, count - len(gold))]
        best = sorted([*keep, *others, *absent], key=order.index)
    if rng.random() < mix.shuffled:
        rng.shuffle(best)
    return best


def _companions(rng: random.Random, world: World, item: Item, evidence: Sequence[int], mix: Mix) -> list[int]:
    """Indexes of other questions on the same evidence; those that it does not answer are kept rare."""
    if item.history or mix.branches <= 1 or not evidence:
        return []
    offered, found = set(evidence), list[int]()
    others = [i for i, other in enumerate(world.items) if other is not item and not other.history]
    rng.shuffle(others)
    for other in others:
        gold = {at for at, _ in world.items[other].gold}
        answerable = bool(gold) and gold <= offered
        if answerable or (not gold & offered and rng.random() < 0.12):
            found.append(other)
        if len(found) >= mix.branches - 1:
            break
    return found


def _prompt(house: House, world: World, evidence: Sequence[int], item: Item, scores: Sequence[float]) -> Prompt:
    lines = [world.lines[i] for i in evidence]
    passages = [PromptPassage(rank, line.title, line.text) for rank, line in enumerate(lines, start=1)]
    refs = [SentenceRef(passage.rank, 0) for passage in passages]
    return build_prompt(
        house=house,
        question=item.question,
        passages=passages,
        evidence=refs,
        similarity=scores,
        history=item.history,
    )


def _branch(house: House, world: World, evidence: Sequence[int], item: Item, scores: Sequence[float]) -> Branch:
    prompt = _prompt(house, world, evidence, item, scores)
    offered = {line: SentenceRef(rank, 0) for rank, line in enumerate(evidence, start=1)}
    if not item.gold or any(at not in offered for at, _ in item.gold):
        return Branch(prompt.messages, house.decline)
    said = [(answer, (offered[at],)) for at, answer in item.gold]
    if house.instructions == SHORT_INSTRUCTION and item.short and len(said) == 1:
        said = [(f"{item.short[:1].upper()}{item.short[1:]}.".replace("..", "."), said[0][1])]
    completion = render_completion(house=house, prompt=prompt, sentences=said)
    key = item.short or item.gold[0][1]
    return Branch(prompt.messages, completion, tuple(offered[at].rank for at, _ in item.gold), key=key)


def _shares_a_word(question: str, line: Line) -> bool:
    """Whether sentence or title hold the beginning of a word of the question. From a question that is made of nothing
    but other words a small model learns to write one and the same for every sentence."""
    meant = {stem for word in question.split()[1:] if (stem := _stem(word))} - _STOP_WORDS
    return not meant.isdisjoint(map(_stem, f"{line.title} {line.text}".split()))


def _stem(word: str) -> str:
    return word.strip(".,:;!?()'\"").lower()[:5]


def _question_example(rng: random.Random, world: World, item: Item) -> Example | None:
    """The reverse task: the model writes the question that a marked sentence answers."""
    question = item.question
    if len(item.gold) != 1 or item.history or not question.endswith("?") or not question[0].isupper():
        return None
    if question.split()[0].strip(",?") not in _OPEN_QUESTION or len(question.split()) < 4:
        return None
    at = item.gold[0][0]
    if not world.natural or _ANYTHING.match(question) or _UNNAMED.search(question):
        return None
    if not _shares_a_word(question, world.lines[at]):
        return None
    document = [i for i, line in enumerate(world.lines) if line.document == world.lines[at].document]
    start = max(0, document.index(at) - rng.randint(0, 4))
    shown = document[start : start + rng.randint(5, 8)]
    if at not in shown:
        return None
    sentences = [world.lines[i].text for i in shown]
    prompt = build_question_prompt(title=world.lines[at].title, sentences=sentences, marked=shown.index(at))
    return Example((Branch(prompt.messages, question, writes_question=True),))
