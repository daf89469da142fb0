"""What a base folder and an adapter folder must be before anything of them is used. Needs no model library.

An adapter folder is data from elsewhere: a list of allowed files, a manifest with the sha256 of each, weights in
safetensors only. Nothing in it is ever unpickled, followed or executed.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from generation.engines import AdapterRefused, EngineUnavailable

CONFIG, WEIGHTS, MANIFEST, README = "adapter_config.json", "adapter_model.safetensors", "manifest.json", "README.md"
ALLOWED_FILES = frozenset({CONFIG, WEIGHTS, MANIFEST, README})
MAX_WEIGHTS_BYTES = 2 * 1024**3
MAX_TEXT_BYTES = 1024**2
MAX_RANK = 256
MAX_ALPHA = 1e6
DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Bytes of a number, by safetensors' name of what LoRA matrices are made of."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,119}")
"""PEFT keeps adapters as submodules: a dot would split the name."""
MODULE = re.compile(r"[\w.]{1,200}")

BASE_FILES = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""What shapes a base besides its weights: another tokenizer or template makes other text of the same prompt."""

# Keys of a LoRA configuration that are honoured. Any other one must be at its default, or the adapter is refused:
# half-understood settings would serve another model than the one that was evaluated.
HONOURED = frozenset(
    {
        "r",
        "lora_alpha",
        "target_modules",
        "use_rslora",
        "rank_pattern",
        "alpha_pattern",
        "fan_in_fan_out",
        "layers_to_transform",
    }
)
# Say how the training began or where it ran; without effect on a trained adapter.
INFORMATIVE = frozenset(
    {
        "peft_type",
        "task_type",
        "auto_mapping",
        "peft_version",
        "base_model_name_or_path",
        "revision",
        "inference_mode",
        "lora_dropout",
        "init_lora_weights",
        "megatron_core",
        "eva_config",
        "loftq_config",
        "qalora_group_size",
        "runtime_config",
        "ensure_weight_tying",
        "modules_to_save",
        "bias",
        "use_dora",
    }
)
NEUTRAL_INITS = (True, False, "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base weights alone. PiSSA, OLoRA and the like change them during training."""


@dataclass(frozen=True)
class CheckedAdapter:
    """An adapter folder that passed. ``weights`` are the very bytes that were checked: nothing is read twice."""

    config: dict[str, Any]
    weights: bytes
    digest: str
    manifest: dict[str, Any]


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def base_digest(folder: Path | str) -> str:
    """Names a base model: sha256 over ``sha256sum`` lines of its weights, tokenizer, template and configuration.

    The same as ``sha256sum FILES | sha256sum`` in the folder, files in alphabetical order.

    Raises:
        EngineUnavailable: the folder or its weights are missing.
    """
    folder = Path(folder)
    paths = sorted(
        [*folder.glob("*.safetensors"), *(folder / name for name in BASE_FILES if (folder / name).is_file())],
        key=lambda path: path.name,
    )
    if not any(path.suffix == ".safetensors" for path in paths):
        raise EngineUnavailable(
            f"The base model {folder} is missing or has no safetensors weights.",
            "Restore the folder, or set RATCHET_BASE_MODEL to another one.",
        )
    stamps = []
    for path in paths:
        stat = path.stat()
        stamps.append((str(path), stat.st_size, stat.st_mtime_ns))
    return _digest_of(tuple(stamps))


@lru_cache(maxsize=32)
def _digest_of(stamps: tuple[tuple[str, int, int], ...]) -> str:
    lines = [f"{file_digest(Path(name))}  {Path(name).name}\n" for name, _, _ in stamps]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def check_name(name: str) -> None:
    """Raises AdapterRefused unless ``name`` can name an adapter in every engine."""
    if not NAME.fullmatch(name):
        raise AdapterRefused(
            f"{name[:60]!r} cannot name an adapter.",
            "Use letters, digits, - and _, beginning with a letter or digit.",
            reason="name",
        )


def check_adapter(folder: Path, *, base_digest: str | None = None, prompt_digest: str | None = None) -> CheckedAdapter:
    """Reads an adapter folder, or says why not.

    ``base_digest`` and ``prompt_digest`` are what the manifest must name; None: whatever it names.

    Raises:
        AdapterRefused: ``reason`` is one of missing, extra_file, size, manifest, digest, base, prompt, config, kind,
            weights.
    """
    folder = Path(folder)
    _check_files(folder)
    manifest = _json(folder / MANIFEST, "manifest")
    config_bytes = (folder / CONFIG).read_bytes()
    weights = (folder / WEIGHTS).read_bytes()
    digest = hashlib.sha256(weights).hexdigest()
    files = manifest.get("files")
    if not isinstance(files, Mapping) or not {CONFIG, WEIGHTS} <= set(files):
        raise AdapterRefused(
            f"{MANIFEST} does not list the sha256 of {CONFIG} and {WEIGHTS}.", "Export it again.", reason="manifest"
        )
    for name, found in ((CONFIG, hashlib.sha256(config_bytes).hexdigest()), (WEIGHTS, digest)):
        if files[name] != found:
            raise AdapterRefused(
                f"{name} is not the file that the manifest names (sha256 {found[:12]}…).",
                "The folder was changed or damaged after training: restore it.",
                reason="digest",
            )
    _check_digest(manifest, "base_digest", base_digest, "base", "It was trained on another base model")
    _check_digest(manifest, "prompt_digest", prompt_digest, "prompt", "It was trained with another prompt format")
    config = _json(folder / CONFIG, "config")
    _check_config(config)
    _check_weights(weights)
    return CheckedAdapter(config=config, weights=weights, digest=digest, manifest=manifest)


def _check_files(folder: Path) -> None:
    if not folder.is_dir():
        raise AdapterRefused(
            f"There is no adapter folder {'/'.join(folder.parts[-2:])}.", "Train the adapter again.", reason="missing"
        )
    found = {path.name: path for path in folder.iterdir()}
    for name in (CONFIG, WEIGHTS, MANIFEST):
        if name not in found:
            raise AdapterRefused(f"The adapter folder has no {name}.", "Export it again.", reason="missing")
    for name, path in sorted(found.items()):
        if name not in ALLOWED_FILES or path.is_symlink() or not path.is_file():
            raise AdapterRefused(
                f"The adapter folder holds {name[:80]!r}, which does not belong there.",
                f"Only {', '.join(sorted(ALLOWED_FILES))} may be in it; pickled weights never.",
                reason="extra_file",
            )
        limit = MAX_WEIGHTS_BYTES if name == WEIGHTS else MAX_TEXT_BYTES
        if path.stat().st_size > limit:
            raise AdapterRefused(
                f"{name} is larger than {limit // 1024**2} MiB.", "Train with a lower rank.", reason="size"
            )


def _json(path: Path, reason: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except RecursionError as error:  # brackets within brackets, thousands deep
        raise AdapterRefused(f"{path.name} is nested too deeply.", "Export it again.", reason=reason) from error
    except ValueError as error:
        raise AdapterRefused(f"{path.name} is not JSON: {error}.", "Export it again.", reason=reason) from error
    if not isinstance(value, dict):
        raise AdapterRefused(f"{path.name} holds no JSON object.", "Export it again.", reason=reason)
    return value


def _check_digest(manifest: Mapping[str, Any], key: str, expected: str | None, reason: str, sentence: str) -> None:
    found = manifest.get(key)
    if not isinstance(found, str) or not found:
        raise AdapterRefused(f"{MANIFEST} does not say its {key}.", "Export it again.", reason="manifest")
    if expected is not None and found != expected:
        raise AdapterRefused(
            f"{sentence} ({found[:12]}, not {expected[:12]}).",
            "Train a new adapter, or restore that one.",
            reason=reason,
        )


def _check_config(config: Mapping[str, Any]) -> None:
    def refuse(sentence: str) -> AdapterRefused:
        return AdapterRefused(
            sentence, "Train a plain LoRA adapter: its rows can be mixed with others in one batch.", reason="kind"
        )

    if config.get("peft_type") != "LORA":
        raise refuse(f"Adapters of kind {str(config.get('peft_type'))[:40]!r} are not served.")
    if config.get("use_dora"):
        raise refuse("DoRA adapters cannot be mixed with others in one batch.")
    if config.get("modules_to_save") or config.get("bias", "none") != "none":
        raise refuse("The adapter replaces whole parts of the base model (modules_to_save or bias).")
    start = config.get("init_lora_weights", True)
    if start not in NEUTRAL_INITS:
        raise refuse(f"The adapter was saved in the form of its {str(start)[:40]!r} start, which changes the base.")
    unknown = sorted(key for key, value in config.items() if value and key not in HONOURED | INFORMATIVE)
    if unknown:
        raise refuse(f"The adapter uses settings that are not served: {', '.join(unknown)[:200]}.")
    _check_numbers(config)
    targets = config.get("target_modules")
    named = isinstance(targets, list) and all(isinstance(name, str) and MODULE.fullmatch(name) for name in targets)
    if not targets or not (named or targets == "all-linear"):
        # A plain string would be a regular expression from a file that others can write.
        raise AdapterRefused("target_modules must list the adapted modules.", "Export it again.", reason="config")


def _check_numbers(config: Mapping[str, Any]) -> None:
    """What is honoured is what PEFT expects: it looks at nothing before the first layer is built with it."""

    def refuse(sentence: str, hint: str = "Export it again.") -> NoReturn:
        raise AdapterRefused(sentence, hint, reason="config")

    ranks, alphas = config.get("rank_pattern") or {}, config.get("alpha_pattern") or {}
    if not isinstance(ranks, dict) or not isinstance(alphas, dict):
        refuse("rank_pattern and alpha_pattern name modules and their numbers.")
    if not all(MODULE.fullmatch(pattern) for pattern in (*ranks, *alphas)):
        refuse("rank_pattern and alpha_pattern name modules plainly.")
    if not all(_is_whole(rank) and 1 <= rank <= MAX_RANK for rank in (config.get("r"), *ranks.values())):
        refuse(f"LoRA ranks are 1 to {MAX_RANK}.", "Train with a lower rank.")
    alpha = config.get("lora_alpha")
    given = list(alphas.values()) if alpha is None else [alpha, *alphas.values()]
    if not all(_is_alpha(value) for value in given):
        refuse("lora_alpha and alpha_pattern are numbers.")
    if not all(isinstance(config.get(key), bool | None) for key in ("use_rslora", "fan_in_fan_out")):
        refuse("use_rslora and fan_in_fan_out are true or false.")
    layers = config.get("layers_to_transform")
    if not all(_is_whole(layer) for layer in (layers if isinstance(layers, list) else [layers or 0])):
        refuse("layers_to_transform lists the numbers of layers.")


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_alpha(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -MAX_ALPHA <= value <= MAX_ALPHA


def _check_weights(weights: bytes) -> None:
    """The header names every tensor: LoRA matrices and nothing else, which together fill the file."""
    length = int.from_bytes(weights[:8], "little")
    try:
        if not 0 < length <= len(weights) - 8:
            raise ValueError("wrong header length")
        header = json.loads(weights[8 : 8 + length].decode())
        if not isinstance(header, dict):
            raise TypeError("no object")
    except (ValueError, TypeError, RecursionError) as error:
        raise AdapterRefused(f"{WEIGHTS} is no safetensors file.", "Export it again.", reason="weights") from error
    names = [name for name in header if name != "__metadata__"]
    strange = [name for name in names if ".lora_A." not in name and ".lora_B." not in name]
    if strange or not names:
        raise AdapterRefused(
            f"{WEIGHTS} holds tensors other than LoRA matrices: {strange[0][:80] if strange else 'none at all'}.",
            "Export the LoRA matrices only.",
            reason="weights",
        )
    _check_places({name: header[name] for name in names}, len(weights) - 8 - length)


def _check_places(entries: Mapping[str, Any], size: int) -> None:
    """Each entry says of what kind and shape its matrix is and where it lies; side by side they are all ``size`` bytes:
    a file that was cut short says so here, and not while somebody waits for an answer of it."""
    places = []
    for name, entry in entries.items():
        begin, end = _place_of(entry) or (0, -1)
        if begin > end:
            raise AdapterRefused(
                f"{WEIGHTS} does not say what the matrix {name[:80]} is.", "Export it again.", reason="weights"
            )
        places.append((begin, end))
    places.sort()
    ends = [0, *(end for _, end in places)]
    if [begin for begin, _ in places] != ends[:-1] or ends[-1] != size:
        raise AdapterRefused(
            f"{WEIGHTS} holds {size:,} bytes of numbers, its matrices take {ends[-1]:,}.",
            "The file was cut short or damaged: copy or export it again.",
            reason="weights",
        )


def _place_of(entry: object) -> tuple[int, int] | None:
    """Where a matrix begins and ends; None when its kind, shape and place do not go together."""
    if not isinstance(entry, dict):
        return None
    kind, shape, place = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (isinstance(kind, str) and isinstance(shape, list) and isinstance(place, list)):
        return None
    if kind not in DTYPES or [len(shape), len(place)] != [2, 2] or not all(map(_is_whole, (*shape, *place))):
        return None
    begin, end = place
    if min(shape) < 1 or begin < 0 or end - begin != shape[0] * shape[1] * DTYPES[kind]:
        return None
    return begin, end
