from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from generation.prompts import MAX_POINTER, House, is_decline, parse_answer, split_sentences
from training.base_model import facts, slots
from training.base_model.corpus import is_held_out, read_sections
from training.base_model.declines import decline_sentence
from training.base_model.lexicon import HELD_OUT_LEXICON, TRAIN_LEXICON, read_lexicon
from training.base_model.packing import FIRST, Packer, chat_text, encode
from training.base_model.phrasing import first_person
from training.base_model.questions import ask
from training.base_model.rows import Shards, attention_mask, make_batch
from training.base_model.sessions import HELD_OUT as HELD_OUT_STAGE
from training.base_model.sessions import STAGES, Example, Mix, examples
from training.base_model.tokenizer import CHAT_TEMPLATE, FIRST_POINTER, VOCABULARY
from training.base_model.worlds import Item, Line, World, handbook_world, list_world

MODEL = Path(__file__).parents[3] / "models" / "base"
TRAIN = read_lexicon(TRAIN_LEXICON)
HELD_OUT = read_lexicon(HELD_OUT_LEXICON)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def _worlds(count: int, seed: int = 3) -> Iterator[World]:
    rng = random.Random(seed)
    for _ in range(count):
        yield handbook_world(rng, rng.choice(TRAIN))


def _examples(count: int, stage: str = "2") -> list[Example]:
    rng = random.Random(4)
    found: list[Example] = []
    for world in _worlds(count):
        shape = (len(world.items), len(world.lines))
        found += examples(rng, world, np.random.default_rng(0).random(shape, dtype=np.float32), STAGES[stage])
    return found


def test_every_kind_of_value_exists() -> None:
    rng = random.Random(0)
    for domain in [*TRAIN, *HELD_OUT]:
        for _, kind in domain.properties:
            assert slots.value(kind, rng)
    with pytest.raises(ValueError, match="unknown kind"):
        slots.value("colour", rng)


def test_held_out_domains_are_not_trained_on() -> None:
    assert len(HELD_OUT) >= 5
    assert not {d.name for d in TRAIN} & {d.name for d in HELD_OUT}
    learned = {action for d in TRAIN for action in d.actions}
    shared = learned & {a for d in HELD_OUT for a in d.actions}
    assert len(shared) < 0.1 * sum(len(d.actions) for d in HELD_OUT)


def test_incomplete_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("@ shop: Rules\ne: card\n", encoding="utf-8")
    with pytest.raises(ValueError, match="'shop' lacks"):
        read_lexicon(path)


def test_sentences_reach_the_prompt_whole() -> None:
    for world in _worlds(30):
        assert all(split_sentences(line.text) == [line.text] for line in world.lines)


def test_answers_hold_the_value_that_was_asked_for() -> None:
    rng = random.Random(2)
    for domain in TRAIN:
        fact = facts.property_fact(rng, domain.things[0], domain.properties[0])
        assert all(fact.short.casefold() in text.casefold() for text, _ in fact.stated)
        assert fact.short in fact.canonical


def test_readers_speak_of_themselves() -> None:
    assert first_person("you are late for your tour") == "I am late for my tour"


def test_questions_from_natural_sentences() -> None:
    asked = [ask("If the server is stopped, all sessions are closed at once.", random.Random(i)) for i in range(20)]
    assert any(
        a and a.question in ("What happens if the server is stopped?", "What if the server is stopped?") for a in asked
    )
    closed = [ask("The index cannot be used before the table is loaded.", random.Random(i)) for i in range(40)]
    assert {a.opening for a in closed if a} >= {"No"}


def test_declines_vary_widely() -> None:
    rng = random.Random(1)
    assert len({decline_sentence(rng) for _ in range(500)}) > 400


def test_completions_read_back_as_intended() -> None:
    found = _examples(40)
    declined = 0
    for example in found:
        for branch in example.branches:
            if branch.writes_question:
                continue
            if not branch.gold:
                declined += 1
                assert is_decline(branch.completion, example.decline)
            else:
                assert branch.completion.startswith(f"[{branch.gold[0]}] ")
                assert max(branch.gold) <= len(example.evidence)
    share = declined / sum(len(e.branches) for e in found)
    assert 0.08 < share < 0.36


def test_a_declined_question_has_no_value_to_hold() -> None:
    assert all(e.branches[0].gold or not e.branches[0].key for e in _examples(40, HELD_OUT_STAGE))


def test_one_example_is_what_serving_would_send(tokenizer: Tokenizer) -> None:
    from transformers import AutoTokenizer

    served = AutoTokenizer.from_pretrained(MODEL, local_files_only=True)
    assert served.chat_template == CHAT_TEMPLATE
    for example in _examples(6):
        for branch in example.branches:
            text = served.apply_chat_template(list(branch.messages), tokenize=False, add_generation_prompt=True)
            assert text == chat_text(branch.messages)


def test_branches_read_like_single_prompts(tokenizer: Tokenizer) -> None:
    example = next(e for e in _examples(60, "1") if len(e.branches) > 2)
    row = encode(tokenizer, example)
    for number, branch in enumerate(example.branches, start=1):
        ids = [t for t, b in zip(row.ids, row.branches, strict=True) if b in (0, number)]
        positions = [p for p, b in zip(row.positions, row.branches, strict=True) if b in (0, number)]
        text = chat_text(branch.messages)
        expected = tokenizer.encode(text, add_special_tokens=False).ids
        assert ids[: len(expected)] == expected
        assert positions == list(range(len(ids)))
    assert row.codes.count(FIRST) == len(example.branches)


