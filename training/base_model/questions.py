"""Questions about sentences of natural text, made by rule from the sentence itself."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from training.base_model.phrasing import first_person, lower_first, upper_first
from training.base_model.words import word_list

_STOP_WORDS = frozenset(word_list("stop words"))
_CLAUSES = (
    (re.compile(r"^If (.{8,90}?), (?:then )?.+$"), ("What happens if {x}?", "What if {x}?", "What applies if {x}?")),
    (re.compile(r"^When (.{8,90}?), .+$"), ("What happens when {x}?", "What applies when {x}?")),
    (re.compile(r"^To (.{6,80}?), .+$"), ("How do I {x}?", "How can I {x}?", "What should I do to {x}?")),
    (re.compile(r"^In order to (.{6,80}?), .+$"), ("How do I {x}?", "What do I need to {x}?")),
    (re.compile(r"^.{10,}? if (.{8,80}?)\.$"), ("What happens if {x}?", "What if {x}?")),
    (re.compile(r"^.{10,}? when (.{8,80}?)\.$"), ("What happens when {x}?", "What about the case when {x}?")),
    (re.compile(r"^Because (.{8,90}?), .+$"), ("What follows from the fact that {x}?",)),
)
_SUBJECT = r"((?:The |A |An |This |These |All |Each |Any |Some |Most )?[A-Za-z][\w.()-]*(?: [\w.()-]+){0,5}?)"
_AUXILIARY = re.compile(rf"^{_SUBJECT} (is|are|can|must|should|may|will|was|were|cannot) (.+)\.$")
_VERB = re.compile(
    rf"^{_SUBJECT} (allow|return|specifie|raise|contain|create|provide|define|take|set|control|require|support)s"
    r" (.+)\.$"
)
_COUNTED = re.compile(r"\b(\d[\d,.]*|two|three|four|five|six|eight|ten) ([a-z]{4,}s)\b")
_VAGUE = frozenset(["this", "these", "it", "that", "there", "they", "he", "she", "here", "such"])


@dataclass(frozen=True)
class Asked:
    """A question and, for yes/no questions, the word that the answer opens with."""

    question: str
    opening: str = ""


def ask(sentence: str, rng: random.Random) -> Asked | None:
    """A question that ``sentence`` answers, or None when no rule gives a fair one."""
    found: list[Asked] = []
    for pattern, frames in _CLAUSES:
        match = pattern.match(sentence)
        if match:
            clause = first_person(lower_first(match.group(1)))
            found += [Asked(frame.format(x=clause)) for frame in frames]
    found += _by_auxiliary(sentence, rng)
    found += _by_verb(sentence)
    match = _COUNTED.search(sentence)
    words = _content_words(sentence)
    if match and len(words) > 2:
        found.append(Asked(f"How many {match.group(2)} are there for {rng.choice(words)}?"))
    if len(words) >= 3 and (not found or rng.random() < 0.18):
        found = [_by_keywords(words, rng)]
    good = [a for a in found if 3 <= len(a.question.split()) <= 24 or a.question.endswith("?")]
    return rng.choice(good) if good else None


def _by_auxiliary(sentence: str, rng: random.Random) -> list[Asked]:
    match = _AUXILIARY.match(sentence)
    if not match or match.group(1).split()[0].lower() in _VAGUE:
        return []
    subject, verb, rest = lower_first(match.group(1)), match.group(2), match.group(3)
    words = rest.split()
    found: list[Asked] = []
    if verb in ("is", "are", "was", "were"):
        if len(subject.split()) <= 5:
            found += [
                Asked(f"What {verb} {subject}?"),
                Asked(f"Explain {subject}."),
                Asked(f"Tell me about {subject}."),
            ]
    elif verb in ("can", "may", "should", "must", "will"):
        found.append(Asked(f"What {verb} {subject} {'be used for' if words[0] == 'be' else 'do'}?"))
    because = re.match(r"(.+?),? because (.+)$", rest)
    if because:
        found += [Asked(f"Why {verb} {subject} {because.group(1)}?")] * 3
    if verb != "cannot" and "not" not in words[:2] and len(words) >= 3:
        part = " ".join(words[: rng.randint(3, 9)]).rstrip(",;:")
        if part.split()[-1].lower() not in _STOP_WORDS:
            found += [Asked(f"{upper_first(verb)} {subject} {part}?", "Yes")] * 2
    elif len(words) >= 4:
        negative = "can" if verb == "cannot" else verb
        part = " ".join(w for w in words[:8] if w != "not").rstrip(",;:")
        if part.split()[-1].lower() not in _STOP_WORDS:
            found += [Asked(f"{upper_first(negative)} {subject} {part}?", "No")] * 2
    return found


def _by_verb(sentence: str) -> list[Asked]:
    match = _VERB.match(sentence)
    if not match or match.group(1).split()[0].lower() in _VAGUE:
        return []
    subject, stem = lower_first(match.group(1)), match.group(2)
    verb = "specify" if stem == "specifie" else stem
    return [Asked(f"What does {subject} {verb}?"), Asked(f"What is the purpose of {subject}?")]


def _content_words(sentence: str) -> list[str]:
    words = [re.sub(r"[^\w.@-]", "", w).rstrip(".") for w in sentence.split()]
    return [w for w in words if len(w) > 2 and w.lower() not in _STOP_WORDS]


def _by_keywords(words: list[str], rng: random.Random) -> Asked:
    count = rng.randint(2, min(4, len(words)))
    picked = [words[i] for i in sorted(rng.sample(range(len(words)), count))]
    picked = [w.lower() if w[1:].islower() else w for w in picked]
    phrase = " ".join(picked)
    frame = rng.choice(
        ["What does it say about {p}?", "{p}?", "What about {p}?", "What is said about {a} and {z}?",
         "How are {a} and {z} related?", "Is there anything on {p}?", "I have a question about {p}.", "{p}",
         "What do I need to know about {p}?", "What is the connection between {a} and {z}?"]
    )  # fmt: skip
    return Asked(upper_first(frame.format(p=phrase, a=picked[0], z=picked[-1])))
