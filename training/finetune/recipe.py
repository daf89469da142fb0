"""Fine-tunes one adapter: ``python -m training.finetune.recipe CONFIG.json``. A process of its own, without Django.

CONFIG.json (written by `training.finetune.runs`, or by hand):
{"train": rows.jsonl, "validation": rows.jsonl or null, "base": folder or hub name, "base_name": what to call it,
"work": folder for checkpoints, "output": adapter folder to write, "seed": n, "settings": FinetuneConfig,
"base_digest": …, "prompt_digest": …, "facts": {anything that the manifest should also say}}

Reads from top to bottom: rows → tokens → nothing may be cut → base → LoRA → training → adapter folder. What it says on
the way: `training.finetune.reporting`. Killed at any instant, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.finetune.checkpoints import latest, seal, step_of
from training.finetune.config import MIN_VALIDATION_ROWS, ConfigError, FinetuneConfig
from training.finetune.reporting import EXIT_ERROR, EXIT_STOPPED, Reporter, StopFlag, hold_lifeline
from training.finetune.rows import RowsError, Tokens, check_lengths, read_rows, tokenise

LOGGED_POINTS = 150
"""Points on the loss curve, at most."""


@dataclass(frozen=True)
class Job:
    """CONFIG.json, read and checked."""

    train: Path
    validation: Path | None
    base: str
    base_name: str
    work: Path
    output: Path
    seed: int
    settings: FinetuneConfig
    base_digest: str
    prompt_digest: str
    facts: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Job:
        """Raises ConfigError."""
        try:
            raw = json.loads(path.read_bytes())
            return cls(
                train=Path(raw["train"]),
                validation=Path(raw["validation"]) if raw.get("validation") else None,
                base=raw["base"],
                base_name=raw["base_name"],
                work=Path(raw["work"]),
                output=Path(raw["output"]),
                seed=int(raw["seed"]),
                settings=FinetuneConfig.from_dict(raw["settings"]),
                base_digest=raw["base_digest"],
                prompt_digest=raw["prompt_digest"],
                facts=raw.get("facts", {}),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path} is not a training configuration: {type(error).__name__} {error}.") from error


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
    started = time.monotonic()
    report("stage", stage="loading libraries")
    threads = job.settings.threads or _cores()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    import torch
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, set_seed
    from trl import SFTConfig

    from training.finetune.epochs import Best, Samples
    from training.finetune.packaging import library_versions, write_adapter
    from training.finetune.trainer import Progress, QuickSFTTrainer, use_byte_dropout

    torch.set_num_threads(threads)
    job.work.mkdir(mode=0o700, parents=True, exist_ok=True)

    # Rows → tokens. A row that does not fit stops the run before it starts.
    report("stage", stage="reading rows")
    rows = read_rows(job.train)
    held_out = read_rows(job.validation) if job.validation else []
    if not rows:
        raise RowsError("There is no row to train on.")
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokens, held_tokens = tokenise(rows, tokenizer), tokenise(held_out, tokenizer)
    repeated = [t for row, t in zip(rows, tokens, strict=True) for _ in range(row.weight)]

    # Base → LoRA.
    report("stage", stage="loading the base")
    on_gpu = torch.cuda.is_available()
    set_seed(job.seed)
    model = AutoModelForCausalLM.from_pretrained(job.base, dtype=torch.bfloat16 if on_gpu else torch.float32)
    config = model.config.get_text_config()
    limit = min(job.settings.max_length or config.max_position_embeddings, config.max_position_embeddings)
    longest = check_lengths([*tokens, *held_tokens], limit)
    settings, why = job.settings.resolve(rows=len(repeated), parameters=model.num_parameters())
    # The quick loss knows no scaled or capped logits; such bases, and GPUs, go through the library's own.
    plain = not any(
        getattr(config, name, None) for name in ("final_logit_softcapping", "logit_scale", "logits_scaling")
    )
    quick = plain and not on_gpu
    precision = _precision(settings, model, repeated, job.work, quick=quick)
    if precision == "bf16":
        model = model.to(torch.bfloat16)
    lora = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        use_rslora=settings.rank_stabilised,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    set_seed(job.seed)
    model = get_peft_model(model, lora)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # bf16 would swallow small updates
    if quick:
        use_byte_dropout(model, settings.dropout)

    def autocast() -> AbstractContextManager[Any]:
        return torch.autocast(model.device.type, torch.bfloat16) if precision == "bf16" else nullcontext()

    if quick and precision == "bf16":
        _let_autocast_cast(model)

    # Training. Every default that would cut, drop, or cast something is set here.
    assert settings.batch is not None
    assert settings.epochs is not None
    micro = min(settings.micro_batch, settings.batch)
    accumulate = max(1, settings.batch // micro)
    steps = max(1, -(-len(repeated) // (micro * accumulate))) * settings.epochs
    checkpoints = job.work / "checkpoints"
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
        packing=False,
        completion_only_loss=None,  # the labels say it already
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=False,
        bf16=on_gpu and precision == "bf16",
        fp16=False,
        use_cpu=not on_gpu,
        seed=job.seed,
        data_seed=job.seed,
        save_strategy="no",
        eval_strategy="epoch" if held_tokens else "no",
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
        list(zip(held_out, held_tokens, strict=True))[: settings.sample_rows],
        tokenizer=tokenizer,
        new_tokens=min(settings.sample_tokens, max(1, config.max_position_embeddings - longest)),
        autocast=autocast,
        report=report,
    )
    best = Best(job.work)
    trainer = QuickSFTTrainer(
        model=model,
        args=arguments,
        train_dataset=_dataset(Dataset, repeated),
        eval_dataset=_dataset(Dataset, held_tokens) if held_tokens else None,
        processing_class=tokenizer,
        callbacks=[progress, samples, best],
        autocast=autocast if quick else None,
    )
    progress.trainer = trainer
    if len(trainer.train_dataset) != len(repeated):
        raise RowsError(f"Only {len(trainer.train_dataset)} of {len(repeated)} rows reached the trainer.")
    resumed = latest(checkpoints)
    report(
        "start",
        rows=len(rows),
        weighted_rows=len(repeated),
        validation_rows=len(held_out),
        longest=longest,
        steps=int(steps),
        settings=settings.as_dict(),
        why=why,
        precision=precision,
        threads=threads,
        resumed_from=step_of(resumed) if resumed else 0,
        startup_seconds=round(time.monotonic() - started, 1),
    )
    stop.training = True
    trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if stop.is_set and trainer.state.global_step < trainer.state.max_steps:
        report("stopped", step=trainer.state.global_step)
        return EXIT_STOPPED

    # Adapter folder.
    report("stage", stage="writing the adapter")
    kept_step = trainer.state.global_step
    if settings.keep == "best" and len(held_out) >= MIN_VALIDATION_ROWS:
        kept_step = best.restore(model) or kept_step
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    manifest = write_adapter(
        model,
        job.output,
        base_name=job.base_name,
        facts={
            **job.facts,
            "base_digest": job.base_digest,
            "prompt_digest": job.prompt_digest,
            "method": "sft",
            "seed": job.seed,
            "settings": settings.as_dict(),
            "why": why,
            "data": {
                **job.facts.get("data", {}),
                "rows": len(rows),
                "weighted_rows": len(repeated),
                "validation_rows": len(held_out),
                "longest": longest,
                "tokens": sum(len(t.input_ids) for t in repeated),
                "rows_sha256": _sha256(job.train),
            },
            "losses": {
                "first": losses[0],
                "last": losses[-1],
                "validation": [{"step": e["step"], "loss": e["eval_loss"]} for e in history if "eval_loss" in e],
            },
            "steps": trainer.state.global_step,
            "kept_step": kept_step,
            "seconds": round(time.monotonic() - started, 1),
            "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {threads} threads",
            "precision": precision,
            "peak_mb": _peak_mb(),
            "versions": library_versions(),
        },
    )
    report("saved", folder=str(job.output), manifest=manifest)
    return 0


def _precision(settings: FinetuneConfig, model: Any, tokens: list[Tokens], work: Path, *, quick: bool) -> str:
    """What to compute in. A choice that was measured is kept, so that a resumed run computes alike."""
    if settings.precision != "auto":
        return settings.precision
    if not quick:
        return "bf16" if model.device.type == "cuda" else "fp32"
    kept = work / "precision.txt"
    if not kept.exists():
        from training.finetune.precision import faster_precision

        kept.write_text(faster_precision(model, tokens[: settings.micro_batch]))
    return kept.read_text()


def _let_autocast_cast(model: Any) -> None:
    """LoRA layers would first cast their input to fp32 and autocast it back: half of a step on a small model."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False


def _dataset(kind: Any, tokens: list[Tokens]) -> Any:
    return kind.from_dict({"input_ids": [t.input_ids for t in tokens], "labels": [t.labels for t in tokens]})


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _sha256(path: Path) -> str:
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _peak_mb() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform != "darwin" else 1024**2))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