def test_examples_of_a_row_do_not_see_each_other(tokenizer: Tokenizer) -> None:
    packer = Packer(512)
    for example in _examples(10):
        packer.add(encode(tokenizer, example))
    arrays = packer.arrays()
    groups, branches = (
        torch.from_numpy(arrays["groups"].astype(np.int64)),
        torch.from_numpy(arrays["branches"].astype(np.int64)),
    )
    allowed = attention_mask(groups, branches)[:, 0]
    assert not bool((allowed & (groups[:, :, None] != groups[:, None, :])).any())
    foreign = (branches[:, None, :] != 0) & (branches[:, :, None] != branches[:, None, :])
    assert not bool((allowed & foreign).any())
    assert bool(allowed.diagonal(dim1=1, dim2=2).all())


def test_batches_weigh_answers_only_in_validation(tokenizer: Tokenizer) -> None:
    packer = Packer(512)
    for example in _examples(5):
        packer.add(encode(tokenizer, example))
    batch = make_batch(packer.arrays())
    assert set(batch.weights.unique().tolist()) == {0.0, 1.0}
    assert bool((batch.weights[:, -1] == 0).all())


def test_missing_shards_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no shard of stage 1"):
        Shards(tmp_path, "1", 0).next_rows(1)


def test_anything_can_be_copied(tokenizer: Tokenizer) -> None:
    rng = random.Random(5)
    texts = [slots.odd_string(rng) for _ in range(200)] + ["£35.20 – naïve façade 東京 😀 [2]"]
    for text in texts:
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_sentence_numbers_are_single_tokens(tokenizer: Tokenizer) -> None:
    ids = [tokenizer.encode(f"[{n}]", add_special_tokens=False).ids for n in range(1, MAX_POINTER + 1)]
    assert ids == [[FIRST_POINTER + n] for n in range(MAX_POINTER)]
    assert tokenizer.get_vocab_size() <= VOCABULARY


def test_manual_pages(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text(
        "<h1>1.2. Limits</h1><p>The server keeps at most ten open sessions for each user. Too short.</p>"
        "<pre>code is skipped here entirely and never read</pre>", encoding="utf-8",
    )  # fmt: skip
    sections = list(read_sections(tmp_path))
    assert [s.title for s in sections] == ["Limits"]
    assert sections[0].sentences == ("The server keeps at most ten open sessions for each user.",)
    with pytest.raises(FileNotFoundError, match="no manual pages"):
        list(read_sections(tmp_path / "nothing"))


def test_held_out_pages_are_a_small_fixed_share() -> None:
    held = [is_held_out(f"page{n}.html") for n in range(2000)]
    assert 0.01 < sum(held) / len(held) < 0.06
    assert held == [is_held_out(f"page{n}.html") for n in range(2000)]


def test_lists_ask_for_what_is_missing_too() -> None:
    rng = random.Random(6)
    words = [slots.invented_word(rng) for _ in range(300)]
    items = [item for _ in range(40) for item in list_world(rng, words).items]
    assert 0.02 < sum(not item.gold for item in items) / len(items) < 0.4


def test_an_answer_parses_back_to_its_sentences() -> None:
    from generation.prompts import PromptPassage, SentenceRef, build_prompt

    house = House(decline="No answer.")
    prompt = build_prompt(
        house=house,
        question="q",
        passages=[PromptPassage(1, "T", "A fee of £3 applies.")],
        evidence=[SentenceRef(1, 0)],
    )
    assert parse_answer(house=house, prompt=prompt, completion="[1] A fee of £3 applies.").citations == (
        SentenceRef(1, 0),
    )


def test_lists_string_any_token_together() -> None:
    rng = random.Random(7)
    words = [slots.invented_word(rng) for _ in range(300)]
    pieces = [f" p{n}x" for n in range(400)]
    text = " ".join(line.text for _ in range(120) for line in list_world(rng, words, pieces).lines)
    assert sum(piece.strip() in text for piece in pieces) > 390


def test_some_lists_hold_texts_as_long_as_sentences() -> None:
    rng = random.Random(9)
    words = [slots.invented_word(rng) for _ in range(300)]
    lengths = [len(line.text.split()) for _ in range(60) for line in list_world(rng, words).lines]
    assert max(lengths) <= 60
    assert 0.05 < sum(length > 14 for length in lengths) / len(lengths) < 0.5


def test_only_questions_that_people_ask_are_written() -> None:
    rng = random.Random(10)
    gold = ((0, "The pool opens at 7."),)
    asked = [
        Item("When does the pool open?", gold),
        Item("When does it open?", gold),
        Item("What is said about pool and 7?", gold),
        Item("How early may I swim?", gold),
    ]

    def written(natural: bool) -> set[str]:
        world = World([Line(0, "Pool", "The pool opens at 7.")], asked, natural=natural)
        everything = Mix(shuffled=0, branches=1, written=1.0)
        found = examples(rng, world, np.ones((len(asked), 1), np.float32), everything)
        return {b.completion for e in found for b in e.branches if b.writes_question}

    assert written(natural=True) == {"When does the pool open?"}
    assert written(natural=False) == set()


def test_things_take_any_word_as_their_name() -> None:
    rng = random.Random(8)
    words = [f"Zzword{n}" for n in range(50)]
    worlds = [handbook_world(rng, rng.choice(TRAIN), words=words) for _ in range(20)]
    assert any("Zzword" in item.question for world in worlds for item in world.items if item.gold)
