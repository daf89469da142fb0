"""The glance is trained on what the whole model says, and computed as it was trained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from privacy.name_model.finder import NameModel
from privacy.name_model.weights import CONFIG, DELTA, FOLDER, NameModelError
from training.name_model import development, glance
from training.name_model.glance import Told


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    texts = [item.text for item in (*development.chats()[:60], *development.technical()[:12])]
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    return path


def test_a_glance_is_trained_written_and_computed_alike(data: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "names"))
    windows = glance.windows(data, 80, seed=1)
    assert len(windows) == 80
    examples = glance.told(glance.whole(folder), windows)
    head = glance.trained(examples, epochs=40, seed=1)
    said = list(glance.scores(head, examples))
    named = np.concatenate([example.named for example in examples])
    # It has seen these, so it tells them apart.
    assert np.concatenate(said)[named > 0.9].mean() > np.concatenate(said)[named < 0.01].mean() + 2
    below = glance.limit_of(said, examples)
    told = glance.figures(said, examples, below)
    assert told["lost_windows"] == 0
    assert told["windows_with_names"] > 20

    glance.write(folder, head.tensors(), below)
    assert json.loads((folder / CONFIG).read_text())["glance_below"] == below
    network = NameModel(folder)._network
    computed = {window.number: window.glance for window in network.begun(windows)}
    order = [window.number for window in glance.whole(folder).begun(windows)]
    # Weights in half precision, and other neighbours in a batch of bytes.
    assert max(np.abs(computed[n] - s).max() for n, s in zip(order, said, strict=True)) < 0.35


def test_a_limit_needs_a_window_with_a_name() -> None:
    nothing = Told(np.zeros((5, 401), dtype=np.float16), np.zeros(3, dtype=np.float32))
    with pytest.raises(ValueError):
        glance.limit_of([np.zeros(3, dtype=np.float32)], [nothing])


def test_a_glance_of_other_shapes_is_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "names"))
    tensors = glance.Head().tensors()
    tensors["glance.head"] = np.zeros((3, 1), dtype=np.float32)
    with pytest.raises(NameModelError, match="other shapes"):
        glance.write(folder, tensors, -5.0)
    assert (folder / DELTA).is_file()
    assert torch.is_grad_enabled()
