"""Makes models/names out of a finished run: `python -m training.name_model.export --run FOLDER --data FOLDER`.

The changes are stored in half precision. A first export has straight calibration; with it the model reads the held-out
texts and the development sets, and isotonic regression turns its raw scores into probabilities, per type.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from privacy.name_model.finder import NameModel
from privacy.name_model.labels import LABELS, TYPES
from privacy.name_model.network import load_network
from privacy.name_model.pieces import load_tokenizer, read_pieces
from privacy.name_model.probes import PROBES
from privacy.name_model.weights import (
    CONFIG,
    DELTA,
    ENCODER_SHA256,
    FOLDER,
    FORMAT,
    GRAPHS,
    Config,
    Matrix,
    checked,
    encoder_folder,
)
from training.name_model import development
from training.name_model.development import Labelled
from training.name_model.graph import made

_STRAIGHT = [[0.0, 1.0], [0.0, 1.0]]
_CHECK = "Please tell Zbrvenka Tolquist in Bad Oeynhausen that the boiler at 12 Rosemount Terrace is ready."
_LEAST, _MOST = 0.01, 0.99
_TOLD = ("minutes", "steps", "pieces", "rate", "tokens", "processes", "seed")
# Prose without names is most of what is read in production and a small part of these sets.
_TECHNICAL_WEIGHT = 2.0


def write(run: Path, out: Path, calibration: dict[str, Any]) -> None:
    """The files of `out` out of a finished run, without a glance."""
    from safetensors import safe_open

    with safe_open(run / "delta.safetensors", framework="numpy") as file:
        settings = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = {
        "format": FORMAT,
        "labels": list(LABELS),
        "layers": int(settings["layers"]),
        "rank": int(settings["rank"]),
        "encoder_sha256": ENCODER_SHA256,
        "sha256": {},
        "training": {name: settings[name] for name in _TOLD if name in settings},
        "glance_below": None,
        "calibration": calibration,
    }
    finish(out, config, tensors)


def finish(out: Path, config: dict[str, Any], tensors: Mapping[str, NDArray[Any]]) -> None:
    """Writes weights, graphs and config.json, which says what they are and what the model says about the check."""
    from safetensors.numpy import save_file

    out.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.astype(np.float16) for name, tensor in tensors.items()}, out / DELTA)
    (out / DELTA).chmod(0o644)
    for name, graph in zip(GRAPHS, made(config["layers"]), strict=True):
        (out / name).write_bytes(graph)
    digests = {name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in (DELTA, *GRAPHS)}
    config = config | {"sha256": digests, "check": {"text": _CHECK, "named": []}}
    described = checked(config, list(digests.values()))
    config["check"]["named"] = said(described, out).astype(float).round(4).tolist()
    (out / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def said(described: Config, folder: Path) -> Matrix:
    """How likely each piece of the check is part of a name, by the model of a folder."""
    pieces = read_pieces(load_tokenizer(encoder_folder()), described.check[0])
    return 1 - load_network(described, folder).probabilities([(pieces.ids, pieces.features)])[0][:, 0]


def calibrated(model: NameModel, sets: Iterable[tuple[Sequence[Labelled], float]]) -> dict[str, Any]:
    """Per type the knots (raw scores, probabilities) of an isotonic regression over all hits of the weighted sets."""
    from sklearn.isotonic import IsotonicRegression

    seen: dict[str, list[tuple[float, bool, float]]] = {kind: [] for kind in TYPES}
    for texts, weight in sets:
        for item, reading in zip(texts, model.read([item.text for item in texts]), strict=True):
            for hit in reading.hits:
                touched = {kind for start, end, kind in item.spans if start < hit.end and hit.start < end}
                if touched != {"IGNORE"}:
                    seen[hit.entity_type].append((hit.raw, bool(touched), weight))
    curves = {}
    for kind, rows in seen.items():
        raw, right, weights = (np.array(column, dtype=float) for column in zip(*rows, strict=True))
        fitted = IsotonicRegression(y_min=_LEAST, y_max=_MOST, out_of_bounds="clip").fit(raw, right, weights)
        grid = np.linspace(0.25, 1.0, 16)
        # A regression has steps; a slight slope keeps the order of scores within a step.
        values = np.clip(fitted.predict(grid) + 0.002 * (grid - 0.6), _LEAST, _MOST)
        curves[kind] = [[0.0, *grid.round(4).tolist()], [0.0, *np.maximum.accumulate(values).round(4).tolist()]]
    return curves


def main() -> None:
    """Exports, calibrates, exports again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=FOLDER)
    arguments = parser.parse_args()
    write(arguments.run, arguments.out, dict.fromkeys(TYPES, _STRAIGHT))
    curves = calibrated(
        NameModel(arguments.out),
        [
            (development.held_out(arguments.data / "held_out.jsonl"), 1.0),
            (development.chats(), 1.0),
            (development.technical(), _TECHNICAL_WEIGHT),
        ],
    )
    write(arguments.run, arguments.out, curves)
    size = (arguments.out / DELTA).stat().st_size
    model = NameModel(arguments.out)
    print(json.dumps({"bytes": size, "digest": model.config.digest, "calibration": curves}))
    if model.failed_probes():
        raise SystemExit(f"It fails {model.failed_probes()} of {len(PROBES)} probes, so no process will load it.")


if __name__ == "__main__":
    main()
