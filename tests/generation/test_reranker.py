"""A cross-encoder made on the spot: it orders, the engine serves it, and what is none is refused in a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from generation.engines import EngineError, EngineUnavailable
from generation.reranker import load_reranker, weights_digest

TEXTS = ["The fee is £35.", "Read the meter on the first day.", "We pay 12 p for each unit."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with the bundled embedder's tokenizer: what it says means nothing, that it says it does."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    from generation.folders import BUNDLED_EMBEDDER, model_folder

    path = tmp_path_factory.mktemp("reranker")
    tokenizer = AutoTokenizer.from_pretrained(model_folder(BUNDLED_EMBEDDER), local_files_only=True)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        num_labels=1, initializer_range=1.0,
    )  # fmt: skip
    BertForSequenceClassification(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def test_it_scores_each_text_the_same_way_every_time(folder: Path) -> None:
    reranker = load_reranker(str(folder))
    scores = reranker.score("What is the fee?", TEXTS)
    assert len(set(scores)) == len(TEXTS)
    assert reranker.score("What is the fee?", TEXTS[::-1]) == pytest.approx(scores[::-1], abs=1e-4)
    assert reranker.score("What is the fee?", []) == []
    assert len(weights_digest(str(folder))) == 64


def test_what_is_none_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="No reranker is set"):
        load_reranker("")
    with pytest.raises(EngineUnavailable, match="missing"):
        load_reranker(str(tmp_path / "away"))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EngineUnavailable, match="cannot be loaded"):
        load_reranker(str(tmp_path)).score("q", ["a"])
    with pytest.raises(EngineUnavailable, match=r"no model\.safetensors"):
        weights_digest(str(tmp_path))


@pytest.mark.django_db
def test_a_configuration_may_rerank(folder: Path, settings: object) -> None:
    from knowledge.configuration import RetrievalSettings, config_digest
    from knowledge.retrieval import retrieve
    from knowledge.services import load_document
    from tests.factories import make_assistant

    settings.RATCHET_RERANKER = str(folder)  # type: ignore[attr-defined]
    assistant = make_assistant()
    for number, text in enumerate(TEXTS):
        load_document(assistant=assistant, path=f"{number}.md", data=f"# Part {number}\n\n{text}".encode())
    plain, reranked = RetrievalSettings(), RetrievalSettings(rerank=True)
    found = retrieve(assistant=assistant, question="What is the fee?", settings=reranked).passages
    read = load_reranker(str(folder)).score("What is the fee?", [f"{p.title}\n{p.text}" for p in found])
    assert read == sorted(read, reverse=True)
    assert config_digest(assistant, plain) != config_digest(assistant, reranked)


def test_the_engine_serves_it(folder: Path, tmp_path: Path) -> None:
    from generation.client import EngineClient
    from generation.engines import BadRequest, EngineBusy
    from generation.local import TransformersEngine
    from generation.server import MAX_RERANK_CALLS, MAX_RERANKED, Service
    from tests.servers import serving
    from tests.tiny_model import shared_base

    engine = TransformersEngine(shared_base(), cut_loops=False)
    for name, reranker in (("with", str(folder)), ("without", "")):
        service = Service(engine, token="t", reranker=reranker)
        with serving(service.app(), uds=tmp_path / f"{name}.sock", lifespan="on") as address:
            client = EngineClient(address, "t")
            if reranker:
                expected = load_reranker(reranker).score("What is the fee?", TEXTS)
                service._embed_calls = MAX_RERANK_CALLS  # a crowd's questions wait for their vectors
                assert client.rerank("What is the fee?", TEXTS) == pytest.approx(expected, abs=1e-4)
                with pytest.raises(BadRequest):
                    client.rerank("q", ["a"] * (MAX_RERANKED + 1))
                service._rerank_calls = MAX_RERANK_CALLS
                with pytest.raises(EngineBusy, match="wait for the reranker"):
                    client.rerank("q", TEXTS)
                service._rerank_calls = 0
            else:
                with pytest.raises(EngineUnavailable, match="No reranker is set"):
                    client.rerank("q", TEXTS)
            with pytest.raises(EngineError, match="token"):
                EngineClient(address, "wrong").rerank("q", TEXTS)
