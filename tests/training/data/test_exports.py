"""Every export loads in what it is made for: `datasets`, TRL's trainers, Parquet readers; none costs memory by rows."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from assistants.models import Assistant
from tests.factories import make_assistant
from tests.tiny_model import shared_base
from tests.training.data.test_build import ANSWERS, HANDOFF, build, resolved
from training.data.exports import (
    NothingToExport,
    check_rows,
    folder_pieces,
    openai_lines,
    own_lines,
    parquet_pieces,
    trl_lines,
)
from training.data.recipe_file import read_recipe
from training.models import DatasetVersion

DECLINE = "I can't find that in the documents."


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant(decline_sentence=DECLINE, handoff_sentence=HANDOFF)


@pytest.fixture
def dataset(assistant: Assistant) -> DatasetVersion:
    for i, (question, answer) in enumerate(ANSWERS.items()):
        resolved(assistant, question, answer, verdict="bad" if i % 2 else "good", logged="Nobody knows. [2]" * (i % 2))
    resolved(assistant, "Is it free?", "", verdict="bad", logged="It costs £99. [1]")
    made: DatasetVersion = build(assistant, missing_oracle_share=0, validation_share=0, weight_corrected=2)
    assert made.state == "succeeded", made.error
    return made


def rows(pieces: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in b"".join(pieces).decode().splitlines()]


def test_openai_rows_are_repeated_by_their_weight(dataset: DatasetVersion) -> None:
    chats = rows(openai_lines(dataset, "train", "sft"))
    assert len(chats) == 3 + 2 * 3
    for chat in chats:
        assert [m["role"] for m in chat["messages"]] == ["system", "user", "assistant"]
        assert set(chat) == {"messages"}
    pairs = rows(openai_lines(dataset, "train", "dpo"))
    assert len(pairs) == 2 * 3
    assert set(pairs[0]) == {"input", "preferred_output", "non_preferred_output"}
    assert pairs[0]["non_preferred_output"][0]["content"] == "[3] Nobody knows."


def test_parquet_is_read_back(dataset: DatasetVersion) -> None:
    import pyarrow.parquet as pq

    for method, columns in (
        ("sft", ["prompt", "completion", "weight"]),
        ("kto", ["prompt", "completion", "label", "weight"]),
        ("dpo", ["prompt", "chosen", "rejected", "weight"]),
    ):
        chosen: Any = method
        table = pq.read_table(io.BytesIO(b"".join(parquet_pieces(dataset, "train", chosen))))
        assert table.column_names == columns
        assert table.to_pylist() == rows(trl_lines(dataset, "train", chosen))


def test_the_folder_loads_with_datasets_and_its_recipe_builds_again(dataset: DatasetVersion, tmp_path: Path) -> None:
    from datasets import load_dataset

    data = b"".join(folder_pieces(dataset, "", "sft"))
    assert data == b"".join(folder_pieces(dataset, "", "sft"))  # the same version, the same bytes
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [
            "README.md", "dpo/train.jsonl", "kto/train.jsonl", "recipe.yaml", "sft/train.jsonl",
        ]  # fmt: skip
        archive.extractall(tmp_path / "set")
    card = (tmp_path / "set" / "README.md").read_text()
    head = yaml.safe_load(card.split("---")[1])
    assert [config["config_name"] for config in head["configs"]] == ["sft", "kto", "dpo"]
    assert dataset.content_hash in card
    assert "Nobody knows" not in card
    assert read_recipe((tmp_path / "set" / "recipe.yaml").read_text()).as_dict() == dataset.recipe
    for name, count in (("sft", 6), ("kto", 6 + 4), ("dpo", 3)):
        loaded = load_dataset(str(tmp_path / "set"), name, cache_dir=str(tmp_path / "cache"))
        assert loaded["train"].num_rows == count


def test_what_has_no_rows_for_a_method_says_so(assistant: Assistant, dataset: DatasetVersion) -> None:
    for method in ("sft", "kto", "dpo"):
        chosen: Any = method
        check_rows(dataset, "train", chosen)
    with pytest.raises(NothingToExport, match="no validation rows"):
        check_rows(dataset, "validation", "sft")
    one_class = build(assistant, corrected="learn", bad="leave out", missing_oracle_share=0, validation_share=0)
    with pytest.raises(NothingToExport, match="one class, and KTO needs both: there is no undesirable one"):
        check_rows(one_class, "train", "kto")
    with pytest.raises(NothingToExport, match="hold no pairs"):
        check_rows(one_class, "train", "dpo")


def test_each_method_takes_a_step_in_trl(dataset: DatasetVersion, tmp_path: Path) -> None:
    """The tiny random model, one step each: the columns are what the trainers want, and no row is dropped."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

    base = str(shared_base())
    shared: dict[str, Any] = {
        "output_dir": str(tmp_path), "max_steps": 1, "per_device_train_batch_size": 2, "report_to": "none",
        "bf16": False, "use_cpu": True, "gradient_checkpointing": False, "max_length": 1024, "save_strategy": "no",
    }  # fmt: skip
    for method, config, trainer in (
        ("sft", SFTConfig, SFTTrainer),
        ("kto", KTOConfig, KTOTrainer),
        ("dpo", DPOConfig, DPOTrainer),
    ):
        chosen: Any = method
        exported = rows(trl_lines(dataset, "train", chosen))
        made = trainer(
            model=AutoModelForCausalLM.from_pretrained(base),
            args=config(**shared),
            train_dataset=Dataset.from_list(exported),
            processing_class=AutoTokenizer.from_pretrained(base),
            peft_config=LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        assert len(made.train_dataset) == len(exported), method
        assert made.train().training_loss > 0, method


def test_our_own_format_loses_nothing(dataset: DatasetVersion) -> None:
    found = {row["question"]: row for row in rows(own_lines(dataset, "train", "sft"))}
    for example in dataset.examples.all():
        row = found[example.question]
        assert (row["contexts"], row["evidence"]) == (example.contexts, example.evidence)
        assert (row["sentences"], row["rejected"], row["weight"]) == (
            example.sentences, example.rejected, example.weight,
        )  # fmt: skip
