"""Writes the model folder: ``python -m training.base_model.export --checkpoint RUN --data DATA --out models/base``."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from training.base_model.architecture import Network, Shape
from training.base_model.tokenizer import CHAT_TEMPLATE, END, PAD, SPECIAL_TOKENS, load_tokenizer
from training.base_model.train import CHECKPOINT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM

_PROBE = "Passages:\n# Fees\n[1] The fee is £35.\n\nQuestion: How much is the fee?"
_LARGEST_DIFFERENCE = 1e-3
"""Between our arithmetic and transformers' in float32; more means that the folder would not be what was trained."""


def load_network(checkpoint: Path) -> Network:
    """Raises FileNotFoundError when ``checkpoint`` (a run folder) holds none."""
    path = checkpoint / CHECKPOINT
    if not path.is_file():
        raise FileNotFoundError(f"no {CHECKPOINT} in {checkpoint}; run training.base_model.train first")
    network = Network(Shape())
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["network"])
    return network.eval()


def as_transformers(network: Network) -> Qwen3ForCausalLM:
    """The same weights in transformers' class, float32."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shape = network.shape
    config = Qwen3Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.heads,
        head_dim=shape.head, max_position_embeddings=shape.positions, tie_word_embeddings=True, rms_norm_eps=1e-6,
        bos_token_id=None, eos_token_id=END, pad_token_id=PAD,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
    )  # fmt: skip
    model = Qwen3ForCausalLM(config)
    loaded = model.load_state_dict(network.state_dict(), strict=False)
    lacking = [name for name in loaded.missing_keys if name != "lm_head.weight"]
    if lacking or loaded.unexpected_keys:
        raise ValueError(f"weights do not fit transformers' Qwen3: {lacking + loaded.unexpected_keys}")
    model.tie_weights()
    model.generation_config.eos_token_id = END
    model.generation_config.pad_token_id = PAD
    model.generation_config.do_sample = False
    return model.eval()


def as_tokenizer(path: Path) -> PreTrainedTokenizerFast:
    """The trained tokenizer with roles, end, padding and chat template."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=load_tokenizer(path), pad_token=SPECIAL_TOKENS[PAD], eos_token=SPECIAL_TOKENS[END],
        additional_special_tokens=list(SPECIAL_TOKENS[2:]), model_max_length=Shape().positions,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


@torch.no_grad()
def largest_difference(network: Network, model: Qwen3ForCausalLM, ids: Sequence[int]) -> float:
    """Largest difference of a logit between both implementations on one text."""
    tokens = torch.tensor([list(ids)])
    return float((model(tokens).logits - network.logits(network.hidden(tokens))).abs().max())


def export(checkpoint: Path, data: Path, out: Path) -> dict[str, object]:
    """Writes weights (bfloat16), configuration and tokenizer into ``out``; other files there stay.

    Raises:
        ValueError: transformers computes something else than was trained.
    """
    network = load_network(checkpoint)
    model, tokenizer = as_transformers(network), as_tokenizer(data / "tokenizer.json")
    difference = largest_difference(network, model, tokenizer.encode(_PROBE, add_special_tokens=False))
    if difference > _LARGEST_DIFFERENCE:
        raise ValueError(f"transformers differs from the trained network by {difference:.2g}")
    out.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(out)
    tokenizer.save_pretrained(out)
    _name_portable_tokenizer(out / "tokenizer_config.json")
    (out / "model.safetensors").chmod(0o644)
    weights = (out / "model.safetensors").read_bytes()
    return {"sha256": hashlib.sha256(weights).hexdigest(), "bytes": len(weights), "largest_difference": difference}


def _name_portable_tokenizer(path: Path) -> None:
    """transformers 5 writes a class name that version 4 and servers built on it do not know; both know this one."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["tokenizer_class"] = "PreTrainedTokenizerFast"
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="run folder of training.base_model.train")
    parser.add_argument("--data", type=Path, required=True, help="folder with tokenizer.json")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    options = parser.parse_args(argv)
    print(json.dumps(export(options.checkpoint, options.data, options.out)), file=sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
