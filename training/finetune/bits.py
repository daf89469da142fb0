"""QLoRA: the base in 4 bits while its adapter is trained, or one sentence why not. No Django."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from training.finetune import world


def why_not_four_bits() -> str:
    """Why this machine cannot train on a base in 4 bits; empty when it can."""
    import torch

    if not torch.cuda.is_available():
        return (
            "quantise needs a CUDA device, and there is none here. Train without it: on a processor, 4 bits would only "
            "cost time."
        )
    if find_spec("bitsandbytes") is None:
        return "quantise needs the package bitsandbytes: pip install bitsandbytes, or train without it."
    return ""


def four_bits(base: str, how: dict[str, Any]) -> Any:
    """The base in NF4 with double quantisation, computing in bf16, ready for LoRA layers in fp32 (Dettmers et al.
    2023, "QLoRA")."""
    import torch
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    bits = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=bits, device_map={"": world.local_rank()}, **how
    )
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
