"""The parametric knowledge score: computed by hand on a tiny model, and as a job with its page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from assistants.background import launch
from generation.engines import GenerationRequest, PromptTooLong
from generation.layers import knowledge_scores
from generation.local import TransformersEngine
from tests.factories import add_member, make_user
from tests.tiny_model import shared_adapter, shared_base
from tests.training.evaluation.conftest import evaluate
from training.evaluation.plan import Plan
from training.evaluation.services import NotPossible, start_knowledge_score
from training.models import Adapter, Benchmark, Evaluation

REQUEST = GenerationRequest(messages=[{"role": "user", "content": "Question: what is the exit fee?"}])
SAID = "[1] The exit fee is £35."


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    engine = TransformersEngine(shared_base())
    engine.load_adapter("one", shared_adapter("0123456789abcdef", 1))
    return engine


def test_the_definition(engine: TransformersEngine) -> None:
    """Residual stream before and after each block, written out once more without hooks."""
    import torch

    found = knowledge_scores(engine, REQUEST, SAID)
    model = engine._adapters._base
    prompt = engine.encode(REQUEST)
    answer = engine.tokenizer(SAID, add_special_tokens=False)["input_ids"]
    with torch.inference_mode():
        out = engine._adapters.forward(
            [None], input_ids=torch.tensor([prompt + answer]), output_hidden_states=True, use_cache=False
        )
        expected = []
        for number in range(len(model.model.layers)):
            layer = model.model.layers[number]
            states = []
            keep = layer.mlp.register_forward_hook(lambda module, args, output, into=states: into.append(output))
            engine._adapters.forward([None], input_ids=torch.tensor([prompt + answer]), use_cache=False)
            keep.remove()
            # Before the last norm is applied, the hidden states of a layer are what stands after its block.
            after = out.hidden_states[number + 1] if number + 1 < len(model.model.layers) else None
            if after is None:
                continue
            before = after - states[0]
            spots = slice(len(prompt) - 1, len(prompt) + len(answer) - 1)
            p, q = (torch.softmax(model.lm_head(model.model.norm(x))[0, spots], -1) for x in (before, after))
            m = (p + q) / 2
            expected.append(float((0.5 * ((p * (p / m).log()).sum(-1) + (q * (q / m).log()).sum(-1))).mean()))
    assert found.shape == (len(model.model.layers),)
    assert found[: len(expected)] == pytest.approx(expected, rel=1e-3)
    assert np.all((found > 0) & (found < np.log(2)))


def test_the_adapter_changes_it_and_the_engine_stays_as_it_was(engine: TransformersEngine) -> None:
    before = engine.generate([REQUEST])[0].text
    hooks = [len(layer._forward_hooks) for layer in engine._adapters._base.model.layers]
    base = knowledge_scores(engine, REQUEST, SAID)
    tuned = knowledge_scores(engine, GenerationRequest(messages=REQUEST.messages, adapter="one"), SAID)
    assert not np.allclose(base, tuned)
    assert np.array_equal(base, knowledge_scores(engine, REQUEST, SAID))
    assert engine.generate([REQUEST])[0].text == before
    assert [len(layer._forward_hooks) for layer in engine._adapters._base.model.layers] == hooks


def test_bad_input(engine: TransformersEngine) -> None:
    with pytest.raises(ValueError, match="no score"):
        knowledge_scores(engine, REQUEST, "")
    with pytest.raises(PromptTooLong):
        knowledge_scores(engine, REQUEST, "fee " * 2000)


def test_as_a_job(tuned: Adapter, frozen: Benchmark, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation.services.launch", lambda work: None)
    evaluation = evaluate(tuned, frozen)
    score = start_knowledge_score(evaluation=evaluation, questions=2)
    launch(score, foreground=True)
    score.refresh_from_db()
    assert (score.state, score.error) == ("succeeded", "")
    assert score.results["answers"] == 2
    assert set(score.results["arms"]) == {"base", "adapter", "base_rag", "adapter_rag"}
    layers = score.results["differences"]["retrieval"]
    assert len(layers) == 3
    arms = score.results["arms"]
    assert layers[0]["value"] == pytest.approx(arms["adapter_rag"][0] - arms["base_rag"][0])
    ada = make_user("ada")
    add_member(tuned.assistant, ada, "admin")
    client = Client()
    client.force_login(ada)
    text = client.get(reverse("admin:training_knowledgescore_change", args=[score.pk])).content.decode()
    assert "With retrieval: adapter minus base" in text
    assert text.count("<canvas") == 2
    start = reverse("admin:training_evaluation_score", args=[evaluation.pk])
    assert client.post(start).status_code == 302
    client.force_login(make_user("stranger"))
    assert client.post(start).status_code == 404
    assert client.get(reverse("admin:training_knowledgescore_change", args=[score.pk])).status_code in (302, 403, 404)


def test_refusals(tuned: Adapter, frozen: Benchmark, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluation.services.launch", lambda work: None)
    evaluation = evaluate(tuned, frozen, plan=Plan(arms=[], conditions=[]))
    with pytest.raises(NotPossible, match="Between 1 and"):
        start_knowledge_score(evaluation=evaluation, questions=0)
    # Only arms with retrieval were asked: theirs alone are compared.
    score = start_knowledge_score(evaluation=evaluation, questions=1)
    launch(score, foreground=True)
    score.refresh_from_db()
    assert set(score.results["differences"]) == {"retrieval"}
    settings.RATCHET_OPENAI_BASE_URL = "http://gpu:8000/v1"
    with pytest.raises(NotPossible, match="another server"):
        start_knowledge_score(evaluation=evaluation)
    settings.RATCHET_OPENAI_BASE_URL = ""
    Evaluation.objects.update(state="running")
    evaluation.refresh_from_db()
    with pytest.raises(NotPossible, match="not finished"):
        start_knowledge_score(evaluation=evaluation)
    assert User.objects.count() == 0
