"""How the name model is made: labelled texts, batches, and weights that are read in bytes as torch reads them."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from privacy.name_model.finder import NameModel
from privacy.name_model.labels import LABELS, TYPES, WINDOW
from privacy.name_model.pieces import FEATURES, load_tokenizer, read_pieces
from privacy.name_model.tensors import quantised
from privacy.name_model.weights import CONFIG, FOLDER, GRAPHS, encoder_folder
from training.name_model import development, evaluate, export, graph
from training.name_model.fill import Filler
from training.name_model.network import NameNetwork
from training.name_model.noise import Cell, cells, disturb
from training.name_model.pools import held_out, templates
from training.name_model.rows import IGNORED, Row, batches, piece_labels


@pytest.fixture(scope="module")
def filler() -> Filler:
    return Filler(3, hold_out=False)


def test_there_are_many_templates_and_every_one_can_be_filled(filler: Filler) -> None:
    forms = templates(hold_out=False) + templates(hold_out=True)
    assert len({form for _, form in forms}) == len(forms) >= 900
    labels = {piece.label for _, form in forms for piece in filler.fill(form)}
    assert labels == {None, "IGNORE", *TYPES}


def test_held_out_names_are_not_among_those_of_training(filler: Filler) -> None:
    locale = filler._locales["de_DE"]
    assert len(locale.last) > 300
    assert not any(map(held_out, locale.first + locale.last))


def test_names_side_by_side_are_one_name(filler: Filler) -> None:
    made = cells(filler.fill("I am {first} {last}, hello"))
    labelled = "".join(cell.char for cell in made if cell.label == "PERSON")
    assert " " in labelled
    assert "".join(cell.char for cell in made).startswith(f"I am {labelled}")


def test_noise_keeps_labels_with_their_letters() -> None:
    text = [Cell(char, "PERSON" if char in "XYZ" else None) for char in "the Xaver of Ypern met Zoe"]
    for seed in range(200):
        for cell in disturb(text, random.Random(seed)):
            assert (cell.label == "PERSON") == (cell.char in "XYZxyz")


def test_labels_of_pieces() -> None:
    tokenizer = load_tokenizer(encoder_folder())
    text = "Ask Anna-Lena Öztürk in Bonn about ABC Ltd"
    spans = [(4, 20, "PERSON"), (24, 28, "LOCATION"), (35, 42, "IGNORE")]
    pieces = read_pieces(tokenizer, text)
    labels = piece_labels(pieces, spans)
    told = {text[s:e]: int(label) for s, e, label in zip(pieces.starts, pieces.ends, labels, strict=True)}
    assert told["Ask"] == told["in"] == told["about"] == 0
    assert LABELS[told["Anna"]] == "B-PERSON"
    assert LABELS[told["Lena"]] == LABELS[told["-"]] == "I-PERSON"
    assert LABELS[told["Bonn"]] == "B-LOCATION"
    assert told["ABC"] == IGNORED


def test_batches_hold_every_row_once() -> None:
    sizes = [3, 90, 14, 14, 60, 1, 127]
    rows = [Row(np.full(n, 7, np.int32), np.zeros((n, FEATURES), np.float32), np.zeros(n, np.int64)) for n in sizes]
    seen = []
    for ids, _, mask, labels in batches(rows, 160, random.Random(1)):
        assert ids.numel() <= max(160, WINDOW + 2)
        seen += (mask.sum(1) - 2).tolist()
        assert ((labels != IGNORED).sum(1) == mask.sum(1) - 2).all()
    assert sorted(seen) == sorted(sizes)


def test_exported_weights_are_read_as_torch_reads_them(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = NameNetwork(encoder_folder(), layers=2, rank=4).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                # Half precision on the way, so that storing it loses nothing.
                parameter.copy_((torch.randn_like(parameter) * 0.05).half().float())
    save_file(network.delta(), tmp_path / "delta.safetensors", metadata={"layers": "2", "rank": "4"})
    export.write(tmp_path, tmp_path / "names", {kind: [[0.0, 1.0], [0.0, 1.0]] for kind in TYPES})
    model = NameModel(tmp_path / "names")
    texts = ["Anna Müller lives in Ulm.", "CALL ME at 5, or ask o'brien_99 (code.name)"]
    wrong = []
    for text in texts:
        pieces = read_pieces(load_tokenizer(encoder_folder()), text)
        row = Row(pieces.ids, pieces.features, np.zeros(len(pieces), np.int64))
        ids, features, mask, _ = next(iter(batches([row], 200, None)))
        with torch.inference_mode():
            expected = torch.softmax(network(ids, features, mask), -1)[0, 1:-1].numpy()
        wrong.append(np.abs(model.piece_probabilities(text) - expected))
    # What bytes leave; a tensor in the wrong place is off by some .3.
    assert np.concatenate(wrong).max() < 0.05
    assert np.concatenate(wrong).mean() < 0.005


def test_the_shipped_graphs_are_those_that_are_built() -> None:
    layers = json.loads((FOLDER / CONFIG).read_text(encoding="utf-8"))["layers"]
    assert tuple((FOLDER / name).read_bytes() for name in GRAPHS) == graph.made(layers)


def test_weights_lose_little_as_bytes() -> None:
    weight = np.random.default_rng(1).standard_normal((384, 30)).astype(np.float32)
    weight[:, 0] = 0
    whole, steps = quantised(weight)
    assert whole.dtype == np.int8
    assert np.abs(whole.astype(int)).max() == 127
    assert (whole[:, 0] == 0).all()
    assert np.square(weight - whole * steps).mean() < 0.0001 * np.square(weight).mean()


def test_development_sets_are_labelled_and_the_shipped_model_does_well_on_them() -> None:
    chats, prose = development.chats(), development.technical()
    assert len(chats) >= 150
    assert sum(len(item.text) for item in prose) >= 20_000
    assert all(item.text[start:end].strip() == item.text[start:end] for item in chats for start, end, _ in item.spans)
    model = NameModel()
    thresholds = dict.fromkeys(TYPES, 0.4)
    assert evaluate.figures(model, chats, thresholds)["masked"] > 0.88
    assert evaluate.figures(model, prose, thresholds)["vain_chars"] < 0.005
