"""The base with fresh LoRA layers on every linear layer, in the precision that was asked for or measured. No Django."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.finetune.config import FinetuneConfig
from training.finetune.job import Job, Material
from training.finetune.rows import Tokens


@dataclass(frozen=True)
class Adapted:
    """The base with fresh LoRA layers, and how it computes. ``quick``: our own loss, on a processor."""

    model: Any
    settings: FinetuneConfig
    why: list[str]
    precision: str
    quick: bool

    def autocast(self) -> AbstractContextManager[Any]:
        import torch

        return torch.autocast(self.model.device.type, torch.bfloat16) if self.precision == "bf16" else nullcontext()


def adapt(job: Job, material: Material) -> Adapted:
    """Base → LoRA on every linear layer, in the precision that was asked for or measured."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, set_seed

    from training.finetune.trainer import use_byte_dropout

    on_gpu = torch.cuda.is_available()
    model = AutoModelForCausalLM.from_pretrained(
        job.base, dtype=torch.bfloat16 if on_gpu else torch.float32, use_safetensors=True
    )
    settings, why = job.settings.resolve(rows=len(material.repeated), parameters=model.num_parameters())
    # The quick loss knows no scaled or capped logits; such bases, and GPUs, go through the library's own.
    config = model.config.get_text_config()
    plain = not any(getattr(config, key, None) for key in ("final_logit_softcapping", "logit_scale", "logits_scaling"))
    quick = plain and not on_gpu
    precision = _precision(settings, model, material.repeated, job.work, quick=quick)
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
    if quick and precision == "bf16":
        _let_autocast_cast(model)
    return Adapted(model, settings, why, precision, quick)


def _precision(settings: FinetuneConfig, model: Any, tokens: list[Tokens], work: Path, *, quick: bool) -> str:
    """What to compute in. A choice that was measured is kept, so that a resumed run computes alike."""
    if settings.precision != "auto":
        return settings.precision
    if not quick:
        return "bf16" if model.device.type == "cuda" else "fp32"
    kept = work / "precision.txt"
    if not kept.exists():
        from training.finetune.precision import faster_precision

        kept.write_text(faster_precision(model, tokens[: min(settings.micro_batch, 8)]))
    return kept.read_text()


def _let_autocast_cast(model: Any) -> None:
    """LoRA layers would first cast their input to fp32 and autocast it back: half of a step on a small model."""
    for module in model.modules():
        if hasattr(module, "cast_input_dtype_enabled"):
            module.cast_input_dtype_enabled = False
