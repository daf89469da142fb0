"""Which method wins on the same labels: SFT, SFT → KTO or SFT → DPO, on the demo's data?

    make bench-methods ARGS='--seeds 1,2,3'

Runs the demo's steps up to the dataset (what is there is used). For each seed one supervised adapter is trained, and
KTO and DPO each go on from that very adapter, with labels of the same dataset: the second stage is all that differs.
Each is evaluated on the questions for development (``--reporting``: on the others), and the later two are compared with
the first on the same questions, with 95 % intervals over documents.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

if TYPE_CHECKING:
    from assistants.background import BackgroundWork
    from assistants.models import Assistant
    from training.models import Adapter, Benchmark, DatasetVersion, Evaluation

MEASURES = (
    ("grounded_correct", "clean"),
    ("right", "clean"),
    ("citation_recall", "clean"),
    ("over_refusal", "clean"),
    ("rightly_declined", "missing_oracle"),
)
"""(measure, condition) of the table; gains are positive when better, whatever the measure."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="1", help="Seeds of the training, with commas (%(default)s).")
    parser.add_argument("--methods", default="kto,dpo", help="What goes on from the supervised adapter (%(default)s).")
    parser.add_argument("--reporting", action="store_true", help="On the questions for reporting.")
    parser.add_argument("--settings", type=json.loads, default={}, help="Settings of all trainings as JSON.")
    parser.add_argument("--recipe", type=json.loads, default={}, help="Settings of the dataset as JSON.")
    options = parser.parse_args()
    import django

    django.setup()
    from _report import report

    from serving.demo.platform_process import Platform

    with Platform() as platform:
        platform.start()
        report("methods", run(platform.url, options))


def run(url: str, options: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from headroom import prepared

    from training.finetune.counting import counts_of_dataset

    assistant, benchmark, dataset = prepared(url, development=not options.reporting, recipe=options.recipe)
    rows = []
    for seed in map(int, options.seeds.split(",")):
        supervised = None
        for method in ["sft", *filter(None, options.methods.split(","))]:
            began = time.monotonic()
            adapter = _train(assistant, dataset, method=method, seed=seed, settings=options.settings, parent=supervised)
            trained = time.monotonic() - began
            evaluation = _evaluate(assistant, adapter, benchmark, supervised)
            supervised = supervised or adapter
            name = "sft" if method == "sft" else f"sft+{method}"
            rows.append({"seed": seed, "method": name, "train_s": round(trained), **_figures(evaluation)})
            print(json.dumps(rows[-1]), flush=True)
    return {
        "rows": dataset.rows,
        "counts": asdict(counts_of_dataset(dataset)),
        "benchmark": benchmark.name,
        "items": benchmark.items.count(),
        "runs": rows,
    }


def _train(
    assistant: Assistant,
    dataset: DatasetVersion,
    *,
    method: str,
    seed: int,
    settings: dict[str, Any],
    parent: Adapter | None,
) -> Adapter:
    """What an earlier call has begun is gone on with."""
    from training.finetune.config import FinetuneConfig
    from training.models import Run
    from training.services import start_run

    wanted = FinetuneConfig.from_dict(settings)
    alike = Run.objects.filter(dataset=dataset, seed=seed, method=method, parent=parent, settings=wanted.as_dict())
    run = alike.exclude(state__in=[Run.State.FAILED, Run.State.CANCELLED]).first() or start_run(
        assistant=assistant, dataset=dataset, settings=wanted, seed=seed, method=method, parent=parent
    )
    _wait(run)
    return run.adapter


def _evaluate(assistant: Assistant, adapter: Adapter, benchmark: Benchmark, supervised: Adapter | None) -> Evaluation:
    """Candidate, today, and where there is one the supervised adapter beside it, under the standard conditions."""
    from training.evaluation.plan import Plan
    from training.models import Arm, Evaluation
    from training.services import start_evaluation

    plan = Plan(arms=[Arm.RIVAL_RAG.value] if supervised else [])
    alike = Evaluation.objects.filter(
        adapter=adapter, benchmark=benchmark, rival=supervised, plan__threshold=assistant.evidence_threshold
    )
    found = alike.exclude(state__in=[Evaluation.State.FAILED, Evaluation.State.CANCELLED]).first() or start_evaluation(
        assistant=assistant, adapter=adapter, benchmark=benchmark, plan=plan, rival=supervised
    )
    _wait(found)
    return found


def _figures(evaluation: Evaluation) -> dict[str, Any]:
    """{measure: its value, its gain on today and on the supervised adapter with 95 % intervals}."""
    from training.evaluation.summary import measured_of
    from training.models import Arm

    measured = measured_of(evaluation, list(evaluation.benchmark.items.all()))
    out: dict[str, Any] = {"verdict": evaluation.verdict}
    for name, condition in MEASURES:
        line: dict[str, Any] = {}
        for against in (Arm.BASE_RAG.value, Arm.RIVAL_RAG.value):
            test = measured.pairs(name, condition, against=against)
            if test is not None:
                gain = test.difference
                line[f"over_{against}"] = [round(v, 3) for v in (gain.value, gain.low, gain.high)]
                line["n"], line["p"] = gain.n, round(test.p_mcnemar, 3)
        found = evaluation.results["adapter_rag"].get(condition, {}).get(name)
        if found is not None:
            line["value"] = round(found["value"], 3)
        out[name] = line
    return out


def _wait(work: BackgroundWork) -> None:
    """Until it has ended, however busy the machine is."""
    while work.is_active:
        time.sleep(2)
        work.refresh_from_db()
    if work.state != work.State.SUCCEEDED:
        raise SystemExit(f"{work} {work.get_state_display().lower()}: {work.error or 'see the log'}")


if __name__ == "__main__":
    main()
