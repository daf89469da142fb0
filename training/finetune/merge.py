"""Writes an adapter into its base: ``python -m training.finetune.merge BASE ADAPTER OUTPUT``. No Django."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from generation.adapters import BASE_FILES, base_digest, check_adapter
from training.finetune.config import FinetuneConfig
from training.finetune.lora import lora_config
from training.finetune.reporting import hold_lifeline


def merge(base: Path, adapter: Path, output: Path) -> None:
    """A model folder like ``base`` whose weights are base + adapter, computed in fp32 and stored in the base's type.

    Raises:
        generation.engines.AdapterRefused: the folder is no adapter of this base.
    """
    import torch
    from peft import get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load
    from transformers import AutoConfig, AutoModelForCausalLM

    checked = check_adapter(adapter, base_digest=base_digest(base))
    stored: Any = getattr(AutoConfig.from_pretrained(base), "dtype", None) or torch.float32
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, use_safetensors=True)
    tuned: Any = get_peft_model(model, lora_config(FinetuneConfig(), checked.config))
    set_peft_model_state_dict(tuned, load(checked.weights))
    merged = tuned.merge_and_unload(safe_merge=True).to(stored)
    output.mkdir(parents=True)
    merged.save_pretrained(output)
    for name in BASE_FILES:
        if name != "config.json" and (base / name).is_file():
            shutil.copyfile(base / name, output / name)
    for path in output.iterdir():
        path.chmod(0o644)


if __name__ == "__main__":
    hold_lifeline()
    merge(*(Path(name) for name in sys.argv[1:4]))
