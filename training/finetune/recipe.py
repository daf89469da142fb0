"""Fine-tunes one adapter: ``python -m training.finetune.recipe CONFIG.json``. A process of its own, without Django.

CONFIG.json (written by `training.finetune.runs`, or by hand):
{"method": one of `training.finetune.methods.METHODS`, "train": rows.jsonl, "validation": rows.jsonl or null,
"preferences": pairs or labelled answers, "held_preferences": the same or null, "parent": adapter folder to continue or
null, "base": folder or hub name, "base_name": what to call it, "work": folder for checkpoints, "output": adapter folder
to write, "seed": n, "settings": FinetuneConfig, "base_digest": …, "prompt_digest": …, "facts": {anything that the
manifest should also say}}

Reads from top to bottom: rows → tokens → nothing may be cut → for each stage: base → LoRA → training → weights; then
the adapter folder. What it says on the way: `training.finetune.reporting`. Killed at any instant, the same command goes
on from the last checkpoint.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from generation.adapters import check_adapter
from generation.engines import AdapterRefused
from training.finetune import world
from training.finetune.checkpoints import latest, step_of
from training.finetune.config import ConfigError
from training.finetune.job import Job, Material, out_of_memory, read_material
from training.finetune.lora import Adapted, adapt
from training.finetune.making import make_trainer
from training.finetune.methods import stages
from training.finetune.record import package, sha256_of, stage_facts
from training.finetune.reporting import EXIT_ERROR, EXIT_STOPPED, Reporter, Shifted, StopFlag, hold_lifeline
from training.finetune.rows import RowsError

NO_MEMORY = (
    "The memory does not suffice for this base and these rows. Set a smaller micro_batch, on a GPU also quantise, or "
    "take a machine with more."
)


def main(path: Path) -> int:
    report = Reporter(silent=not world.is_first())
    hold_lifeline()
    stop = StopFlag()
    try:
        job = Job.read(path)
        code = train(job, report, stop)
        world.leave()
        return code
    except AdapterRefused as error:
        report("error", message=f"The adapter to continue is refused: {error}")
        return EXIT_ERROR
    except (ConfigError, RowsError, FloatingPointError, OSError, MemoryError, RuntimeError) as error:
        if out_of_memory(error):
            report("error", message=NO_MEMORY)
        elif isinstance(error, RuntimeError):
            raise
        else:
            report("error", message=f"{error}" or type(error).__name__)
        return EXIT_ERROR


def train(job: Job, report: Reporter, stop: StopFlag) -> int:
    """Exit code: 0, or `EXIT_STOPPED`."""
    started = time.monotonic()
    threads = job.settings.threads or max(1, _cores() // world.size())
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Threads that spin while they wait for each other stand still as soon as something else needs a core: measured on
    # a busy machine with two cores, 5 times slower than threads that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    report("stage", stage="reading rows")
    materials = [read_material(job, stage) for stage in stages(job.method)]  # all of them, before anything starts
    parent = None
    if job.parent is not None:
        parent = check_adapter(job.parent, base_digest=job.base_digest, prompt_digest=job.prompt_digest)
    report("stage", stage="loading the base")
    import torch

    torch.set_num_threads(threads)
    if torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank())
    world.join(on_gpu=torch.cuda.is_available())
    job.work.mkdir(mode=0o700, parents=True, exist_ok=True)
    done: list[dict[str, Any]] = []
    for place, material in enumerate(materials):
        work = job.work if len(materials) == 1 else job.work / f"{place + 1}-{material.stage}"
        if (facts := _facts_of(work)) is not None:
            done.append(facts)
            continue
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
        start = job.work / f"{place}-{materials[place - 1].stage}" / WEIGHTS if place else None
        # The adapter is loaded again for each stage, so that a resumed run begins it with the very same numbers.
        adapted = adapt(job, material, start=start, parent=parent)
        steps = [_steps(job, m, adapted.parameters) for m in materials]
        told = Shifted(report, by=sum(steps[:place]), total=sum(steps))
        trainer, best = make_trainer(job, material, adapted, told, stop, work=work)
        _announce(job, material, adapted, told, work, threads=threads, started=started)
        stop.training = True
        resumed = _newest(work)
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        if stop.is_set and trainer.state.global_step < trainer.state.max_steps:
            told("stopped", step=trainer.state.global_step)
            return EXIT_STOPPED
        facts = stage_facts(material, adapted, trainer, best)
        if place + 1 < len(materials) and world.is_first():
            _keep(work, adapted.model, facts)
        world.wait()
        done.append(facts)
    if not world.is_first():
        return 0
    report("stage", stage="writing the adapter")
    manifest = package(job, materials, adapted, parent, done, seconds=time.monotonic() - started)
    report("saved", folder=str(job.output), manifest=manifest)
    return 0


def _newest(work: Path) -> Path | None:
    """The newest complete checkpoint; the first process looks first, for it deletes those that are not."""
    if world.is_first():
        latest(work / "checkpoints")
    world.wait()
    return latest(work / "checkpoints")


WEIGHTS, FACTS = "ended.safetensors", "ended.json"


def _facts_of(work: Path) -> dict[str, Any] | None:
    """What a stage that has ended said of itself; None when it has not, or when its weights are not those that it
    names (a machine that lost power may keep one file and lose the other)."""
    try:
        kept = json.loads((work / FACTS).read_bytes())
        facts: dict[str, Any] = kept["facts"]
        return facts if kept["weights_sha256"] == sha256_of(work / WEIGHTS) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _keep(work: Path, model: Any, facts: dict[str, Any]) -> None:
    """Keeps the weights that the next stage begins with; the facts come last, and say that the stage has ended."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    weights = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    save_file(weights, work / f".{WEIGHTS}")
    (work / f".{WEIGHTS}").rename(work / WEIGHTS)
    kept = {"facts": facts, "weights_sha256": sha256_of(work / WEIGHTS)}
    (work / f".{FACTS}").write_text(json.dumps(kept), encoding="utf-8")
    (work / f".{FACTS}").rename(work / FACTS)


def _steps(job: Job, material: Material, parameters: int) -> int:
    settings, _ = job.settings.for_stage(material.stage).resolve(
        rows=len(material.repeated),
        parameters=parameters,
        stage=material.stage,
        counts=material.counts,
        processes=world.size(),
    )
    return settings.steps(len(material.repeated), world.size())


def _announce(
    job: Job, material: Material, adapted: Adapted, told: Shifted, work: Path, *, threads: int, started: float
) -> None:
    resumed = _newest(work)
    told(
        "start",
        method=material.stage,
        rows=len(material.rows),
        weighted_rows=len(material.repeated),
        validation_rows=len(material.held_out),
        good_rows=material.counts.good,
        bad_rows=material.counts.bad,
        tokens=material.tokens,
        longest=material.longest,
        steps=adapted.settings.steps(len(material.repeated), world.size()),
        processes=world.size(),
        settings=adapted.settings.as_dict(),
        why=adapted.why,
        precision=adapted.precision,
        threads=threads,
        resumed_from=step_of(resumed) if resumed else 0,
        startup_seconds=round(time.monotonic() - started, 1),
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin(path: Path) -> int:
    """Trains in this process, or in several that this one becomes."""
    try:
        processes = world.wanted_processes(Job.read(path).settings.processes) if world.size() == 1 else 1
    except ConfigError:
        processes = 1  # said by `main`
    if processes > 1:
        world.launch("training.finetune.recipe", str(path), processes)
    return main(path)


if __name__ == "__main__":
    sys.exit(begin(Path(sys.argv[1])))
