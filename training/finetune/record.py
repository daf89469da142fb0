"""The record of a training: what each stage says of itself, and the adapter folder with all of it. No Django."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

from generation.adapters import CheckedAdapter
from training.finetune import world
from training.finetune.config import MIN_VALIDATION_ROWS
from training.finetune.job import Job, Material
from training.finetune.lora import Adapted


def stage_facts(material: Material, adapted: Adapted, trainer: Any, best: Any) -> dict[str, Any]:
    """What the manifest says about one stage; puts the best weights back where the settings ask for them."""
    kept_step = trainer.state.global_step
    if adapted.settings.keep == "best" and len(material.held_out) >= MIN_VALIDATION_ROWS:
        kept_step = best.restore(adapted.model) or kept_step
    history = trainer.state.log_history
    losses = [entry["loss"] for entry in history if "loss" in entry]
    margins = [entry["rewards/margins"] for entry in history if "rewards/margins" in entry]
    facts = {
        "method": material.stage,
        "settings": adapted.settings.as_dict(),
        "why": adapted.why,
        "data": {
            "rows": len(material.rows),
            "weighted_rows": len(material.repeated),
            "validation_rows": len(material.held_out),
            "longest": material.longest,
            "tokens": material.tokens,
            "rows_sha256": sha256_of(material.source),
        },
        "losses": {
            "first": losses[0],
            "last": losses[-1],
            "validation": [{"step": e["step"], "loss": e["eval_loss"]} for e in history if "eval_loss" in e],
        },
        "steps": trainer.state.global_step,
        "kept_step": kept_step,
        "precision": adapted.precision,
    }
    if material.stage == "kto":
        facts["data"] |= {"good_rows": material.counts.good, "bad_rows": material.counts.bad}
    if margins:
        facts["margins"] = {"first": margins[0], "last": margins[-1]}
    return facts


def package(
    job: Job,
    materials: list[Material],
    adapted: Adapted,
    parent: CheckedAdapter | None,
    done: list[dict[str, Any]],
    *,
    seconds: float,
) -> dict[str, Any]:
    """The adapter folder with the whole record of how it came to be; returns the manifest. The facts of the first stage
    stand at the top, those of all stages under ``stages``."""
    from training.finetune.packaging import library_versions, licence_of, write_adapter

    first = done[0]
    facts = {
        **job.facts,
        "base_digest": job.base_digest,
        "prompt_digest": job.prompt_digest,
        "method": job.method,
        "seed": job.seed,
        "settings": first["settings"],
        "why": [sentence for stage in done for sentence in stage["why"]],
        "data": {**job.facts.get("data", {}), **first["data"]},
        "losses": first["losses"],
        "steps": sum(stage["steps"] for stage in done),
        "kept_step": done[-1]["kept_step"],
        "stages": done,
        "seconds": round(seconds, 1),
        "device": _device_name(adapted.model),
        "processes": world.size(),
        "precision": adapted.precision,
        "quantised": job.settings.quantise,
        "base_licence": licence_of(Path(job.base)),
        "peak_mb": _peak_mb(),
        "versions": library_versions(),
    }
    if parent is not None:
        facts["parent"] = {**job.facts.get("parent", {}), "weights_sha256": parent.digest}
    return write_adapter(adapted.model, job.output, base_name=job.base_name, facts=facts)


def _device_name(model: Any) -> str:
    import torch

    return torch.cuda.get_device_name() if model.device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _peak_mb() -> int:
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1024 if sys.platform != "darwin" else 1024**2))
