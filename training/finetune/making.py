"""The trainer of one stage. Every default of TRL that would cut, drop, or cast something is set here. No Django."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.finetune import world
from training.finetune.checkpoints import seal
from training.finetune.config import ConfigError
from training.finetune.job import Job, Material
from training.finetune.lora import Adapted
from training.finetune.preferences import with_mismatches
from training.finetune.reporting import StopFlag
from training.finetune.rows import RowsError

LOGGED_POINTS = 150
"""Points on the loss curve of a stage, at most."""


def make_trainer(
    job: Job, material: Material, adapted: Adapted, report: Any, stop: StopFlag, *, work: Path
) -> tuple[Any, Any]:
    """Trainer and keeper of the best weights.

    Raises:
        RowsError: fewer rows reached the trainer than there are, or they are fewer than the processes.
        ConfigError: a batch that cannot be shared out.
    """
    from training.finetune.epochs import Best, Samples
    from training.finetune.trainer import Progress

    settings = adapted.settings
    if len(material.repeated) < world.size():
        raise RowsError(f"{len(material.repeated)} rows are too few for {world.size()} processes. Set processes to 1.")
    checkpoints = work / "checkpoints"
    progress = Progress(
        report,
        stop,
        seconds=settings.checkpoint_seconds,
        every=settings.checkpoint_steps,
        after_save=lambda step: seal(checkpoints / f"checkpoint-{step}"),
    )
    samples = Samples(
        material.samples[: settings.sample_rows],
        tokenizer=material.tokenizer,
        new_tokens=min(settings.sample_tokens, max(1, material.context - material.longest)),
        autocast=adapted.autocast,
        report=report,
        seconds=settings.sample_seconds,
    )
    best = Best(work)
    make = {"sft": _sft, "dpo": _dpo, "kto": _kto}[material.stage]
    trainer = make(job, material, adapted, checkpoints, [progress, samples, best])
    progress.trainer = trainer
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # TRL makes them bf16 above a base in 4 bits
    if len(trainer.train_dataset) != len(material.repeated):
        raise RowsError(f"Only {len(trainer.train_dataset)} of {len(material.repeated)} rows reached the trainer.")
    return trainer, best


def _sft(job: Job, material: Material, adapted: Adapted, folder: Path, callbacks: list[Any]) -> Any:
    from datasets import Dataset
    from trl import SFTConfig

    from training.finetune.trainer import QuickSFTTrainer

    def rows(tokens: list[Any]) -> Any:
        return Dataset.from_dict({"input_ids": [t.input_ids for t in tokens], "labels": [t.labels for t in tokens]})

    return QuickSFTTrainer(
        model=adapted.model,
        args=SFTConfig(
            **_arguments(job, material, adapted, folder),
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},  # rows are tokens with labels already
        ),
        train_dataset=rows(material.repeated),
        eval_dataset=rows(material.held_tokens) if material.held_tokens else None,
        processing_class=material.tokenizer,
        callbacks=callbacks,
        autocast=adapted.autocast if adapted.quick else None,
    )


def _dpo(job: Job, material: Material, adapted: Adapted, folder: Path, callbacks: list[Any]) -> Any:
    from datasets import Dataset
    from trl import DPOConfig

    from training.finetune.preferring import QuickDPOTrainer

    settings = adapted.settings
    losses = [("sigmoid", 1.0), ("sft", settings.sft_weight)]
    kept = [(name, weight) for name, weight in losses if weight]
    return QuickDPOTrainer(
        model=adapted.model,
        args=DPOConfig(
            **_arguments(job, material, adapted, folder),
            beta=settings.beta,
            loss_type=[name for name, _ in kept],
            loss_weights=[weight for _, weight in kept],
            precompute_ref_log_probs=True,
            disable_dropout=True,
        ),
        train_dataset=_shared(Dataset.from_list([row.record() for row in material.repeated]), folder, "rows"),
        eval_dataset=_shared(Dataset.from_list([row.record() for row in material.held_tokens]), folder, "held")
        if material.held_tokens
        else None,
        processing_class=material.tokenizer,
        callbacks=callbacks,
        autocast=_cast(adapted),
    )


def _kto(job: Job, material: Material, adapted: Adapted, folder: Path, callbacks: list[Any]) -> Any:
    from datasets import Dataset
    from trl import KTOConfig

    from training.finetune.preferring import QuickKTOTrainer

    settings = adapted.settings
    micro, _ = settings.batches(world.size())
    if micro < 2:
        raise ConfigError("KTO compares the rows of a batch: set batch and micro_batch to at least two rows a process.")
    held = with_mismatches(material.held_tokens, micro, job.seed)
    return QuickKTOTrainer(
        model=adapted.model,
        args=KTOConfig(
            **_arguments(job, material, adapted, folder),
            beta=settings.beta,
            desirable_weight=settings.desirable_weight,
            undesirable_weight=settings.undesirable_weight,
            precompute_ref_log_probs=True,
            disable_dropout=True,
        ),
        train_dataset=_shared(Dataset.from_list(with_mismatches(material.repeated, micro, job.seed)), folder, "rows"),
        eval_dataset=_shared(Dataset.from_list(held), folder, "held") if held else None,
        processing_class=material.tokenizer,
        callbacks=callbacks,
        autocast=_cast(adapted),
    )


def _shared(dataset: Any, folder: Path, name: str) -> Any:
    """The same rows where every process finds the reference that the first one stores beside them; TRL keeps it in a
    folder of the process for rows that are in memory only."""
    if world.size() == 1:
        return dataset
    from datasets import load_from_disk

    place = folder.parent / f"shared-{name}"
    if world.is_first():
        dataset.save_to_disk(place)
    world.wait()
    return load_from_disk(place)


def _cast(adapted: Adapted) -> Any:
    """On a processor the trainers cast nothing by themselves; on a GPU they do (``bf16`` below)."""
    return adapted.autocast if adapted.model.device.type == "cpu" else None


def _arguments(job: Job, material: Material, adapted: Adapted, folder: Path) -> dict[str, Any]:
    settings, on_gpu = adapted.settings, adapted.model.device.type == "cuda"
    steps = settings.steps(len(material.repeated), world.size())
    micro, accumulate = settings.batches(world.size())
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": accumulate,
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": max(1, round(settings.warmup_share * steps)),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "optim": "adamw_torch",
        "max_length": None,
        # A processor keeps kernels and memory for every shape it meets: half the peak memory.
        "pad_to_multiple_of": 16,
        "gradient_checkpointing": False,
        "bf16": on_gpu and adapted.precision == "bf16",
        "fp16": False,
        "use_cpu": not on_gpu,
        "ddp_find_unused_parameters": False,
        "seed": job.seed,
        "data_seed": job.seed,
        "save_strategy": "no",  # by time: see Progress
        "eval_strategy": "epoch" if material.held_tokens else "no",
        "logging_steps": max(1, round(steps / LOGGED_POINTS)),
        "logging_first_step": True,
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": on_gpu,
    }
