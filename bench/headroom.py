"""Does an adapter still gain on this base model? Several seeds on the demo's data, each against the same benchmark.

    make bench-headroom ARGS='--seeds 1,2,3'

Runs the demo's steps up to the dataset (what is there is used), then one training and one evaluation per seed. ``fits``
is the share of training rows that the adapter answers word for word. Recipes are chosen with ``--development`` and
``--settings``; the other benchmark is for reporting.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

if TYPE_CHECKING:
    from assistants.models import Assistant
    from training.models import Adapter, Benchmark, DatasetVersion, Evaluation

PROBED = 80
"""Training rows that the adapter answers."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1,2,3", help="Seeds of the training, with commas (%(default)s).")
    parser.add_argument("--ask-always", action="store_true", help="Without the demo's threshold for declining.")
    parser.add_argument("--development", action="store_true", help="Use the questions for choosing recipes.")
    parser.add_argument("--settings", type=json.loads, default={}, help="Settings of the training as JSON.")
    parser.add_argument("--recipe", type=json.loads, default={}, help="Settings of the dataset as JSON.")
    options = parser.parse_args()
    import django

    django.setup()
    from _report import report

    from serving.demo.platform_process import Platform

    with Platform() as platform:
        platform.start()
        report("headroom", run(platform.url, options))


def run(url: str, options: argparse.Namespace) -> dict[str, Any]:
    from serving.demo import steps

    assistant, benchmark, dataset = prepared(
        url, development=options.development, recipe=options.recipe, ask_always=options.ask_always
    )
    rows = []
    for seed in map(int, options.seeds.split(",")):
        started = time.monotonic()
        adapter = steps.run_step(assistant, dataset, _quiet, seed=seed, settings=options.settings)
        trained = time.monotonic() - started
        evaluation = steps.evaluation_step(assistant, adapter, benchmark, _quiet)
        rows.append({"seed": seed, "train_s": round(trained), **figures(evaluation), "fits": fits(adapter, dataset)})
        print(json.dumps(rows[-1]), flush=True)
    return {
        "rows": dataset.rows,
        "threshold": assistant.evidence_threshold,
        "benchmark": benchmark.name,
        "items": benchmark.items.count(),
        "seeds": rows,
    }


def prepared(
    url: str, *, development: bool, recipe: dict[str, Any] | None = None, ask_always: bool = False
) -> tuple[Assistant, Benchmark, DatasetVersion]:
    """The demo's steps up to the dataset; what is there is used."""
    import httpx

    from serving.demo import steps

    assistant = steps.assistant_step()
    headers = {"Authorization": f"Bearer {steps.frontend_key(assistant)}"}
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        steps.documents_step(assistant, _quiet)
        if not ask_always:
            steps.calibrate_step(assistant, _quiet)
        steps.log_step(assistant, client, _quiet)
        steps.scrub_step(assistant, client, _quiet)
    steps.labels_step(assistant, _quiet)
    benchmark = steps.benchmark_step(assistant, _quiet, development=development)
    synthesis = steps.synthesis_step(assistant, _quiet)
    return assistant, benchmark, steps.dataset_step(assistant, benchmark, synthesis, _quiet, recipe=recipe)


def _rounded(value: float | None) -> float | None:
    """None: the criterion could not be shown."""
    return None if value is None else round(value, 3)


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """Today, candidate, their paired difference with its interval, and the guardrails."""
    primary = evaluation.comparison["grounded_correct"]["difference"]
    shares = {arm: evaluation.results[arm]["clean"]["grounded_correct"]["value"] for arm in ("base_rag", "adapter_rag")}
    return {
        "today": round(shares["base_rag"], 3),
        "candidate": round(shares["adapter_rag"], 3),
        "difference": [round(primary[name], 3) for name in ("value", "low", "high")],
        "verdict": evaluation.verdict,
        "gate": {line["label"]: [_rounded(line["value"]), line["passed"]] for line in evaluation.gate},
    }


def fits(adapter: Adapter, dataset: DatasetVersion) -> float:
    """Share of `PROBED` training rows that the adapter answers to the letter."""
    from django.conf import settings

    from generation.engines import GenerationRequest
    from training.data.render import sft_rows
    from training.engine import bulk_engine
    from training.models import Example

    engine = bulk_engine()
    engine.load_adapter(adapter.engine_name, Path(settings.VAR_DIR) / adapter.folder)
    rows = list(sft_rows(dataset, Example.Split.TRAIN))
    picked = random.Random(0).sample(rows, min(PROBED, len(rows)))
    requests = [GenerationRequest(messages=row["prompt"], adapter=adapter.engine_name) for row in picked]
    said = [result.text.strip() for result in engine.generate(requests)]
    return round(
        sum(s == r["completion"][0]["content"].strip() for s, r in zip(said, picked, strict=True)) / len(said), 3
    )


def _quiet(done: int, total: int, what: str) -> None:
    """No progress: the figures are what counts here."""


if __name__ == "__main__":
    main()
