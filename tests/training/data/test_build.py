"""From resolved turns and a synthesis to a frozen dataset version: what goes in, what is refused, and its count."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth.models import User

from annotations.models import Resolution
from assistants.background import launch
from assistants.models import Assistant
from capture.models import Conversation, Turn
from generation.prompts import PromptPassage, build_prompt
from tests.factories import CONTEXTS, make_assistant, make_benchmark, make_conversation, make_turn
from training.data.alter import without_oracle
from training.data.budget import _may_go
from training.data.candidates import MAX_GROUP, Candidate, Refused, from_turn, group_name
from training.data.freeze import audit_lines
from training.data.leakage import find_leaks
from training.data.pool import Pool
from training.data.recipe import Recipe, RecipeError
from training.data.render import offered, sft_rows
from training.models import Benchmark, BenchmarkItem, DatasetVersion, Example, Synthesis, SyntheticItem

DECLINE = "I can't find that in the documents."
HANDOFF = "I'll pass you to a colleague."
EVIDENCE = ([[0, 0, 0.9], [1, 1, 0.7]], [[2, 0, 0.5], [3, 1, 0.4]], [[4, 0, 0.3], [5, 1, 0.2]])
OFFERED = [{**context, "evidence": places} for context, places in zip(CONTEXTS, EVIDENCE, strict=True)]
ANSWERS = {
    "What does it cost to leave a fixed plan early?": "A fixed plan has an exit fee of £35. [1]",
    "Is there a fee near the end of my plan?": "No fee is due in the last 49 days of the plan. [1]",
    "How long before moving must I tell you?": "Tell us 10 days before you move. [2]",
    "Can I keep the tariff in my new flat?": "Your plan can move with you to the new address. [2]",
    "On which day do I look at the meter?": "Read the meter on the first day of the month. [3]",
    "Do you need all the figures of the display?": "Send the figures before the dot only. [3]",
}
DECLINED = ["Who won the football yesterday?", "Can you cook pasta for me?", "What is the capital of Peru?"]
WRITTEN = {
    "Which amount falls due when somebody ends a contract before its time?": (1, 0),
    "By when has a customer to report a change of home?": (2, 0),
    "How often should figures be read off?": (3, 0),
    "What part of the reading has to be sent in?": (3, 1),
}


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant(decline_sentence=DECLINE, handoff_sentence=HANDOFF)


def resolved(
    assistant: Assistant,
    question: str,
    response: str,
    *,
    verdict: str = "good",
    logged: str = "",
    contexts: Sequence[Any] = OFFERED,
    conversation: str = "",
    **fields: Any,
) -> Turn:
    turn = make_turn(
        assistant,
        question=question,
        response=logged or response,
        contexts=contexts,
        conversation=_conversation(assistant, conversation) if conversation else None,
        **fields,
    )
    Resolution.objects.create(turn=turn, verdict=verdict, response=response, relevant_ranks=[1], how="single")
    return turn


def _conversation(assistant: Assistant, name: str) -> Conversation:
    return assistant.conversations.filter(external_id=name).first() or make_conversation(assistant, name)


def curate(assistant: Assistant) -> None:
    """Six answers (two of them corrected), three declines, one handing over, two that cannot be learned from."""
    for i, (question, answer) in enumerate(ANSWERS.items()):
        corrected = i < 2
        resolved(
            assistant, question, answer, verdict="bad" if corrected else "good", logged="No idea." if corrected else ""
        )
    for question in DECLINED:
        resolved(assistant, question, DECLINE)
    resolved(assistant, "I want to complain about an engineer.", HANDOFF)
    resolved(assistant, "What is 2 + 2?", "", verdict="bad")
    resolved(assistant, "Is the moon made of cheese?", "The moon is made of 99 cheeses. [1]")


def synthesise(assistant: Assistant, written: Any = None) -> Synthesis:
    synthesis = Synthesis.objects.create(assistant=assistant, state="succeeded")
    passages = [
        {"rank": i, "title": c["title"], "source": c["source"], "text": c["text"]} for i, c in enumerate(CONTEXTS, 1)
    ]
    for i, (question, (rank, sentence)) in enumerate((written or WRITTEN).items()):
        text = passages[rank - 1]["text"].split(". ")[sentence].rstrip(".") + "."
        SyntheticItem.objects.create(
            synthesis=synthesis, source=passages[rank - 1]["source"], sentence=i, question=question, response=text,
            contexts={
                "passages": passages, "gold": [rank, sentence],
                "evidence": [[1, 0, 0.9], [1, 1, 0.7], [2, 0, 0.5], [2, 1, 0.4], [3, 0, 0.3], [3, 1, 0.2]],
            },
        )  # fmt: skip
    SyntheticItem.objects.create(
        synthesis=synthesis, source="x", sentence=99, question="??", response="x", dropped_by="empty"
    )
    return synthesis


def build(assistant: Assistant, *, benchmark: Benchmark | None = None, synthesis: Any = None, **recipe: Any) -> Any:
    number = DatasetVersion.objects.count() + 1
    dataset = DatasetVersion.objects.create(
        assistant=assistant, number=number, recipe=Recipe(**recipe).as_dict(), benchmark=benchmark, synthesis=synthesis,
        prompt_digest=assistant.prompt_digest,
    )  # fmt: skip
    launch(dataset, foreground=True)
    dataset.refresh_from_db()
    return dataset


def questions(dataset: DatasetVersion, **filters: Any) -> set[str]:
    return set(dataset.examples.filter(**filters).values_list("question", flat=True))


def check_funnel(dataset: DatasetVersion) -> dict[str, Any]:
    """Every loss has its reason, every step begins where the one before it ended."""
    steps = {step["step"]: step for step in dataset.funnel}
    for step in dataset.funnel:
        assert abs(step["before"] - step["kept"]) == sum(step["why"].values()), step
    sources = [steps[name]["kept"] for name in ("resolved turns", "synthetic questions") if name in steps]
    chain = [step for step in dataset.funnel if step["step"] not in ("resolved turns", "synthetic questions")]
    assert chain[0]["before"] == sum(sources)
    for before, after in pairwise(chain):
        assert after["before"] == before["kept"]
    assert chain[-1]["kept"] == dataset.rows == dataset.examples.count()
    return steps


def test_the_whole_way_adds_up(assistant: Assistant) -> None:
    curate(assistant)
    dataset = build(
        assistant, synthesis=synthesise(assistant), missing_oracle_share=0.3, max_decline_share=0.5, shuffled_share=0
    )
    assert (dataset.state, dataset.error) == ("succeeded", "")
    steps = check_funnel(dataset)
    assert steps["resolved turns"]["why"] == {"bad without a correction": 1, "answer not supported by its passages": 1}
    assert steps["synthetic questions"]["why"] == {"empty": 1}
    assert (steps["synthetic questions"]["before"], steps["synthetic questions"]["kept"]) == (5, 4)
    assert steps["missing oracle added"]["why"] == {"the oracle taken away": 3}
    assert dataset.mix == {
        "corrected": {"answer": 2},
        "good": {"answer": 4, "handoff": 1},
        "declined": dataset.mix["declined"],
        "synthetic": dataset.mix["synthetic"],
    }
    assert sum(sum(kinds.values()) for kinds in dataset.mix.values()) == dataset.rows
    assert questions(dataset, origin="declined") >= set(DECLINED)
    assert "moving/moving.md" in dataset.documents
    assert dataset.prompt_digest == assistant.prompt_digest
    corrected = dataset.examples.get(question="What does it cost to leave a fixed plan early?", kind="answer")
    assert (corrected.rejected, corrected.response) == ("No idea.", "A fixed plan has an exit fee of £35.")
    assert corrected.sentences == [{"text": "A fixed plan has an exit fee of £35.", "refs": [[1, 0]]}]
    assert corrected.evidence == [[1, 0, 0.9], [1, 1, 0.7], [2, 0, 0.5], [2, 1, 0.4], [3, 0, 0.3], [3, 1, 0.2]]
    assert [c["relevant"] for c in corrected.contexts] == [True, False, False]
    assert corrected.turn is not None
    synthetic = dataset.examples.filter(origin="synthetic", kind="answer").first()
    assert synthetic.group.startswith("document:")


def test_the_same_input_gives_the_same_hash_and_another_seed_another(assistant: Assistant) -> None:
    curate(assistant)
    synthesis = synthesise(assistant)
    options: dict[str, Any] = {"synthesis": synthesis, "missing_oracle_share": 0.3, "shuffled_share": 0.5}
    first, second = build(assistant, **options), build(assistant, **options)
    assert len(first.content_hash) == 64
    assert first.content_hash == second.content_hash
    assert list(first.examples.values_list("digest", "split")) == list(second.examples.values_list("digest", "split"))
    assert build(assistant, **options, seed=2).content_hash != first.content_hash
    Turn.objects.filter(question__startswith="On which day").delete()
    assert build(assistant, **options).content_hash != first.content_hash


def test_built_again_after_a_crash_it_holds_every_row_once(assistant: Assistant) -> None:
    curate(assistant)
    dataset = build(assistant)
    digest = dataset.content_hash
    DatasetVersion.objects.filter(pk=dataset.pk).update(state="queued")
    dataset.refresh_from_db()
    launch(dataset, foreground=True)
    dataset.refresh_from_db()
    assert (dataset.content_hash, dataset.examples.count()) == (digest, dataset.rows)


def test_a_group_is_in_one_split_only(assistant: Assistant) -> None:
    for i, (question, answer) in enumerate(ANSWERS.items()):
        for j in range(3):
            resolved(assistant, f"{question} ({i}{j})", answer, conversation=f"c{i}-{j % 2}")
    dataset = build(assistant, validation_share=0.4, missing_oracle_share=0.4, per_sentence_cap=20)
    splits: dict[str, set[str]] = {}
    for group, split in dataset.examples.values_list("group", "split"):
        splits.setdefault(group, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert {next(iter(found)) for found in splits.values()} == {"train", "validation"}


def test_the_guard_keeps_the_benchmark_out_and_lists_what_it_blocked(assistant: Assistant) -> None:
    curate(assistant)
    benchmark = make_benchmark(assistant)
    history = [{"role": "user", "content": "I move to Leeds."}, {"role": "assistant", "content": "Good."}]
    held_out = [
        ("same", "what does it cost to leave a fixed plan early", []),
        ("near", "How long before I move must I tell you?", []),
        ("other", "Does the boiler need a yearly service?", history),
    ]
    for key, question, before in held_out:
        BenchmarkItem.objects.create(benchmark=benchmark, key=key, question=question, kind="answer", history=before)
    dataset = build(assistant, benchmark=benchmark, synthesis=synthesise(assistant), near_duplicate=0.85)
    steps = check_funnel(dataset)
    blocked = {row["item"]: row for row in dataset.blocked}
    assert set(blocked) == {"same", "near"}
    assert (blocked["same"]["by"], blocked["same"]["score"]) == ("same words", 1.0)
    assert blocked["near"]["by"] == "meaning"
    assert blocked["near"]["score"] >= 0.85
    assert steps["leakage guard"]["before"] - steps["leakage guard"]["kept"] == 2
    assert not questions(dataset) & {row["question"] for row in dataset.blocked}


def test_no_row_answers_from_a_document_of_the_untouched_slice(assistant: Assistant) -> None:
    curate(assistant)
    synthesis = synthesise(assistant)
    benchmark = make_benchmark(assistant)
    gold = [{"path": CONTEXTS[2]["source"], "sentence": "Read the meter on the first day of the month."}]
    BenchmarkItem.objects.create(
        benchmark=benchmark, key="u", question="Anything else?", kind="answer", slice="untouched", gold=gold
    )
    dataset = build(assistant, benchmark=benchmark, synthesis=synthesis)
    blocked = [row for row in dataset.blocked if row["by"] == "held-out document"]
    assert len(blocked) == 4  # two of the labelled turns, two of the written questions
    assert {row["item"] for row in blocked} == {"u"}
    assert not questions(dataset) & {row["question"] for row in blocked}
    assert dataset.funnel[2]["why"]["held-out document"] == 4


def test_a_copied_question_is_found_under_a_greeting_and_behind_any_history() -> None:
    item = "What do I have to pay when I leave my fixed plan before it has ended in spring?"
    history: Any = [{"role": "user", "content": "Tell me about your solar panels and how they are cleaned."}]
    rows: list[Any] = [
        ("Good evening dear team, I hope you are well and have a nice weekend, my question today is this: " + item, []),
        (item.upper(), history),
        ("And how much is that?", history),
        ("Where is the gas meter?", []),
    ]
    leaks = find_leaks(rows=rows, items=[(item, []), ("And how much is that?", [])], threshold=0.99)
    assert [(leak.row, leak.item, leak.by) for leak in leaks] == [(0, 0, "copied words"), (1, 0, "same words")]
    assert find_leaks(rows=[], items=[(item, [])], threshold=0.9) == []


def test_of_equal_questions_the_curated_one_stays(assistant: Assistant) -> None:
    question = "Which amount falls due when somebody ends a contract before its time?"
    resolved(assistant, question, "A fixed plan has an exit fee of £35. [1]")
    resolved(assistant, question, "A fixed plan has an exit fee of £35. [1]")
    synthesis = synthesise(assistant, {question: (1, 0), "How much falls due when one ends a contract early?": (1, 0)})
    dataset = build(assistant, synthesis=synthesis, missing_oracle_share=0, near_duplicate=0.8)
    steps = check_funnel(dataset)
    assert steps["duplicates"]["why"] == {"same words": 1, "same meaning": 2}
    assert list(dataset.examples.values_list("origin", flat=True)) == ["good"]


def test_one_sentence_is_not_asked_for_too_often(assistant: Assistant) -> None:
    curate(assistant)
    written = {f"{word} does the contract's end bring with it?": (1, 0) for word in ("What", "How", "Why", "When")}
    dataset = build(
        assistant, synthesis=synthesise(assistant, written), per_sentence_cap=2, near_duplicate=1.0,
        missing_oracle_share=0,
    )  # fmt: skip
    assert check_funnel(dataset)["caps"]["why"] == {"sentence asked often enough": 3}
    assert dataset.mix["synthetic"] == {"answer": 1}


def test_synthetic_rows_do_not_drown_the_curated_ones(assistant: Assistant) -> None:
    curate(assistant)
    dataset = build(assistant, synthesis=synthesise(assistant), synthetic_per_curated=0, missing_oracle_share=0)
    assert check_funnel(dataset)["caps"]["why"] == {"more synthetic than the recipe allows": 4}
    assert "synthetic" not in dataset.mix


@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.5])
def test_declining_never_takes_more_than_its_share(assistant: Assistant, share: float) -> None:
    for question, answer in ANSWERS.items():
        resolved(assistant, question, answer)
    for i in range(12):
        resolved(assistant, f"Who won match number {i} of the season in {1990 + i}?", DECLINE)
    dataset = build(assistant, max_decline_share=share, missing_oracle_share=0.5)
    check_funnel(dataset)
    assert dataset.examples.filter(kind="decline").count() <= share * dataset.rows
    assert dataset.examples.filter(kind="answer").count() == len(ANSWERS)
    if share:
        assert dataset.examples.filter(kind="decline").count() == int(share / (1 - share) * len(ANSWERS) + 1e-9)


@pytest.mark.parametrize(("share", "kept"), [(0.0, 0), (0.2, 1), (0.5, 4), (0.9, 4)])
def test_handing_over_never_takes_more_than_its_share(assistant: Assistant, share: float, kept: int) -> None:
    answers = list(ANSWERS.items())[:5]
    for question, answer in answers:
        resolved(assistant, question, answer)
    for i in range(4):
        resolved(assistant, f"Who won match number {i} of the season in {1990 + i}?", HANDOFF)
    dataset = build(assistant, max_handoff_share=share, missing_oracle_share=0)
    funnel = check_funnel(dataset)
    assert dataset.examples.filter(kind="handoff").count() == kept
    assert dataset.examples.filter(kind="answer").count() == 5
    assert ("handing-over share" in funnel) == (kept < 4)


def test_rows_without_their_oracle_decline_and_do_not_show_it(assistant: Assistant) -> None:
    curate(assistant)
    dataset = build(assistant, missing_oracle_share=0.9, max_decline_share=0.9, shuffled_share=0)
    made = [e for e in dataset.examples.filter(kind="decline") if e.question in ANSWERS]
    assert len(made) == 5
    for example in made:
        assert example.sentences == [{"text": DECLINE, "refs": []}]
        assert example.rejected == ""
        prompt = build_prompt(
            house=assistant.house,
            question=example.question,
            passages=[PromptPassage(c["rank"], c["title"], c["text"]) for c in example.contexts],
            **offered(example.evidence),
        )
        answer = ANSWERS[example.question].partition(" [")[0]
        assert answer not in prompt.messages[-1]["content"]
        answered = dataset.examples.get(question=example.question, kind="answer")
        assert (answered.group, answered.split) == (example.group, example.split)


def test_where_whole_passages_are_shown_the_passage_goes_with_its_oracle(assistant: Assistant) -> None:
    assistant.prompt_style = "passages"
    assistant.save()
    curate(assistant)
    dataset = build(assistant, missing_oracle_share=0.9, max_decline_share=0.9)
    rows = [row for split in Example.Split.values for row in sft_rows(dataset, split)]
    made = [e for e in dataset.examples.filter(kind="decline") if e.question in ANSWERS]
    assert made
    for example in made:
        assert [context["rank"] for context in example.contexts] == [1, 2]  # as serving numbers them
        (row,) = [r for r in rows if example.question in r["prompt"][-1]["content"] and DECLINE in str(r["completion"])]
        assert ANSWERS[example.question].partition(" [")[0] not in row["prompt"][-1]["content"]


def test_weights_and_shuffling(assistant: Assistant) -> None:
    curate(assistant)
    dataset = build(
        assistant, synthesis=synthesise(assistant), weight_corrected=5, weight_good=3, weight_synthetic=2,
        shuffled_share=0.9, missing_oracle_share=0,
    )  # fmt: skip
    weights = {(e.origin, e.weight) for e in dataset.examples.all()}
    assert weights == {("corrected", 5), ("good", 3), ("declined", 3), ("synthetic", 2)}
    orders = {tuple((rank, sentence) for rank, sentence, _ in e.evidence) for e in dataset.examples.all()}
    assert len(orders) > 3
    assert {frozenset(order) for order in orders} == {frozenset((r, s) for r in (1, 2, 3) for s in (0, 1))}
    rows = list(sft_rows(dataset, "train"))
    assert {row["weight"] for row in rows} <= {2, 3, 5}
    for row in rows:
        assert row["prompt"][0]["role"] == "system"
        assert row["completion"][0]["content"]


def test_nothing_to_learn_from_is_said_with_what_to_do(assistant: Assistant) -> None:
    resolved(assistant, "Who won the football?", DECLINE)
    dataset = build(assistant)
    assert (dataset.state, dataset.rows) == ("failed", 0)
    assert dataset.error.startswith("No row with an answer is left. Label some turns")
    assert build(make_assistant()).state == "failed"
    assert Example.objects.count() == 0


def test_another_assistants_turns_stay_out(assistant: Assistant) -> None:
    curate(assistant)
    curate(make_assistant(decline_sentence=DECLINE, handoff_sentence=HANDOFF))
    dataset = build(assistant, missing_oracle_share=0)
    assert set(dataset.examples.values_list("turn__assistant", flat=True)) == {assistant.pk}


def test_one_turn_becomes_one_candidate_or_a_reason(assistant: Assistant) -> None:
    def candidate(response: str, **fields: Any) -> Candidate | Refused:
        turn = resolved(assistant, "What does leaving cost?", response, **fields)
        return from_turn(Turn.objects.with_contexts().get(pk=turn.pk), turn.resolution, assistant)

    declined = candidate(f"{DECLINE} [1]")
    assert isinstance(declined, Candidate)
    assert (declined.origin, declined.kind, declined.response) == ("declined", "decline", DECLINE)
    handed = candidate(HANDOFF, verdict="bad", logged="Go away.")
    assert isinstance(handed, Candidate)
    assert (handed.origin, handed.kind, handed.rejected) == ("corrected", "handoff", "Go away.")
    assert candidate("The exit fee is £99. [1]") == Refused("answer not supported by its passages")
    assert candidate("  ") == Refused("bad without a correction")
    assert candidate("The exit fee is £35. [1]", contexts=[]) == Refused("answer not supported by its passages")
    late = candidate("Send the figures before the dot only. [3]", contexts=list(CONTEXTS))
    assert late == Refused("the sentence that answers was not offered")
    assistant.prompt_style = "passages"
    shown_whole = candidate("Send the figures before the dot only. [3]", contexts=list(CONTEXTS))
    assert isinstance(shown_whole, Candidate)


def test_what_might_still_hold_the_answer_is_not_made_a_decline(assistant: Assistant) -> None:
    dataset = DatasetVersion(assistant=assistant)
    contexts = [
        {"rank": 1, "title": "A", "source": "a", "text": "The exit fee of a fixed plan is £35.", "relevant": True},
        {"rank": 2, "title": "B", "source": "b", "text": "The exit fee of a fixed plan counts.", "relevant": None},
    ]  # fmt: skip
    row = Candidate(
        origin="good", kind="answer", group="g", question="q", history=[], contexts=contexts,
        evidence=[[1, 0, 0.9], [2, 0, 0.4]],
        sentences=[{"text": "The exit fee of a fixed plan is £35.", "refs": [[1, 0]]}],
    )  # fmt: skip
    assert without_oracle(row, dataset.assistant) is None
    contexts[1]["text"] = "Read the meter on Monday."
    made = without_oracle(row, dataset.assistant)
    assert made is not None
    assert (made.evidence, made.kind, made.origin) == ([[2, 0, 0.4]], "decline", "declined")


def test_group_names_fit_their_column() -> None:
    assert group_name("document", "a.md") == "document:a.md"
    long = group_name("document", "x" * 500)
    assert len(long) <= MAX_GROUP
    assert long != group_name("document", "x" * 499 + "y")


@pytest.mark.parametrize(
    "values",
    [
        {"unknown": 1}, {"seed": "1"}, {"seed": True}, {"missing_oracle_share": 1.5}, {"weight_good": 0},
        {"near_duplicate": 0.2}, {"synthetic_per_curated": -1}, {"per_sentence_cap": 1.5},
    ],
)  # fmt: skip
def test_recipes_that_cannot_be_meant(values: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        Recipe.from_dict(values)
    assert Recipe.from_dict(Recipe(seed=4).as_dict()) == Recipe(seed=4)


def test_who_asked_for_it_is_not_part_of_it(assistant: Assistant, django_user_model: type[User]) -> None:
    curate(assistant)
    first = build(assistant)
    DatasetVersion.objects.filter(pk=first.pk).update(created_by=django_user_model.objects.create(username="x"))
    assert build(assistant).content_hash == first.content_hash


def test_where_passages_are_numbered_the_one_that_is_offered_stays_within_the_budget(assistant: Assistant) -> None:
    contexts = [
        {"rank": rank, "title": "T", "source": "", "text": text, "relevant": None}
        for rank, text in ((1, "The fee is £35."), (2, "Other words stand here."), (3, "And more of them."))
    ]
    row = Candidate(
        origin="imported", kind="answer", group="g", question="What is the fee?", history=[], contexts=contexts,
        evidence=[[2, 0, 0.9]], sentences=[{"text": "The fee is £35.", "refs": [[1, 0]]}],
    )  # fmt: skip
    assert _may_go(row, "passages") == [3]
    assert _may_go(replace(row, evidence=[[2, 0, 0.9], [1, 0, 0.8]]), "passages") == [3, 2]


def test_what_was_erased_while_it_was_built_is_not_listed_as_blocked(
    assistant: Assistant, monkeypatch: pytest.MonkeyPatch
) -> None:
    curate(assistant)
    asked = next(iter(ANSWERS))
    benchmark = make_benchmark(assistant)
    BenchmarkItem.objects.create(benchmark=benchmark, key="same", question=asked, kind="answer")
    dataset = build(assistant, benchmark=benchmark)
    assert [sorted(entry) for entry in dataset.blocked] == [["by", "item", "question", "score"]]

    def erasing(*args: Any) -> Any:
        Turn.objects.filter(question=asked).delete()
        return audit_lines(*args)

    monkeypatch.setattr("training.data.build.audit_lines", erasing)
    late = build(assistant, benchmark=benchmark)
    assert late.state == "failed"
    assert "erased while it was built" in late.error
    assert late.blocked == []


def test_a_follow_up_is_the_same_only_behind_the_same_question() -> None:
    def same(before: str) -> bytes:
        row = Candidate(
            origin="synthetic", kind="answer", group="g", question="And how much is that?", contexts=[], evidence=[],
            history=[{"role": "user", "content": before}], sentences=[],
        )  # fmt: skip
        return pool.add(row, None).same

    with Pool() as pool:
        assert same("Is there an exit fee?") == same("is there an exit fee")
        assert same("Is there an exit fee?") != same("Is there a late fee?")
