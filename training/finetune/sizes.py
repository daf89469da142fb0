"""How large a base is, from the headers of its weight files. Loads no weights and no model library."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from generation.adapters import base_digest

MAX_HEADER = 64 * 1024**2


@dataclass(frozen=True)
class BaseSize:
    """``linear``: (out, in) of every layer that LoRA adapts."""

    digest: str
    parameters: int
    hidden: int
    layers: int
    context: int
    linear: tuple[tuple[int, int], ...]

    def lora_parameters(self, rank: int) -> int:
        return sum(rank * (rows + columns) for rows, columns in self.linear)


def size_of_base(folder: Path) -> BaseSize:
    """Raises OSError or ValueError for a folder that is no base, and generation.engines.EngineUnavailable as
    `generation.adapters.base_digest`."""
    config = json.loads((folder / "config.json").read_bytes())
    config = config.get("text_config", config)
    shapes: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        shapes |= shapes_of(path)
    linear = tuple(
        (shape[0], shape[1])
        for name, shape in shapes.items()
        if len(shape) == 2 and not any(part in name for part in ("embed", "lm_head", "wte", "wpe"))
    )
    return BaseSize(
        digest=base_digest(folder),
        parameters=sum(math.prod(shape) for shape in shapes.values()),
        hidden=int(config.get("hidden_size", 0)),
        layers=int(config.get("num_hidden_layers", 0)),
        context=int(config.get("max_position_embeddings", 0)),
        linear=linear,
    )


def shapes_of(path: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of a safetensors file. Raises OSError or ValueError."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= MAX_HEADER:
            raise ValueError(f"{path.name} is no safetensors file.")
        header = json.loads(file.read(length))
    return {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
