"""Can an adapter still learn on this base? ``python -m training.base_model.headroom --model models/base ...``.

Trains one LoRA adapter (the project's own recipe, its defaults) on questions about handbooks of held-out domains and
answers, before and after, rows that it was trained on and rows of other handbooks.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.base_model.evaluate import Answerer, answer_all, held_out_examples
from training.base_model.generate import Source
from training.base_model.ranking import Ranker
from training.base_model.scoring import score
from training.base_model.sessions import Example
from training.finetune.recipe import main as finetune
from training.finetune.rows import write_rows


def as_row(example: Example) -> dict[str, Any]:
    branch = example.branches[0]
    return {
        "prompt": [dict(m) for m in branch.messages],
        "completion": [{"role": "assistant", "content": branch.completion}],
    }


def train_adapter(rows: Sequence[Example], *, model: Path, folder: Path, settings: dict[str, Any]) -> Path:
    """Trains through the recipe and returns the adapter folder.

    Raises:
        RuntimeError: the recipe reported an error.
    """
    write_rows(folder / "train.jsonl", map(as_row, rows))
    job = {
        "train": str(folder / "train.jsonl"),
        "base": str(model),
        "base_name": model.name,
        "work": str(folder / "work"),
        "output": str(folder / "adapter"),
        "seed": 1,
        "settings": settings,
        "base_digest": "",
        "prompt_digest": "",
    }
    (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
    if code := finetune(folder / "job.json"):
        raise RuntimeError(f"the recipe ended with code {code}")
    return folder / "adapter"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--manuals", type=Path, required=True, help="folder with the unpacked documentation packages")
    parser.add_argument("--rows", type=int, default=200, help="rows to train on")
    parser.add_argument("--probe", type=int, default=60, help="trained and other rows to answer")
    parser.add_argument("--settings", type=json.loads, default={"threads": 1}, help="recipe settings as JSON")
    options = parser.parse_args(argv)
    source, ranker = Source(options.manuals, held_out=True), Ranker()
    rows = held_out_examples(source, ranker, "handbook", options.rows, 11)
    other = held_out_examples(source, ranker, "handbook", options.probe, 12)
    probes = {"trained rows": rows[: options.probe], "other rows": other}
    _report(probes, Answerer(options.model), "base")
    with tempfile.TemporaryDirectory() as temporary:
        started = time.monotonic()
        adapter = train_adapter(rows, model=options.model, folder=Path(temporary), settings=options.settings)
        print(json.dumps({"seconds": round(time.monotonic() - started)}), flush=True)
        _report(probes, Answerer(options.model, adapter), "with adapter")
    return 0


def _report(probes: dict[str, list[Example]], answerer: Answerer, name: str) -> None:
    for kind, found in probes.items():
        scores = score(found, answer_all(answerer, found))
        print(json.dumps({"rows": kind, "answers": name, **asdict(scores)}), file=sys.stdout, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
