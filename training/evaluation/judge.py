"""A judge: a model that reads two answers to one question and says which one is better supported.

Blind (answers are called A and B), in both orders (a choice that follows the place is no choice: it counts as a tie),
cached by what was asked (the same is never paid for twice), and calibrated: its agreement with what people chose on the
same pairs is shown, and below what the gate declares it never counts.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.db import transaction

from annotations.comparing.models import Choice, ComparisonChoice
from annotations.comparing.results import WORTH
from generation.engines import EngineBusy, EngineUnavailable, GenerationRequest
from generation.openai_compatible import OpenAIEngine
from generation.prompts import Message
from training.comparing import SOURCE
from training.evaluation.agreeing import agreement
from training.evaluation.asking import cluster_of
from training.evaluation.gate import LEAST_PAIRS
from training.evaluation.models import Judgement, Judging
from training.evaluation.statistics import cluster_bootstrap
from training.evaluation.summary import summarise
from training.models import Arm, BenchmarkItem, Condition, Evaluation, EvaluationAnswer

VERSION = 1
"""Raise it when the instructions change: older judgements are then not taken for these."""
INSTRUCTIONS = (
    "Two assistants answered the same question from the same passages. Decide which answer is better. First: is what "
    "it says supported by the passages? An answer that says what they do not is worse than one that admits that they "
    "do not say. Then: does it answer the question, wholly and shortly? Do not prefer an answer for its length, its "
    "place or its style. Reply with one word: A, B or TIE."
)
BATCH = 16
MAX_TOKENS = 64
_SAID = re.compile(r"\b(A|B|TIE)\b")


class JudgeFailed(RuntimeError):
    """The judge cannot be asked, or says nothing that can be read; the message says what to do."""


def perform(judging: Judging) -> None:
    """Asks what is not asked yet, then writes the results; resumed, it asks nothing twice.

    Raises:
        JudgeFailed: no pairs, an unreachable judge, or too many unreadable replies.
    """
    pairs = _pairs(judging)
    if not pairs:
        raise JudgeFailed("Candidate and today gave the same answers throughout: there is nothing to judge.")
    todo = _todo(judging, pairs)
    total = 2 * len(pairs)
    judging.beat(stage="asking the judge", done=total - len(todo), total=total)
    url, key = settings.RATCHET_JUDGE_BASE_URL, settings.RATCHET_JUDGE_API_KEY
    engine = OpenAIEngine(url, key, judging.model, settings="RATCHET_JUDGE")
    for start in range(0, len(todo), BATCH):
        _ask(judging, engine, todo[start : start + BATCH])
        judging.beat(done=min(total, total - len(todo) + start + BATCH))
    judging.results = _results(judging, pairs)
    judging.keep("results")  # the gate reads them
    with transaction.atomic():
        _gate_again(judging.evaluation)
        judging.hold()


Pair = tuple[EvaluationAnswer, EvaluationAnswer]
"""(candidate's answer, today's)."""
Question = tuple[EvaluationAnswer, bool, list[Message], str]
"""(candidate's answer, candidate first, messages, digest)."""


def messages_of(candidate: EvaluationAnswer, today: EvaluationAnswer, *, candidate_first: bool) -> list[Message]:
    """What the judge reads: nothing in it says whose answer is whose."""
    item = candidate.item
    passages = item.contexts[candidate.condition]["passages"]
    first, second = (candidate, today) if candidate_first else (today, candidate)
    shown = {
        "passages": [f"[{p['rank']}] {p['title']}\n{p['text']}" for p in passages],
        "earlier": [f"{m['role']}: {m['content']}" for m in item.history],
        "question": item.question,
        "A": first.text or "(no answer)",
        "B": second.text or "(no answer)",
    }
    # As JSON: a text that was logged or written by a model cannot pretend to be another part of it.
    return [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": json.dumps(shown, ensure_ascii=False, indent=1)},
    ]


def read_reply(text: str, *, candidate_first: bool) -> str:
    """candidate, baseline, tie or unreadable: the last A, B or TIE of the reply, since some models think aloud."""
    found = _SAID.findall(text)
    if not found:
        return "unreadable"
    if found[-1] == "TIE":
        return "tie"
    return "candidate" if (found[-1] == "A") == candidate_first else "baseline"


def _pairs(judging: Judging) -> list[Pair]:
    """Differing answers under the clean condition: first those that people have judged, then by a drawn order."""
    answers: dict[int, dict[str, EvaluationAnswer]] = {}
    rows = judging.evaluation.answers.filter(
        condition=Condition.CLEAN, arm__in=[Arm.BASE_RAG, Arm.ADAPTER_RAG]
    ).select_related("item")
    for answer in rows.order_by("item_id"):
        answers.setdefault(answer.item_id, {})[answer.arm] = answer
    both = [(found[Arm.ADAPTER_RAG], found[Arm.BASE_RAG]) for found in answers.values() if len(found) == 2]
    differ = [(c, t) for c, t in both if " ".join(c.text.split()) != " ".join(t.text.split())]
    judged = _people(judging.evaluation)

    def order(pair: Pair) -> tuple[bool, str]:
        key = pair[0].item.key
        return key not in judged, hashlib.sha256(f"{judging.evaluation_id}:{key}".encode()).hexdigest()

    return sorted(differ, key=order)[: judging.pairs]


def _todo(judging: Judging, pairs: Sequence[Pair]) -> list[Question]:
    """What was neither asked in this judging nor, word for word, in an earlier one of this assistant."""
    wanted: list[Question] = []
    for candidate, today in pairs:
        for first in (True, False):
            messages = messages_of(candidate, today, candidate_first=first)
            wanted.append((candidate, first, messages, _digest(judging.model, messages)))
    done = set(judging.judgements.values_list("item_id", "candidate_first"))
    left = [question for question in wanted if (question[0].item_id, question[1]) not in done]
    earlier = Judgement.objects.filter(
        judging__assistant=judging.assistant_id, digest__in=[question[3] for question in left]
    ).exclude(choice="unreadable")
    # The digest holds the texts and their order, but not which of them was the candidate's.
    known = {
        digest: "tie" if choice == "tie" else "A" if (choice == "candidate") == first else "B"
        for digest, choice, first in earlier.values_list("digest", "choice", "candidate_first")
    }
    Judgement.objects.bulk_create(
        (_judgement(judging, question, known[question[3]].upper()) for question in left if question[3] in known),
        ignore_conflicts=True,
    )
    return [question for question in left if question[3] not in known]


def _ask(judging: Judging, engine: OpenAIEngine, questions: Sequence[Question]) -> None:
    requests = [GenerationRequest(messages=messages, max_new_tokens=MAX_TOKENS) for _, _, messages, _ in questions]
    try:
        replies = engine.generate(requests)
    except (EngineUnavailable, EngineBusy) as error:
        raise JudgeFailed(
            f"The judge at RATCHET_JUDGE_BASE_URL does not answer: {error.sentence} What it has said is kept; ask it "
            "again later."
        ) from error
    rows = [_judgement(judging, q, reply.text) for q, reply in zip(questions, replies, strict=True)]
    Judgement.objects.bulk_create(rows, ignore_conflicts=True)


def _judgement(judging: Judging, question: Question, said: str) -> Judgement:
    candidate, first, _, digest = question
    choice = read_reply(said, candidate_first=first)
    return Judgement(judging=judging, item=candidate.item, candidate_first=first, choice=choice, digest=digest)


def _digest(model: str, messages: Sequence[Message]) -> str:
    asked = json.dumps([VERSION, model, list(messages)], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()


def _results(judging: Judging, pairs: Sequence[Pair]) -> dict[str, Any]:
    said: dict[int, list[str]] = {}
    for item_id, choice in judging.judgements.values_list("item_id", "choice"):
        said.setdefault(item_id, []).append(choice)
    verdicts = {item_id: _verdict(choices) for item_id, choices in said.items() if "unreadable" not in choices}
    readable = [(c, verdicts[c.item_id]) for c, _ in pairs if c.item_id in verdicts]
    if len(readable) * 2 < len(pairs):
        raise JudgeFailed(
            f"Of {len(pairs)} pairs the judge's replies can be read for {len(readable)} only; it is to reply with A, B "
            "or TIE. Choose a model that follows instructions."
        )
    worth = {"candidate": 1.0, "baseline": 0.0, "tie": 0.5}
    rate = cluster_bootstrap([worth[v] for _, v in readable], [cluster_of(c.item) for c, _ in readable])
    people = _people(judging.evaluation)
    shared = [(v, people[c.item.key]) for c, v in readable if c.item.key in people]
    consistent = sum(len(set(choices)) == 1 for choices in said.values())
    return {
        "win_rate": rate.as_dict(),
        "counts": {name: sum(v == name for _, v in readable) for name in worth},
        "consistent": consistent / len(said),
        "unreadable": len(pairs) - len(readable),
        "agreement": _agreed(shared),
        "version": VERSION,
    }


def _agreed(shared: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Of (judge, person). On fewer than `LEAST_PAIRS` only how many there are: told sooner, one would ask other judges,
    or judge pairs anew, until it is high by luck."""
    if len(shared) < LEAST_PAIRS:
        return {"n": len(shared), "same": None, "kappa": None, "low": None, "high": None}
    return agreement([judge for judge, _ in shared], [person for _, person in shared])


def _verdict(choices: Sequence[str]) -> str:
    """Of both orders: only what was said in both counts."""
    return choices[0] if len(set(choices)) == 1 else "tie"


def _people(evaluation: Evaluation) -> Mapping[str, str]:
    """What people chose on this evaluation's pairs, by question: candidate, baseline or tie."""
    choices = ComparisonChoice.objects.current().filter(
        pair__round__source=SOURCE, pair__round__source_id=evaluation.pk, pair__round__assistant=evaluation.assistant_id
    )
    worth: dict[str, list[float]] = {}
    for key, choice in choices.values_list("pair__key", "choice"):
        worth.setdefault(key, []).append(WORTH[Choice(choice)])
    means = {key: sum(values) / len(values) for key, values in worth.items()}
    return {key: "candidate" if m > 0.5 else "baseline" if m < 0.5 else "tie" for key, m in means.items()}


def _gate_again(evaluation: Evaluation) -> None:
    """Where the declared gate asks for a judge, its verdict waits for this."""
    if "judge" in evaluation.gate_rule.get("margins", {}):
        benchmarks = evaluation.answers.order_by().values("item__benchmark").distinct()
        summarise(evaluation, list(BenchmarkItem.objects.filter(benchmark__in=benchmarks).order_by("pk")))
