"""A tiny random base, and frozen datasets to train it on."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from assistants.models import Assistant
from generation.adapters import base_digest
from tests.annotations.test_accessibility import axe
from tests.factories import make_assistant
from tests.tiny_model import make_tiny_base
from training.models import DatasetVersion, Example, Run

__all__ = ["axe"]

_numbers = itertools.count(1)

QUICK: dict[str, Any] = {
    "rank": 4,
    "alpha": 8,
    "epochs": 2.0,
    "batch": 4,
    "threads": 1,
    "precision": "fp32",
    "sample_rows": 1,
    "sample_tokens": 8,
    "checkpoint_steps": 2,
}


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("bases") / "tiny")


@pytest.fixture
def run_settings(settings: Any, base: Path, tmp_path: Path, var_dir: Path) -> Any:
    settings.RATCHET_BASE_MODEL = str(base)
    settings.RATCHET_RUNS_DIR = tmp_path / "runs"
    settings.RATCHET_ADAPTERS_DIR = tmp_path / "adapters"
    settings.LOG_DIR = tmp_path / "log"
    return settings


def make_dataset(assistant: Assistant, *, rows: int = 12, validation: int = 2, **fields: Any) -> DatasetVersion:
    """A frozen dataset whose rows ask for the fee of one of four plans."""
    dataset = DatasetVersion.objects.create(
        assistant=assistant,
        number=next(_numbers),
        content_hash="c" * 64,
        rows=rows + validation,
        **{"state": DatasetVersion.State.SUCCEEDED, "prompt_digest": assistant.prompt_digest, **fields},
    )
    Example.objects.bulk_create(
        example(dataset, i, Example.Split.TRAIN if i < rows else Example.Split.VALIDATION)
        for i in range(rows + validation)
    )
    return dataset


def example(dataset: DatasetVersion, i: int, split: str) -> Example:
    text = " ".join(f"Plan {n} costs £{10 + (i * 7 + n) % 80}." for n in range(4))
    wanted = f"Plan {i % 4} costs £{10 + (i * 7 + i % 4) % 80}."
    return Example(
        dataset=dataset,
        position=i,
        split=split,
        origin="good",
        kind="answer",
        group=f"conversation:{i}",
        weight=1 + (i == 0),
        question=f"What does plan {i % 4} cost?",
        contexts=[{"rank": 1, "title": "Plans", "source": "plans.md", "text": text, "relevant": True}],
        documents=["plans.md"],
        evidence=[[1, n, 0.5] for n in range(4)],
        sentences=[{"text": wanted, "refs": [[1, i % 4]]}],
        digest=f"{i:064d}",
    )


def make_run(dataset: DatasetVersion, base: Path, **settings: Any) -> Run:
    return Run.objects.create(
        assistant=dataset.assistant,
        dataset=dataset,
        settings={**QUICK, **settings},
        base_model=str(base),
        prompt_digest=dataset.assistant.prompt_digest,
    )


@pytest.fixture
def dataset(db: None) -> DatasetVersion:
    return make_dataset(make_assistant())


@pytest.fixture
def write_job(base: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a recipe's CONFIG.json with its rows, without any database."""

    def write(
        rows: list[dict[str, Any]] | None = None,
        *,
        name: str = "job",
        method: str = "sft",
        preferences: list[dict[str, Any]] | None = None,
        parent: Path | None = None,
        **settings: Any,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        liked = preferences or [(pair_row if method.endswith("dpo") else labelled_row)(i) for i in range(14)]
        (folder / "preferences.jsonl").write_text("\n".join(map(json.dumps, liked[:-2])))
        (folder / "held.jsonl").write_text("\n".join(map(json.dumps, liked[-2:])))
        made = [plain_row(i) for i in range(12)] if rows is None else rows
        (folder / "train.jsonl").write_text("\n".join(map(json.dumps, made)))
        (folder / "validation.jsonl").write_text("\n".join(json.dumps(plain_row(i)) for i in range(12, 14)))
        config = {
            "train": str(folder / "train.jsonl"),
            "validation": str(folder / "validation.jsonl"),
            "method": method,
            "preferences": None if method == "sft" else str(folder / "preferences.jsonl"),
            "held_preferences": None if method == "sft" else str(folder / "held.jsonl"),
            "parent": str(parent) if parent else None,
            "base": str(base),
            "base_name": "models/tiny",
            "work": str(folder / "work"),
            "output": str(folder / "adapter"),
            "seed": 3,
            "settings": {**QUICK, **settings},
            "base_digest": base_digest(base),
            "prompt_digest": "0123456789abcdef",
        }
        (folder / "config.json").write_text(json.dumps(config))
        return folder / "config.json"

    return write


def plain_row(i: int, *, words: int = 12) -> dict[str, Any]:
    lines = "\n".join(f"[{n}] Plan {n} costs £{10 + (i * 7 + n) % 80}." for n in range(1, 5))
    pad = " ".join(["please"] * words)
    return {
        "prompt": [
            {"role": "system", "content": "Answer from the passages and cite them."},
            {
                "role": "user",
                "content": f"Passages:\n# Plans\n{lines}\n\nQuestion: {pad} what does plan {1 + i % 4} cost?",
            },
        ],
        "completion": [
            {"role": "assistant", "content": f"[{1 + i % 4}] Plan {1 + i % 4} costs £{10 + (i * 7 + 1 + i % 4) % 80}."}
        ],
    }


def pair_row(i: int) -> dict[str, Any]:
    """The right price before another plan's."""
    row = plain_row(i)
    wrong = f"[{1 + (i + 1) % 4}] Plan {1 + (i + 1) % 4} costs £{10 + (i * 7 + 1 + (i + 1) % 4) % 80}."
    return {
        "prompt": row["prompt"],
        "chosen": row["completion"],
        "rejected": [{"role": "assistant", "content": wrong}],
    }


def labelled_row(i: int) -> dict[str, Any]:
    """Two of three are good."""
    pair, good = pair_row(i), i % 3 != 1
    return {"prompt": pair["prompt"], "completion": pair["chosen" if good else "rejected"], "label": good}
