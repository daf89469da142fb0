"""The passes of our own say what the model says, whatever is mixed, joins or leaves; and where they would not, they are
not used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from generation import fusing
from generation.decoding import Row
from generation.engines import AdapterRefused, GenerationRequest
from generation.fused import FusedDecoder, Piece
from generation.fusing import fuse
from generation.layers import knowledge_scores
from generation.local import TransformersEngine
from generation.padded import PaddedBatch
from generation.ragged import AT_ONCE, RaggedBatch
from tests.tiny_model import write_manifest

VOICES = (None, "one", "two")


def ask(words: int, adapter: str | None = None, **more: Any) -> GenerationRequest:
    content = "Question: " + "What is the exit fee? " * words
    return GenerationRequest(
        messages=[{"role": "user", "content": content}], **{"adapter": adapter, "max_new_tokens": 24, **more}
    )


@pytest.fixture(scope="module")
def plain(models: Path) -> TransformersEngine:
    engine = TransformersEngine(models / "base", cut_loops=False, fused=False)
    for name in ("one", "two"):
        engine.load_adapter(name, models / name)
    return engine


def test_the_text_is_that_of_transformers(shared_engine: TransformersEngine, plain: TransformersEngine) -> None:
    requests = [ask(i % 9 + 1, VOICES[i % 3], max_new_tokens=8 + i) for i in range(24)]
    requests.append(ask(90, "one"))
    assert len(plain.encode(requests[-1])) > AT_ONCE  # read in two goes
    assert isinstance(shared_engine.batch(), RaggedBatch)
    assert isinstance(plain.batch(), PaddedBatch)
    expected = [(r.text, r.finish_reason) for r in plain.generate(requests)]
    assert [(r.text, r.finish_reason) for r in shared_engine.generate(requests)] == expected
    assert len({text for text, _ in expected}) > 12


def test_logits_are_those_of_transformers_for_rows_of_any_length(
    shared_engine: TransformersEngine, plain: TransformersEngine
) -> None:
    fused = shared_engine._adapters.fused
    assert fused is not None
    prompts = [shared_engine.encode(ask(words)) for words in (1, 12, 3, 7)]
    voices = [None, "one", "one", "two"]
    stores = [fused.store(len(prompt)) for prompt in prompts]
    with torch.inference_mode():
        for prompt, store, voice in zip(prompts, stores, voices, strict=True):
            fused.logits([Piece(prompt[:-5], store, voice)])
        rest = [Piece(p[-5:], s, v, last=5) for p, s, v in zip(prompts, stores, voices, strict=True)]
        found = fused.logits(rest).split(5)
        for prompt, voice, logits in zip(prompts, voices, found, strict=True):
            expected = plain._adapters.forward([voice], input_ids=torch.tensor([prompt]), use_cache=False).logits[
                0, -5:
            ]
            assert torch.allclose(logits, expected, atol=1e-4, rtol=0)
    assert [store.length for store in stores] == [len(prompt) for prompt in prompts]


def test_who_joins_late_or_leaves_early_writes_what_it_writes_alone(shared_engine: TransformersEngine) -> None:
    def row(words: int, length: int, adapter: str | None) -> Row:
        prompt = shared_engine.encode(ask(words))
        return Row(prompt=prompt, max_new_tokens=length, adapter=adapter, cut_loops=False, copies=True)

    shapes = ((1, 12, "one"), (6, 4, None), (5, 30, "two"), (40, 6, "one"))
    rows = [row(*shape) for shape in shapes]
    crowd = shared_engine.batch()
    for joining in (rows[:2], rows[2:3], rows[3:]):
        crowd.add(joining)
        crowd.step()
    rows[2].finish = "cancelled"
    written = len(rows[2].tokens)
    while crowd.rows:
        crowd.step()
    assert len(rows[2].tokens) == written
    for shape, one in zip(shapes, rows, strict=True):
        single, alone = row(*shape), shared_engine.batch()
        alone.add([single])
        while alone.rows:
            alone.step()
        assert single.tokens[: len(one.tokens)] == one.tokens
        assert one is rows[2] or single.finish == one.finish == "length"


def tiny(kind: str, **more: Any) -> Any:
    shape: dict[str, Any] = {
        "vocab_size": 99, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, **more,
    }  # fmt: skip
    torch.manual_seed(0)
    if kind == "llama":
        return LlamaForCausalLM(LlamaConfig(**shape, tie_word_embeddings=False)).eval()
    if kind == "qwen3":  # heads wider than their share, as Qwen3-0.6B has them
        return Qwen3ForCausalLM(Qwen3Config(**shape, head_dim=16, tie_word_embeddings=True)).eval()
    return Qwen2ForCausalLM(Qwen2Config(**shape)).eval()


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3"])
def test_kinds_with_biases_and_heads_and_norms_of_their_own(kind: str) -> None:
    model = tiny(kind)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or "norm" in name:
            torch.nn.init.normal_(parameter)
    assert fuse(model, 128) is not None


@pytest.mark.parametrize(
    "scaling",
    [
        {"rope_type": "linear", "factor": 2.0},
        {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    ],
    ids=lambda scaling: scaling["rope_type"],
)  # fmt: skip
def test_positions_that_are_scaled_the_same_for_every_text(scaling: dict[str, Any]) -> None:
    model = tiny("llama", rope_parameters={"rope_theta": 10000.0, **scaling})
    plain = tiny("llama")
    fused = fuse(model, 128)
    assert fused is not None
    tokens = list(range(90))
    with torch.inference_mode():
        found = fused.logits([Piece(tokens, fused.store(90), last=90)])
        expected, other = (m(input_ids=torch.tensor([tokens])).logits[0] for m in (model, plain))
    assert torch.allclose(found, expected, atol=1e-4, rtol=0)
    assert not torch.allclose(expected, other, atol=1e-4, rtol=0)  # the scaling does something here


def test_positions_that_depend_on_the_text_windows_and_other_kinds_are_left_to_transformers() -> None:
    model = tiny("llama", rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0})
    assert fuse(model, 128) is None
    model = tiny("qwen2")
    model.config.layer_types = ["full_attention", "sliding_attention"]
    assert fuse(model, 128) is None
    model = tiny("llama")
    model.config.model_type = "something"
    assert fuse(model, 128) is None


def weights_of(model: Any) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if "_proj" in name and "lora" not in name)


def test_a_large_model_has_its_weights_once_and_lends_them_to_passes_of_its_own(
    plain: TransformersEngine, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fusing, "PACKED_BYTES", 0)
    engine = TransformersEngine(models / "base", cut_loops=False)
    for name in ("one", "two"):
        engine.load_adapter(name, models / name)
    model = engine._adapters._base
    assert isinstance(engine.batch(), RaggedBatch)
    assert weights_of(model) == 0
    requests = [ask(i % 5 + 1, VOICES[i % 3]) for i in range(9)]
    expected = [r.text for r in plain.generate(requests)]
    assert [r.text for r in engine.generate(requests)] == expected
    for voice in VOICES:
        found, known = (knowledge_scores(e, ask(2, voice), "[1] The exit fee is £35.") for e in (engine, plain))
        assert found == pytest.approx(known, rel=1e-4, abs=1e-9)
    with pytest.raises(IndexError):  # no such token: the pass fails behind nothing, and keeps nothing
        engine._adapters.forward([None], input_ids=torch.tensor([[10**6]]))
    assert weights_of(model) == 0
    for name in ("one", "two"):
        engine.unload_adapter(name)
    assert [r.text for r in engine.generate(requests[:1])] == expected[:1]


def test_nothing_of_a_large_model_stays_in_its_mapped_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Biases and norms lie in the one piece that the file is; one that stayed would keep all of it."""
    monkeypatch.setattr(fusing, "PACKED_BYTES", 0)
    model = tiny("qwen2")  # with biases, and an output layer of its own
    before = {name: parameter.data_ptr() for name, parameter in model.model.named_parameters()}
    assert any(name.endswith("q_proj.bias") for name in before)
    assert fuse(model, 128) is not None
    assert [name for name, parameter in model.model.named_parameters() if parameter.data_ptr() == before[name]] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_model_that_cannot_be_fused_gets_its_weights_back(dtype: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusing, "PACKED_BYTES", 0)
    model = tiny("qwen3").to(dtype)
    tokens = torch.tensor([list(range(40))])
    with torch.inference_mode():
        expected = model(input_ids=tokens).logits
        fused = fuse(model, 128)
        assert fused is not None
        assert (weights_of(model) == 0) is fusing._packs(dtype)  # not every processor multiplies in bfloat16
        assert torch.equal(model(input_ids=tokens).logits, expected)  # to the bit, and back again
    model = tiny("qwen3").to(dtype)
    model.model.layers[1].mlp.register_forward_hook(lambda *args: args[2] * 1000)
    with torch.inference_mode():
        expected = model(input_ids=tokens).logits
        assert fuse(model, 128) is None
        assert torch.equal(model(input_ids=tokens).logits, expected)
    assert weights_of(model) > 0
    assert not model.model.layers[0]._forward_hooks


