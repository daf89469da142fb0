"""Support judged by a classifier: a tiny random one, made here, since the way is tested and not the judgement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from generation.engines import EngineUnavailable
from generation.prompts import Answer, PromptPassage, SentenceRef
from training.evaluation.metrics import citation_quality
from training.evaluation.nli import NliModel, entailment

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "exit", "fee", "is", "35", "moon"]


def make_classifier(folder: Path, labels: list[str], *, seed: int = 0) -> Path:
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        id2label=dict(enumerate(labels)), label2id={label: i for i, label in enumerate(labels)},
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = BertForSequenceClassification(config)
        model.classifier.bias.data[0] = 5.0  # always the first class
    model.save_pretrained(folder)
    return folder


def test_the_class_of_entailment_is_found_by_its_name(tmp_path: Path) -> None:
    yes = NliModel(str(make_classifier(tmp_path / "yes", ["ENTAILMENT", "neutral", "contradiction"])))
    no = NliModel(str(make_classifier(tmp_path / "no", ["contradiction", "entailment"])))
    not_first = NliModel(str(make_classifier(tmp_path / "not", ["not_entailment", "entailment"])))
    premise = "the exit fee is 35 " * 400  # longer than the model: cut, not refused
    assert [model(premise, "the fee is 35") for model in (yes, no, not_first)] == [True, False, False]
    answer = Answer("The fee is 35.", "The fee is 35. [1]", (SentenceRef(1, 0),), declined=False)
    passages = [PromptPassage(1, "T", "The moon is made of cheese.")]
    assert citation_quality(answer, passages).recall == 0.0
    assert citation_quality(answer, passages, entails=yes).recall == 1.0


def test_what_is_no_such_model_is_refused(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(EngineUnavailable, match="no one class of entailment"):
        NliModel(str(make_classifier(tmp_path / "other", ["good", "bad"])))
    (tmp_path / "empty").mkdir()
    with pytest.raises(EngineUnavailable):
        NliModel(str(tmp_path / "empty"))
    settings.RATCHET_NLI_MODEL = ""
    assert entailment() is None
