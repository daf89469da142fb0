"""Fine-tunes one adapter: ``python -m training.finetune.recipe CONFIG.json``. A process of its own, without Django.

CONFIG.json (written by `training.finetune.runs`, or by hand):
{"train": rows.jsonl, "validation": rows.jsonl or null, "base": folder or hub name, "base_name": what to call it,
"work": folder for checkpoints, "output": adapter folder to write, "seed": n, "settings": FinetuneConfig,
"base_digest": …, "prompt_digest": …, "facts": {anything that the manifest should also say}}

Reads from top to bottom: rows → tokens → nothing may be cut → base → LoRA → training → adapter folder. What it says on
the way: `training.finetune.reporting`. Killed at any instant, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from pathlib import Path
from typing import Any

from training.finetune.checkpoints import latest, seal, step_of
from training.finetune.config import MIN_VALIDATION_ROWS, ConfigError
from training.finetune.job import Job, Material, read_material
from training.finetune.lora import Adapted, adapt
from training.finetune.reporting import EXIT_ERROR, EXIT_STOPPED, Reporter, StopFlag, hold_lifeline
from training.finetune.rows import RowsError, Tokens

LOGGED_POINTS = 150
"""Points on the loss curve, at most."""


def main(path: Path) -> int:
    report = Reporter()
    hold_lifeline()
    stop = StopFlag()
    try:
        job = Job.read(path)
        return train(job, report, stop)
    except (ConfigError, RowsError, FloatingPointError, OSError, MemoryError) as error:
        report("error", message=f"{error}" or type(error).__name__)
        return EXIT_ERROR


def train(job: Job, report: Reporter, stop: StopFlag) -> int:
    """Exit code: 0, or `EXIT_STOPPED`."""
    started = time.monotonic()
    threads = job.settings.threads or _cores()
    os.environ["OMP_NUM_THREADS"] = str(threads)
    # Threads that spin while they wait for each other stand still as soon as something else needs a core: measured on
    # a busy machine with two cores, 5 times slower than threads that sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    report("stage", stage="reading rows")
    material = read_material(job)
    report("stage", stage="loading the base")
    import torch

    torch.set_num_threads(threads)
    job.work.mkdir(mode=0o700, parents=True, exist_ok=True)
    adapted = adapt(job, material)
    trainer, best = make_trainer(job, material, adapted, report, stop)
    resumed = latest(job.work / "checkpoints")
    report(
        "start",
        rows=len(material.rows),
        weighted_rows=len(material.repeated),
        validation_rows=len(material.held_out),
        longest=material.longest,
        steps=adapted.settings.steps(len(material.repeated)),
        settings=adapted.settings.as_dict(),
        why=adapted.why,
        precision=adapted.precision,
        threads=threads,
        resumed_from=step_of(resumed) if resumed else 0,
        startup_seconds=round(time.monotonic() - started, 1),
    )
    stop.training = True
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if stop.is_set and trainer.state.global_step < trainer.state.max_steps:
        report("stopped", step=trainer.state.global_step)
        return EXIT_STOPPED
    report("stage", stage="writing the adapter")
    manifest = package(job, material, adapted, trainer, best, seconds=time.monotonic() - started)
    report("saved", folder=str(job.output), manifest=manifest)
    return 0


def make_trainer(job: Job, material: Material, adapted: Adapted, report: Reporter, stop: StopFlag) -> tuple[Any, Any]:
    """Trainer and keeper of the best weights. Every default that would cut, drop, or cast something is set here."""
    from datasets import Dataset
    from trl import SFTConfig

    from training.finetune.epochs import Best, Samples
    from training.finetune.trainer import Progress, QuickSFTTrainer

    settings, on_gpu = adapted.settings, adapted.model.device.type == "cuda"
    steps = settings.steps(len(material.repeated))
    checkpoints = job.work / "checkpoints"
    micro, accumulate = settings.batches()
    arguments = SFTConfig(
        output_dir=str(checkpoints),
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=accumulate,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=max(1, round(settings.warmup_share * steps)),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch",
        max_length=None,
        pad_to_multiple_of=16,  # a processor keeps kernels and memory for every shape it meets: half the peak memory
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},  # rows are tokens with labels already
        gradient_checkpointing=False,
        bf16=on_gpu and adapted.precision == "bf16",
        fp16=False,
        use_cpu=not on_gpu,
        seed=job.seed,
        data_seed=job.seed,
        save_strategy="no",  # by time: see Progress
        eval_strategy="epoch" if material.held_tokens else "no",
        logging_steps=max(1, round(steps / LOGGED_POINTS)),
        logging_first_step=True,
        report_to="none",
        disable_tqdm=True,
        dataloader_num_workers=0,
        dataloader_pin_memory=on_gpu,
    )
    progress = Progress(
        report,
        stop,
        seconds=settings.checkpoint_seconds,
        every=settings.checkpoint_steps,
        after_save=lambda step: seal(checkpoints / f"checkpoint-{step}"),
    )
    samples = Samples(
        list(zip(material.held_out, material.held_tokens, strict=True))[: settings.sample_rows],
        tokenizer=material.tokenizer,
        new_tokens=min(settings.sample_tokens, max(1, material.context - material.longest)),
        autocast=adapted.autocast,
        report=report,
    )
    best = Best(job.work)
    trainer = QuickSFTTrainer(
        model=adapted.model,
        args=arguments,
        train_dataset=_dataset(Dataset, material.repeated),
        eval_dataset=_dataset(Dataset, material.held_tokens) if material.held_tokens else None,
        processing_class=material.tokenizer,
        callbacks=[progress, samples, best],
        autocast=adapted.autocast if adapted.quick else None,
    )
    progress.trainer = trainer
    if len(trainer.train_dataset) != len(material.repeated):
        raise RowsError(f"Only {len(trainer.train_dataset)} of {len(material.repeated)} rows reached the trainer.")
    return trainer, best


def package(
    job: Job, material: Material, adapted: Adapted, trainer: Any, best: Any, *, seconds: float
) -> dict[str, Any]:
    """The adapter folder with the whole record of how it came to be; returns the manifest."""
    from training.finetune.packaging import library_versions, write_adapter

    kept_step = trainer.state.global_step
    if adapted.settings.keep == "best" and len(material.held_out) >= MIN_VALIDATION_ROWS:
        kept_step = best.restore(adapted.model) or kept_step
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    facts = {
        **job.facts,
        "base_digest": job.base_digest,
        "prompt_digest": job.prompt_digest,
        "method": "sft",
        "seed": job.seed,
        "settings": adapted.settings.as_dict(),
        "why": adapted.why,
        "data": {
            **job.facts.get("data", {}),
            "rows": len(material.rows),
            "weighted_rows": len(material.repeated),
            "validation_rows": len(material.held_out),
            "longest": material.longest,
            "tokens": sum(len(t.input_ids) for t in material.repeated),
            "rows_sha256": _sha256(job.train),
        },
        "losses": {
            "first": losses[0],
            "last": losses[-1],
            "validation": [{"step": e["step"], "loss": e["eval_loss"]} for e in history if "eval_loss" in e],
        },
        "steps": trainer.state.global_step,
        "kept_step": kept_step,
        "seconds": round(seconds, 1),
        "device": _device_name(adapted.model),
        "precision": adapted.precision,
        "peak_mb": _peak_mb(),
        "versions": library_versions(),
    }
    return write_adapter(adapted.model, job.output, base_name=job.base_name, facts=facts)


def _dataset(kind: Any, tokens: list[Tokens]) -> Any:
    return kind.from_dict({"input_ids": [t.input_ids for t in tokens], "labels": [t.labels for t in tokens]})


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _device_name(model: Any) -> str:
    import torch

    return torch.cuda.get_device_name() if model.device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _peak_mb() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform != "darwin" else 1024**2))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
