"""The glance of the name model: it spares most of the work on text without names, and loses none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from privacy.name_model import finder
from privacy.name_model.batches import BATCH_PIECES, grouped
from privacy.name_model.finder import NameModel, name_model
from privacy.name_model.labels import LABELS
from privacy.name_model.network import Network, worth_computing
from privacy.name_model.pieces import read_pieces
from privacy.name_model.segments import segments
from privacy.name_model.weights import FOLDER, NameModelError
from training.name_model import development
from training.name_model.glance import whole


@pytest.fixture(scope="module")
def all_layers() -> Network:
    return whole(FOLDER)


def windows_of(texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    model = name_model()
    sentences = [text[start:end] for text in texts for start, end in segments(text)]
    found = [read_pieces(model._tokenizer, sentence) for sentence in sentences]
    return [(pieces.ids[:128], pieces.features[:128]) for pieces in found if len(pieces)]


def test_no_piece_of_a_name_is_lost_by_it(all_layers: Network) -> None:
    windows = windows_of([item.text for item in development.chats()])
    quick, full = name_model()._network.probabilities(windows), all_layers.probabilities(windows)
    named = [(1 - one[:, 0], 1 - other[:, 0]) for one, other in zip(quick, full, strict=True)]
    assert sum(int((other >= 0.25).sum()) for _, other in named) > 800
    # What goes out counts as no name at all; what stays is computed as ever, whatever it is computed with.
    assert max(float(np.abs(one - other)[other >= 0.25].max(initial=0)) for one, other in named) < 0.05
    assert max(float(other[one == 0].max(initial=0)) for one, other in named) < 0.25


def test_most_of_technical_prose_is_done_after_it(all_layers: Network) -> None:
    windows = windows_of([item.text for item in development.technical()])
    network = name_model()._network
    size = sum(len(ids) for ids, _ in windows)
    wanted = [worth_computing(window.glance, network._below) for window in network.begun(windows)]
    assert sum(len(pieces) for pieces in wanted) < 0.5 * size
    assert sum(not len(pieces) for pieces in wanted) > 0.4 * len(windows)
    assert sum(len(worth_computing(window.glance, -np.inf)) for window in all_layers.begun(windows)) == size


def test_a_limit_that_lets_names_go_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "names"))
    plain = json.loads((folder / "config.json").read_text())
    assert plain["glance_below"] < 0
    (folder / "config.json").write_text(json.dumps({**plain, "glance_below": 50.0}))
    with pytest.raises(NameModelError, match="says something else"):
        NameModel(folder)


def test_what_stands_beside_a_candidate_is_computed_too() -> None:
    glance = np.array([-9, -9, -9, 3, -9, -9, -9, -9, 2], dtype=np.float32)
    assert worth_computing(glance, 0.0).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert worth_computing(glance, 5.0).tolist() == []
    assert worth_computing(glance[:1], -10.0).tolist() == [0]


def test_windows_of_every_length_come_back_in_their_places() -> None:
    network = name_model()._network
    texts = ["Anna", "Ask Anna Keller in Bonn.", "x", "It was paid. " * 12, "Write to Henrietta Vasquez, Leeds. " * 6]
    windows = [
        (pieces.ids[:128], pieces.features[:128])
        for text in texts
        for pieces in [read_pieces(name_model()._tokenizer, text)]
    ]
    together = network.probabilities(windows)
    assert [said.shape for said in together] == [(len(ids), len(LABELS)) for ids, _ in windows]
    assert all(np.allclose(said.sum(axis=1), 1, atol=1e-4) for said in together)
    for window, said in zip(windows, together, strict=True):
        assert np.abs(network.probabilities([window])[0] - said).max() < 0.02
    assert network.probabilities([]) == []


def test_groups_are_taken_as_they_are_needed() -> None:
    taken: list[int] = []

    def lengths() -> object:
        for length in (100, 60, 60, 8, 8, 300, 5):
            taken.append(length)
            yield length

    groups = grouped(lengths(), lambda length: length)  # type: ignore[arg-type]
    assert next(groups) == [100]
    assert taken == [100, 60]
    assert list(groups) == [[60, 60], [8, 8], [300], [5]]
    assert BATCH_PIECES == 128


def test_a_scrubber_reads_with_the_glance() -> None:
    assert np.isfinite(finder.name_model().config.below)
