"""The base with LoRA layers on every linear layer, fresh or as an earlier adapter left them, in the precision that was
asked for or measured. No Django."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from generation.adapters import CheckedAdapter
from training.finetune import world
from training.finetune.config import ConfigError, FinetuneConfig
from training.finetune.job import Job, Material, reading_base
from training.finetune.rows import Tokens


@dataclass(frozen=True)
class Adapted:
    """The base with its LoRA layers, and how it computes. ``quick``: our own loss, on a processor. ``parameters`` of
    the base."""

    model: Any
    parameters: int
    settings: FinetuneConfig
    why: list[str]
    precision: str
    quick: bool

    def autocast(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self.model.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


def adapt(job: Job, material: Material, *, start: Path | None = None, parent: CheckedAdapter | None = None) -> Adapted:
    """Base → LoRA on every linear layer, in the precision that was asked for or measured.

    Args:
        start: LoRA weights (safetensors) that an earlier stage ended with.
        parent: an adapter that this one continues; its rank, alpha and layers are taken over.

    Raises:
        ConfigError: 4 bits were asked for where they are not possible, or the base cannot be read.
    """
    import torch
    from peft import get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load, load_file
    from transformers import set_seed

    from training.finetune.trainer import use_byte_dropout

    on_gpu = torch.cuda.is_available()
    with reading_base(job.base):
        model = _base(job, on_gpu=on_gpu)
    parameters = model.num_parameters()
    stage = material.stage
    settings, why = job.settings.for_stage(stage).resolve(
        rows=len(material.repeated),
        parameters=parameters,
        stage=stage,
        counts=material.counts,
        processes=world.size(),
    )
    # The quick loss knows no scaled or capped logits; such bases, and GPUs, go through the library's own.
    config = model.config.get_text_config()
    plain = not any(getattr(config, key, None) for key in ("final_logit_softcapping", "logit_scale", "logits_scaling"))
    # So does training in several processes, which must go through the wrapper that adds their gradients up.
    quick = plain and not on_gpu and world.size() == 1
    precision = _precision(settings, model, [t.input_ids for t in _probe(material)], job.work, quick=quick)
    if precision == "bf16" and not job.settings.quantise:
        model = model.to(torch.bfloat16)
    lora = lora_config(settings, parent.config if parent else None)
    if parent is not None:
        settings = replace(settings, rank=lora.r, alpha=int(lora.lora_alpha), rank_stabilised=bool(lora.use_rslora))
        why.append(f"Rank {lora.r}, alpha {lora.lora_alpha:g}: those of the adapter that it continues.")
    set_seed(job.seed)
    model = get_peft_model(model, lora)
    weights = load_file(start) if start is not None else load(parent.weights) if parent is not None else None
    if weights is not None:
        found = set_peft_model_state_dict(model, weights)
        if found.unexpected_keys:
            raise ConfigError(
                f"The adapter to continue has layers that this base lacks, such as {found.unexpected_keys[0][:120]}."
            )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # bf16 would swallow small updates
    if quick and stage == "sft":
        use_byte_dropout(model, settings.dropout)
    if quick and precision == "bf16":
        _let_autocast_cast(model)
    return Adapted(model, parameters, settings, why, precision, quick)


def lora_config(settings: FinetuneConfig, parent: dict[str, Any] | None = None) -> Any:
    """A fresh LoRA configuration, or the one of the adapter that is continued (its dropout is a matter of the run)."""
    from peft import LoraConfig

    shape: dict[str, Any] = {
        "r": settings.rank,
        "lora_alpha": settings.alpha,
        "use_rslora": settings.rank_stabilised,
        "target_modules": "all-linear",
    }
    if parent is not None:
        keys = ("r", "lora_alpha", "use_rslora", "target_modules", "rank_pattern", "alpha_pattern")
        shape = {key: parent[key] for key in (*keys, "layers_to_transform") if parent.get(key)}
    return LoraConfig(**shape, lora_dropout=settings.dropout, task_type="CAUSAL_LM")


def _base(job: Job, *, on_gpu: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    how: dict[str, Any] = {"dtype": torch.bfloat16 if on_gpu else torch.float32, "use_safetensors": True}
    if not job.settings.quantise:
        model = AutoModelForCausalLM.from_pretrained(job.base, **how)
        # Here and not by the trainer: precision, dropout and loss are chosen by where the model is.
        return model.to(torch.device("cuda", world.local_rank())) if on_gpu else model
    from training.finetune.bits import four_bits, why_not_four_bits

    if why := why_not_four_bits():
        raise ConfigError(why)
    return four_bits(job.base, how)


def _probe(material: Material) -> list[Tokens]:
    """A few rows of the stage as plain sequences, to measure with."""
    rows = material.repeated[:8]
    if material.stage == "sft":
        return rows
    answers = [getattr(row, "completion_ids", None) or row.chosen_ids for row in rows]
    return [Tokens(row.prompt_ids + answer, []) for row, answer in zip(rows, answers, strict=True)]


def _precision(settings: FinetuneConfig, model: Any, rows: list[list[int]], work: Path, *, quick: bool) -> str:
    """What to compute in. A choice that was measured is kept, so that a resumed run computes alike."""
    if settings.precision != "auto":
        return settings.precision
    if not quick:
        return "bf16" if model.device.type == "cuda" else "fp32"
    kept = work / "precision.txt"
    if not kept.exists():
        from training.finetune.precision import faster_precision

        kept.write_text(faster_precision(model, [Tokens(ids, []) for ids in rows[: settings.micro_batch]]))
    return kept.read_text()


def _let_autocast_cast(model: Any) -> None:
    """LoRA layers would first cast their input to fp32 and autocast it back: half of a step on a small model."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False