def test_a_model_that_says_something_else_is_left_to_transformers(caplog: pytest.LogCaptureFixture) -> None:
    model = tiny("llama")
    model.model.layers[1].mlp.register_forward_hook(lambda *args: args[2] * 1.5)  # unlike what its kind does
    assert fuse(model, 128) is None
    assert "logits differ" in caplog.text
    del model.model.layers[0].self_attn.o_proj
    assert fuse(model, 128) is None


def test_half_precision_keeps_its_sums_in_float32(models: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(models / "base", dtype=torch.bfloat16).eval()
    exact = AutoModelForCausalLM.from_pretrained(models / "base", dtype=torch.float32).eval()
    fused = fuse(model, 128)
    assert isinstance(fused, FusedDecoder)
    tokens = list(range(5, 60))
    with torch.inference_mode():
        expected = exact(input_ids=torch.tensor([tokens])).logits[0]
        own = fused.logits([Piece(tokens, fused.store(60), last=len(tokens))])
        theirs = model(input_ids=torch.tensor([tokens])).logits[0].float()
    assert own.dtype == torch.float32
    # Weights are rounded in both, what lies between the products in theirs only.
    assert float((own - expected).abs().mean()) <= float((theirs - expected).abs().mean())


def test_an_adapter_of_the_output_layer_is_refused_and_leaves_nothing(models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "head"
    shutil.copytree(models / "one", folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "target_modules": ["lm_head"]}))
    rank = config["r"]
    head = AutoModelForCausalLM.from_pretrained(models / "base").lm_head.weight.shape
    name = "base_model.model.lm_head.lora_{}.weight"
    matrices = {name.format("A"): torch.ones(rank, head[1]), name.format("B"): torch.ones(head[0], rank)}
    save_file(matrices, folder / "adapter_model.safetensors")
    known = json.loads((folder / "manifest.json").read_text())
    write_manifest(folder, base_digest=known["base_digest"], prompt_digest=known["prompt_digest"])
    engine = TransformersEngine(models / "base")
    with pytest.raises(AdapterRefused, match="lm_head cannot be adapted here"):
        engine.load_adapter("head", folder)
    engine.load_adapter("one", models / "one")
    fused = engine._adapters.fused
    assert fused is not None
    assert list(fused.adapters) == ["one"]
    engine.unload_adapter("one")
    assert not fused.adapters
