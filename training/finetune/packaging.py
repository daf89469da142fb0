"""From a trained model to an adapter folder: four files, a manifest that vouches for them, and nothing else. No Django.

The folder is written beside its place, synced, and renamed: it is there whole, or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any

CONFIG, WEIGHTS, MANIFEST, CARD = "adapter_config.json", "adapter_model.safetensors", "manifest.json", "README.md"
MANIFEST_VERSION = 1
LIBRARIES = ("torch", "transformers", "peft", "trl", "accelerate", "safetensors", "tokenizers")


def library_versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}


def write_adapter(model: Any, folder: Path, *, base_name: str, facts: dict[str, Any]) -> dict[str, Any]:
    """Writes the LoRA weights of a PEFT ``model`` to ``folder``; returns the manifest.

    ``base_name`` replaces the path of the base, which means nothing elsewhere. ``facts`` become the manifest, with the
    sha256 of each file added.
    """
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model.save_pretrained(temporary, save_embedding_layers=False)
    config = json.loads((temporary / CONFIG).read_bytes())
    config["base_model_name_or_path"] = base_name
    config["target_modules"] = sorted(config["target_modules"])
    (temporary / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (temporary / CARD).write_text(card(base_name, facts), encoding="utf-8")
    for path in temporary.iterdir():
        if path.name not in (CONFIG, WEIGHTS, CARD):
            path.unlink()
    files = {name: _digest(temporary / name) for name in (CONFIG, WEIGHTS, CARD)}
    manifest = {"manifest_version": MANIFEST_VERSION, **facts, "base_model": base_name, "files": files}
    (temporary / MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    for path in temporary.iterdir():
        path.chmod(0o644)  # safetensors writes 0600; the engine may run as another user
        _sync(path)
    _sync(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    _sync(folder.parent)
    return manifest


def card(base_name: str, facts: dict[str, Any]) -> str:
    """A model card in the hub's format, from facts only."""
    data = facts["data"]
    stages = facts.get("stages") or [{**facts, "method": "sft"}]
    licence = facts.get("base_licence", "")
    lines = [
        "---",
        f"base_model: {base_name}",
        *([f"license: {licence}"] if licence else []),
        "library_name: peft",
        "pipeline_tag: text-generation",
        f"tags: [lora, {', '.join(stage['method'] for stage in stages)}, ratchet]",
        "---",
        "",
        f"# LoRA adapter for {base_name}",
        "",
        "Answers questions from retrieved passages, in the way of one assistant. Use it only with the base model and "
        "the prompt format whose digests are below; with another one its behaviour is unknown.",
        "",
        f"- Base: `{base_name}`, sha256 `{facts['base_digest']}`"
        + (f", licence {licence} by its own card" if licence else "; its licence is not known here"),
        f"- Prompt format: `{facts['prompt_digest']}`",
        *(
            [f"- Continues: adapter with weights sha256 `{facts['parent']['weights_sha256']}`"]
            if "parent" in facts
            else []
        ),
        *([f"- Dataset: version {data['dataset']}, content `{data['content_hash']}`"] if "dataset" in data else []),
        *(line for stage in stages for line in _stage(stage, facts["seed"])),
        f"- Training: {facts['steps']} steps, {facts['seconds']:.0f} s on {facts['device']} ({facts['precision']}"
        + (", base in 4 bits)" if facts.get("quantised") else ")"),
        "",
        "Whether it is better than the base is not said here: see the evaluation that belongs to it.",
        "",
    ]
    return "\n".join(lines)


def _stage(stage: dict[str, Any], seed: int) -> list[str]:
    """How one stage was trained, and how it went: two entries."""
    settings, data, losses = stage["settings"], stage["data"], stage["losses"]
    validation = losses.get("validation") or []
    ways = {
        "sft": "supervised, loss on the completion only",
        "dpo": f"pairs (DPO), beta {settings.get('beta', 0):g}, supervised term {settings.get('sft_weight', 0):g}",
        "kto": f"good and bad answers (KTO), beta {settings.get('beta', 0):g}",
    }
    how = (
        f"- Method: {ways[stage['method']]}; LoRA rank {settings['rank']}, alpha {settings['alpha']}, all linear "
        f"layers; learning rate {settings['learning_rate']:g}, {settings['epochs']:g} epochs, {settings['batch']} rows "
        f"per step, seed {seed}"
    )
    classes = f", {data['good_rows']} good and {data['bad_rows']} bad" if "bad_rows" in data else ""
    went = (
        f"- Data: {data['rows']} rows ({data['weighted_rows']} with repetitions{classes}), {data['validation_rows']} "
        f"for validation, sha256 `{data['rows_sha256']}`; loss {losses['first']:.3f} → {losses['last']:.3f}"
        + (f", validation {validation[-1]['loss']:.3f}" if validation else "")
    )
    return [how, went]


def licence_of(base: Path) -> str:
    """The licence that the base's own card names in its front matter; empty where it names none."""
    try:
        text = (base / "README.md").read_text(encoding="utf-8")[:20_000]
    except (OSError, ValueError):
        return ""
    front = text.partition("---\n")[2].partition("\n---")[0] if text.startswith("---\n") else ""
    found = re.search(r"^license:\s*([\w.+-]{1,60})\s*$", front, re.MULTILINE)
    return found[1] if found else ""


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
