from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from generation.embedder import BUNDLED_SHA256, Embedder, load_embedder, weights_digest
from generation.engines import EngineUnavailable
from generation.products import Product
from generation.reading import multiplies_bfloat16, reader_of

TEXTS = [
    "The exit fee is £35.",
    "How do I leave the tariff? " * 100,  # longer than the model reads
    "Ünïcode naïve 你好 🙂",
    "",
    "What does it cost to leave early?",
    "The boiler shows code E4.",
]


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return load_embedder()


def test_the_same_vectors_as_sentence_transformers(embedder: Embedder) -> None:
    from sentence_transformers import SentenceTransformer

    theirs = SentenceTransformer(str(embedder.folder), device="cpu", local_files_only=True).encode(TEXTS)
    ours = embedder.embed(TEXTS)
    assert ours.dtype == np.float32
    assert ours.shape == (len(TEXTS), 384)
    assert ((ours * theirs).sum(1) > 0.99999).all()


def test_passes_of_our_own_say_what_the_model_says(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    found = embedder.embed(TEXTS)
    assert embedder._reader is not None
    monkeypatch.setattr("generation.embedder.reader_of", lambda model, quick: None)
    plain = Embedder(embedder.folder)
    assert np.abs(plain.embed(TEXTS) - found).max() < 1e-5
    assert plain._reader is None


def test_nobody_reads_a_model_whose_weights_are_being_packed(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two threads whose texts are the first ones, the second must not find what the first has not finished."""
    packed, go_on = threading.Event(), threading.Event()

    def slowly(model: Any, *, quick: bool) -> Any:
        found = reader_of(model, quick=quick)
        packed.set()
        assert go_on.wait(60)
        return found

    monkeypatch.setattr("generation.embedder.reader_of", slowly)
    late = Embedder(embedder.folder)
    with ThreadPoolExecutor(1) as other:
        first = other.submit(late.embed, TEXTS)
        assert packed.wait(60)
        monkeypatch.setattr("generation.embedder.reader_of", reader_of)
        try:
            second = late.embed(TEXTS)
        finally:
            go_on.set()
        assert np.abs(first.result(60) - second).max() < 1e-5


def test_a_model_that_says_something_else_is_left_as_it_was(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rightly = Product.__call__
    monkeypatch.setattr(Product, "__call__", lambda self, x: rightly(self, x) * 1.01)
    other = Embedder(embedder.folder)
    vectors = other.embed(TEXTS)
    monkeypatch.undo()
    assert other._reader is None
    assert np.abs(vectors - embedder.embed(TEXTS)).max() < 1e-5
    assert "what it says differs" in caplog.text


@pytest.mark.parametrize("quick", [False, True])
def test_a_model_of_which_one_text_is_no_number_is_left_as_it_was(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """The last of the texts that are tried: what comes before it says that all is well."""
    expected, rightly = embedder.embed(TEXTS), Product.__call__

    def broken(self: Product, x: Any) -> Any:
        found = rightly(self, x).clone()
        found[20:] = float("nan")
        return found

    monkeypatch.setattr(Product, "__call__", broken)
    other = Embedder(embedder.folder, quick=quick)
    assert np.abs(other.embed(TEXTS) - expected).max() < 1e-5
    assert other._reader is None


def test_a_model_of_another_kind_is_loaded_once(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[str] = []
    load = Embedder._bare_model

    def of_another_kind(self: Embedder) -> Any:
        loaded.append("once")
        model = load(self)
        model.config.model_type = "another"
        return model

    monkeypatch.setattr(Embedder, "_bare_model", of_another_kind)
    other = Embedder(embedder.folder, quick=True)
    assert np.abs(other.embed(TEXTS) - embedder.embed(TEXTS)).max() < 1e-5
    assert loaded == ["once"]


needs_bfloat16 = pytest.mark.skipif(not multiplies_bfloat16(), reason="this processor does not multiply bfloat16")


@needs_bfloat16
def test_questions_are_read_roughly_and_in_half_of_the_memory(embedder: Embedder) -> None:
    roughly = Embedder(embedder.folder, quick=True)
    found, exact = roughly.embed(TEXTS), embedder.embed(TEXTS)
    turned = 1 - (found * exact).sum(1)
    assert 0 < turned.max() < 2e-4
    assert roughly._reader is not None
    assert {part._dtype for layer in roughly._reader._layers for part in (layer.heads, layer.down)} == {torch.bfloat16}


@needs_bfloat16
@pytest.mark.parametrize("factor", [1.01, -1.0])
def test_rough_passes_that_say_something_else_give_way_to_exact_ones(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, factor: float
) -> None:
    rightly = Product.__call__

    def wrongly(self: Product, x: Any) -> Any:
        return rightly(self, x) * (factor if self._dtype == torch.bfloat16 else 1)

    monkeypatch.setattr(Product, "__call__", wrongly)
    if factor > 0:
        monkeypatch.setattr("generation.reading.ROUGHLY", 1e-9)
    found = Embedder(embedder.folder, quick=True).embed(TEXTS)
    assert np.abs(found - embedder.embed(TEXTS)).max() < 1e-5
    assert "what it says differs" in caplog.text


def test_where_the_processor_cannot_questions_are_read_as_everything_is(
    embedder: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("generation.reading.multiplies_bfloat16", lambda: False)
    assert np.abs(Embedder(embedder.folder, quick=True).embed(TEXTS) - embedder.embed(TEXTS)).max() < 1e-6


def test_vectors_have_length_one_and_mean_something(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert vectors[0] @ vectors[4] > vectors[0] @ vectors[5]


def test_a_vector_does_not_depend_on_its_batch(embedder: Embedder) -> None:
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    for batch in (1, 2, 32):
        assert np.abs(embedder.embed(TEXTS, batch=batch) - alone).max() < 1e-6


def test_nothing_gives_nothing(embedder: Embedder) -> None:
    assert embedder.embed([]).shape == (0, 384)


def test_tokens_are_counted_without_loading_a_model(embedder: Embedder) -> None:
    assert embedder.max_tokens == 256
    assert embedder.count_tokens("The exit fee is £35.") == 7
    assert embedder.count_tokens("fee " * 1000) == 1000
    code = (
        "import sys; from generation.embedder import load_embedder, weights_digest;"
        "assert load_embedder().count_tokens('exit fee') == 2; weights_digest(); assert 'torch' not in sys.modules"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root / "platform")


def test_the_bundled_weights_are_the_known_ones() -> None:
    assert weights_digest() == BUNDLED_SHA256


def test_changed_weights_are_refused_before_they_are_used(embedder: Embedder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(embedder.folder, tmp_path / "model"))
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(EngineUnavailable, match="not the known ones"):
        Embedder(folder, expected_sha256=BUNDLED_SHA256).embed(["text"])


def test_another_folder_with_cls_pooling(embedder: Embedder, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(embedder.folder, tmp_path / "model"))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    other = load_embedder(str(folder)).embed(["The exit fee is £35."])
    assert abs(np.linalg.norm(other) - 1) < 1e-5
    assert (other @ embedder.embed(["The exit fee is £35."]).T).item() < 0.999


def test_a_model_with_other_parts_goes_through_the_library(embedder: Embedder, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    base = Transformer(str(embedder.folder))
    folder = tmp_path / "model"
    SentenceTransformer(
        modules=[base, Pooling(384, "mean"), Dense(384, 384), Normalize()], device="cpu"
    ).save_pretrained(str(folder))
    theirs = SentenceTransformer(str(folder), device="cpu").encode(TEXTS)
    assert ((load_embedder(str(folder)).embed(TEXTS) * theirs).sum(1) > 0.99999).all()


@pytest.mark.parametrize("name", ["/nowhere/at/all", "models/none", "nobody/no-such-model", "../../etc"])
def test_a_missing_embedder_is_one_sentence_with_a_hint(name: str) -> None:
    with pytest.raises(EngineUnavailable) as missing:
        load_embedder(name)
    assert missing.value.sentence.endswith(".")
    assert missing.value.hint


def test_a_folder_that_is_no_embedder(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"modules\.json"):
        load_embedder(str(tmp_path))
