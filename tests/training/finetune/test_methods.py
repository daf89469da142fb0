"""DPO, KTO and chains as the recipe's processes: what they learn, what they refuse, how they go on after a kill."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.training.finetune.conftest import labelled_row, pair_row
from tests.training.finetune.test_recipe import of, run, weights
from training.finetune.bits import why_not_four_bits
from training.finetune.config import ConfigError, FinetuneConfig
from training.finetune.job import Job, read_material
from training.finetune.lora import adapt
from training.finetune.methods import Counts, recommend, shortage
from training.finetune.preferences import LabelledTokens, with_mismatches
from training.finetune.recipe import _facts_of
from training.finetune.rows import RowsError

Write = Callable[..., Path]
STRONG = {"preference_learning_rate": 5e-3, "preference_epochs": 4.0}


def manifest(config: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((config.parent / "adapter" / "manifest.json").read_text())
    return found


def test_kto_learns_to_tell_good_from_bad_and_resumes_to_the_same_weights(write_job: Write) -> None:
    whole, killed = (write_job(name=name, method="kto", **STRONG) for name in ("whole", "killed"))
    code, events = run(whole)
    assert code == 0
    (begin,) = of("start", events)
    assert (begin["method"], begin["good_rows"], begin["bad_rows"]) == ("kto", 8, 4)
    assert begin["settings"]["undesirable_weight"] == 2.0
    assert any("A bad row weighs 2" in sentence for sentence in begin["why"])
    margins = [event["measures"]["margin"] for event in of("step", events) if "margin" in event["measures"]]
    assert margins[-1] > margins[0] + 0.1
    assert of("validation", events)
    assert of("samples", events)[0]["samples"]

    assert run(killed, send=signal.SIGKILL)[0] == -signal.SIGKILL
    code, after = run(killed)
    assert code == 0
    assert of("start", after)[0]["resumed_from"] > 0
    assert weights(whole) == weights(killed)


def test_a_chain_is_one_adapter_and_resumes_in_its_second_stage(write_job: Write) -> None:
    whole, killed = (write_job(name=name, method="sft+dpo", learning_rate=5e-3, **STRONG) for name in ("w", "k"))
    code, events = run(whole)
    assert code == 0
    assert [event["method"] for event in of("start", events)] == ["sft", "dpo"]
    steps = [event["step"] for event in of("step", events)]
    assert steps == list(range(1, len(steps) + 1))  # one run, one curve
    assert {event["steps"] for event in of("step", events)} == {len(steps)}
    told = manifest(whole)
    assert (told["method"], [stage["method"] for stage in told["stages"]]) == ("sft+dpo", ["sft", "dpo"])
    assert told["stages"][1]["margins"]["last"] > told["stages"][1]["margins"]["first"]
    card = (whole.parent / "adapter" / "README.md").read_text()
    assert "tags: [lora, sft, dpo, ratchet]" in card
    assert "pairs (DPO), beta 0.1" in card
    assert not any(".ref." in name for name in load_file(whole.parent / "adapter" / "adapter_model.safetensors"))

    # The first checkpoint of the second stage has the number of a step of the whole run.
    first = of("start", events)[1]["done"]
    code, before = run(killed, send=signal.SIGKILL, when=lambda e: e["event"] == "checkpoint" and e["step"] > first)
    assert code == -signal.SIGKILL
    assert of("start", before)[-1]["method"] == "dpo"
    kept = killed.parent / "work" / "1-sft" / "ended.json"
    whole_facts = kept.read_bytes()
    kept.write_text("{")  # cut by a power failure: the stage has not ended, as far as one can tell
    assert _facts_of(kept.parent) is None
    kept.write_bytes(whole_facts)
    code, after = run(killed)
    assert code == 0
    assert [event["method"] for event in of("start", after)] == ["dpo"]  # the first stage is not done twice
    assert weights(whole) == weights(killed)


def test_it_goes_on_from_an_adapter_with_that_one_as_the_reference(write_job: Write) -> None:
    first = write_job(name="first", learning_rate=5e-3, rank=3, alpha=5)
    assert run(first)[0] == 0
    second = write_job(name="second", method="dpo", parent=first.parent / "adapter", rank=8, **STRONG)
    code, events = run(second)
    assert code == 0
    # At the first step the model is its own reference: no preference has a margin, so the loss is ln 2 (and the
    # supervised term of the answers).
    begin = of("step", events)[0]
    assert begin["measures"]["margin"] == pytest.approx(0, abs=1e-4)
    told = manifest(second)
    assert (told["settings"]["rank"], told["settings"]["alpha"]) == (3, 5)  # the parent's, not what was asked for
    assert told["parent"]["weights_sha256"] == weights(first)
    assert any("that it continues" in sentence for sentence in told["why"])


def test_an_adapter_of_another_base_is_not_continued(write_job: Write, base: Path) -> None:
    from tests.tiny_model import make_tiny_adapter, make_tiny_base

    stranger = make_tiny_adapter(make_tiny_base(base.parent / "other", seed=9), base.parent / "stranger")
    code, events = run(write_job(parent=stranger))
    assert code == 2
    assert "another base model" in events[-1]["message"]


@pytest.mark.parametrize(
    ("method", "rows", "words"),
    [
        ("kto", [{**labelled_row(i), "label": True} for i in range(6)], "no bad one"),
        ("kto", [{**labelled_row(i), "label": False} for i in range(6)], "no good one"),
        ("kto", [{**labelled_row(i), "label": "yes"} for i in range(6)], "true or false"),
        ("dpo", [{**pair_row(i), "rejected": [{"role": "assistant", "content": " "}]} for i in range(6)], "dropped"),
        ("dpo", [{**pair_row(i), "weight": 0} for i in range(6)], "weight"),
        ("dpo", [labelled_row(i) for i in range(6)], "no preference row"),
    ],
)
def test_rows_that_do_not_suit_are_refused_before_anything_starts(
    write_job: Write, method: str, rows: list[dict[str, Any]], words: str
) -> None:
    if words == "no preference row":
        words = "is not a preference row"
    job = Job.read(write_job(method=method, preferences=rows))
    with pytest.raises(RowsError, match=words):
        read_material(job, method)  # type: ignore[arg-type]


def test_a_preference_row_that_would_be_cut_is_refused(write_job: Write) -> None:
    job = Job.read(write_job(method="dpo", max_length=64))
    with pytest.raises(RowsError, match=r"12|14 of 1\d preference rows are longer than 64 tokens"):
        read_material(job, "dpo")


def test_the_partner_of_a_row_has_another_prompt() -> None:
    def row(prompt: int, answer: int, label: bool = True) -> LabelledTokens:
        return LabelledTokens([prompt] * 3, [answer], label)

    rows = [row(1, 1), row(1, 1), row(2, 2), row(3, 3), row(1, 4, label=False)]  # five rows: one is alone at the end
    for record in with_mismatches(rows, batch=2, seed=3):
        others = {answer.completion_ids[0] for answer in rows if answer.prompt_ids != record["prompt_ids"]}
        assert record["KL_completion_ids"][0] in others


def test_presets_say_why() -> None:
    assert recommend(Counts(sft=400, pairs=20, good=100, bad=30))[0] == "sft"
    method, why = recommend(Counts(sft=400, pairs=300, good=900, bad=300))
    assert (method, why) == ("sft+dpo", "300 pairs are enough (300) to teach what to prefer.")
    assert recommend(Counts(sft=400, pairs=20, good=450, bad=60))[0] == "sft+kto"
    assert recommend(Counts(sft=400, pairs=20, good=600, bad=49))[0] == "sft"  # too few of one class
    assert "no pairs" in shortage("sft+dpo", Counts(sft=3))
    assert "no bad one" in shortage("kto", Counts(good=3))
    assert shortage("sft", Counts(sft=3)) == ""


def test_dora_and_four_bits_are_refused_in_one_sentence(write_job: Write) -> None:
    with pytest.raises(ConfigError, match="dora is not possible here"):
        FinetuneConfig(dora=True)
    if not why_not_four_bits():
        pytest.skip("this machine has a GPU")
    job = Job.read(write_job(quantise=True))
    with pytest.raises(ConfigError, match="needs a CUDA device"):
        adapt(job, read_material(job))
