"""Rows shown in other ways, sources and caps, the token budget: what changes, and that citations follow."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from annotations.models import ComparisonChoice, ComparisonPair, ComparisonRound, Resolution
from assistants.models import Assistant
from generation.prompts import SentenceRef, render_completion
from tests.factories import CONTEXTS, make_assistant, make_queue, make_user
from tests.training.data.test_build import (
    ANSWERS,
    DECLINE,
    DECLINED,
    HANDOFF,
    WRITTEN,
    build,
    check_funnel,
    curate,
    questions,
    resolved,
    synthesise,
)
from training.data.alter import fewer_passages, oracle_only, shuffled, two_in_one
from training.data.budget import Budget, messages_of, prompt_of
from training.data.candidates import Candidate, gold_sentences
from training.data.render import dpo_rows, sft_rows
from training.models import CuratedRow, CuratedSet, SyntheticItem


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant(decline_sentence=DECLINE, handoff_sentence=HANDOFF)


def written(rank: int, sentence: int, question: str) -> Candidate:
    contexts = [{"rank": i, **c, "relevant": i == rank} for i, c in enumerate(CONTEXTS, 1)]
    text = CONTEXTS[rank - 1]["text"].split(". ")[sentence].rstrip(".") + "."
    sentences: Any = [{"text": text, "refs": [[rank, sentence]]}]
    return Candidate(
        origin="synthetic", kind="answer", group="document:a", question=question, history=[], contexts=contexts,
        evidence=[[1, 0, 0.9], [2, 0, 0.8], [2, 1, 0.7], [3, 0, 0.6], [3, 1, 0.5]], sentences=sentences,
        gold=gold_sentences(contexts, sentences),
    )  # fmt: skip


def completion(assistant: Assistant, row: Candidate) -> str:
    said = [(s["text"], [SentenceRef(*ref) for ref in s["refs"]]) for s in row.sentences]
    return render_completion(house=assistant.house, prompt=prompt_of(assistant.house, row), sentences=said)


def test_the_oracle_alone_and_fewer_passages_are_numbered_from_one() -> None:
    row = written(2, 0, "How long before?")
    alone = oracle_only(row)
    assert [(c["rank"], c["title"]) for c in alone.contexts] == [(1, "Moving house")]
    assert alone.evidence == [[1, 0, 0.8], [1, 1, 0.7]]
    assert alone.sentences[0]["refs"] == [[1, 0]]
    rng = random.Random(3)
    for _ in range(20):
        fewer = fewer_passages(written(3, 1, "What part?"), rng)
        assert [c["rank"] for c in fewer.contexts] == list(range(1, len(fewer.contexts) + 1))
        assert len(fewer.contexts) < 3
        assert gold_sentences(fewer.contexts, fewer.sentences) == ("Send the figures before the dot only.",)


def test_where_passages_are_numbered_shuffling_moves_the_citations(assistant: Assistant) -> None:
    assistant.prompt_style = "passages"
    row = written(2, 0, "How long before?")
    moved = {completion(assistant, shuffled(row, random.Random(seed), assistant)) for seed in range(12)}
    assert moved == {f"Tell us 10 days before you move. [{n}]" for n in (1, 2, 3)}


def test_two_questions_in_one_are_both_answered_or_one_is_said_to_be_missing(assistant: Assistant) -> None:
    first, second = written(1, 0, "What is the fee?"), written(2, 0, "How long before a move?")
    both = two_in_one(first, second, assistant, both=True)
    assert both is not None
    assert both.question == "What is the fee? How long before a move?"
    assert (
        completion(assistant, both) == "[1] A fixed plan has an exit fee of £35. [2] Tell us 10 days before you move."
    )
    part = two_in_one(first, second, assistant, both=False)
    assert part is not None
    assert completion(assistant, part) == f"[1] A fixed plan has an exit fee of £35. {DECLINE}"
    assert "10 days" not in prompt_of(assistant.house, part).messages[-1]["content"]
    assert two_in_one(first, written(1, 1, "And at the end?"), assistant, both=True) is None  # one passage answers both


def test_joined_rows_are_of_written_questions_and_counted(assistant: Assistant) -> None:
    curate(assistant)
    extra = {"What must one tell before moving?": (2, 0), "What moves to a new flat?": (2, 1)}
    synthesis = synthesise(assistant, {**WRITTEN, **extra})
    SyntheticItem.objects.filter(synthesis=synthesis).update(source="all.md")
    dataset = build(
        assistant, synthesis=synthesis, several_oracles_share=0.2, partial_share=0.2, missing_oracle_share=0,
        max_decline_share=0.5, near_duplicate=1.0, per_sentence_cap=20,
    )  # fmt: skip
    steps = check_funnel(dataset)
    made = steps["two questions in one added"]
    assert made["why"] == {"two sources": 2, "one of two answered": 2}
    joined = [e for e in dataset.examples.filter(turn=None) if e.question.count("?") == 2]
    assert len(joined) == 4
    assert sum(e.response.endswith(DECLINE) for e in joined) == 2


def test_a_recipe_says_which_labels_and_which_turns(assistant: Assistant) -> None:
    curate(assistant)
    bad = resolved(assistant, "Is it free?", "", verdict="bad", logged="It costs £99. [1]")
    queue = make_queue(assistant, name="Fees", turns=[bad, *bad.assistant.turns.filter(question__contains="exit")])
    everything = build(assistant, missing_oracle_share=0)
    assert everything.mix["bad"] == {"answer": 1}
    assert [r["rejected"][0]["content"] for r in dpo_rows(everything, "train")] in (["No idea."], ["No idea."] * 2)
    assert "Is it free?" not in str(list(sft_rows(everything, "train")))
    without = build(assistant, missing_oracle_share=0, bad="leave out", corrected="learn", declined="leave out")
    assert not {"bad", "declined"} & without.mix.keys()
    assert not list(dpo_rows(without, "train"))
    assert check_funnel(without)["resolved turns"]["why"]["left out by the recipe"] == 3
    nothing = build(assistant, good="leave out", corrected="leave out")
    assert nothing.state == "failed"
    assert "left out by the recipe" in nothing.error
    only = build(assistant, queues=(queue.name,))
    assert only.state == "failed"  # of that queue only the bad one is resolved
    assert "only say what not to answer" in only.error
    assert "there is no “Nobody’s” here" in build(assistant, queues=("Nobody’s",)).error
    later = build(assistant, asked_from="2999-01-01")
    assert "the recipe's sources hold nothing" in later.error
    assert datetime.now(UTC).year < 2999


def test_declines_because_retrieval_missed_can_be_left_out(assistant: Assistant) -> None:
    curate(assistant)
    turn = resolved(assistant, "How do I reset the router?", DECLINE, verdict="bad", logged="It costs £99. [1]")
    Resolution.objects.filter(turn=turn).update(reasons=["retrieval_missed"])
    kept = {"missing_oracle_share": 0, "max_decline_share": 0.9}
    assert build(assistant, **kept).examples.filter(turn=turn, kind="decline").exists()
    without = build(assistant, **kept, missed="leave out")
    assert not without.examples.filter(turn=turn).exists()
    assert without.mix["declined"] == {"decline": len(DECLINED)}
    assert check_funnel(without)["resolved turns"]["why"]["left out by the recipe"] == 1


def test_caps_by_document_person_and_origin(assistant: Assistant) -> None:
    for question, answer in ANSWERS.items():
        resolved(assistant, question, answer, metadata={"user_key": "k" if "fee" in answer else "m"})
    for cap, why in (
        ({"per_document_cap": 1}, {"document used often enough": 3}),
        ({"per_chunk_cap": 1}, {"passage used often enough": 3}),
        ({"per_person_cap": 2}, {"enough of one user": 2}),
        ({"per_origin_cap": 4}, {"enough of one origin": 2}),
    ):
        dataset = build(assistant, missing_oracle_share=0, **cap)
        assert check_funnel(dataset)["caps"]["why"] == why, cap
    left = build(assistant, missing_oracle_share=0, without_documents=("moving/", "meters/readings.md"))
    assert check_funnel(left)["documents left out"]["why"] == {"answers from it": 4}
    assert left.documents == ["tariffs/leaving.md"]


def test_the_budget_takes_distractors_and_never_the_source(assistant: Assistant, settings: Any) -> None:
    from tests.tiny_model import shared_base

    settings.RATCHET_BASE_MODEL = str(shared_base())
    row = written(3, 1, "What part of the reading?")
    roomy = Budget(assistant, 2_000)
    assert roomy.fit(row) is row
    full = Budget(assistant, 100_000)._tokens([*messages_of(assistant.house, row)[0]])
    budget = Budget(assistant, full - 5)
    cut = budget.fit(row)
    assert cut is not None
    assert 0 < len(cut.evidence) < len(row.evidence)
    assert [3, 1, 0.5] in cut.evidence
    assert (budget.rows, budget.dropped) == (1, len(row.evidence) - len(cut.evidence))
    assert Budget(assistant, 64).fit(replace(row, question="why " * 400)) is None


def test_what_people_preferred_becomes_pairs_but_never_of_the_guarding_benchmark(assistant: Assistant) -> None:
    curate(assistant)
    opened = ComparisonRound.objects.create(
        assistant=assistant, name="Round", source="x", source_id=1, questions=2, differing=2, seed=1, held_out="B"
    )
    row = written(1, 0, "What does it cost to go?")
    prompt = prompt_of(assistant.house, row)
    for position, messages in enumerate([list(prompt.messages), [{"role": "user", "content": "Passages:\n?"}]]):
        pair = ComparisonPair.objects.create(
            round=opened, position=position, key="q", question=row.question, contexts=row.contexts, prompt=messages,
            candidate_completion="[1] A fixed plan has an exit fee of £35.", baseline_completion="[2] No idea.",
        )  # fmt: skip
        ComparisonChoice.objects.create(pair=pair, person=make_user(), choice="candidate", candidate_left=True)
    dataset = build(assistant, comparisons=True, missing_oracle_share=0)
    compared = next(step for step in dataset.funnel if step["step"] == "compared pairs")
    assert compared["why"] == {"asked with another prompt format": 1}
    example = dataset.examples.get(origin="preferred")
    assert (example.question, example.rejected) == ("What does it cost to go?", "No idea. [2]")
    assert example.came_from == "comparison Round, pair 0"
    (pair_row,) = [r for r in dpo_rows(dataset, example.split) if "to go?" in r["prompt"][-1]["content"]]
    assert pair_row["prompt"] == list(prompt.messages)
    assert pair_row["chosen"][0]["content"] == "[1] A fixed plan has an exit fee of £35."
    assert pair_row["rejected"][0]["content"] == "[2] No idea."


def test_imported_rows_and_spot_checks_count(assistant: Assistant) -> None:
    curate(assistant)
    row = written(2, 1, "May the contract come along?")
    curated = CuratedSet.objects.create(assistant=assistant, name="Ours", state="succeeded", rows=1)
    CuratedRow.objects.create(
        set=curated, position=4, kind="answer", question=row.question, contexts=row.contexts, evidence=row.evidence,
        sentences=row.sentences,
    )  # fmt: skip
    dataset = build(assistant, curated_sets=("Ours",), weight_imported=3, missing_oracle_share=0)
    example = dataset.examples.get(origin="imported")
    assert (example.came_from, example.weight) == ("imported set Ours, line 4", 3)
    assert CuratedRow.objects.get().vector is not None  # the next build need not embed it
    assert build(assistant, curated_sets=("Ours",), weight_imported=3, missing_oracle_share=0).content_hash == (
        dataset.content_hash
    )


def test_the_judged_answer_is_part_of_the_hash(assistant: Assistant) -> None:
    curate(assistant)
    paired = build(assistant, missing_oracle_share=0)
    plain = build(assistant, missing_oracle_share=0, corrected="learn")
    assert set(paired.examples.values_list("digest", flat=True)) == set(plain.examples.values_list("digest", flat=True))
    assert paired.content_hash != plain.content_hash
    assert questions(paired) == questions(plain)
