"""A random model of the real shape, made in a second: what tests run where a trained base would only cost time.

The folder has what a base folder has (Qwen3 configuration and weights, a byte-level tokenizer with `[1]`..`[40]` as one
token each, a chat template with generation tags), so every test drives the code that serves real models.
"""

from __future__ import annotations

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

SPECIALS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
POINTERS = tuple(f"[{n}]" for n in range(1, 41))
CONTEXT = 1024
CHAT_TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] == 'system' %}<|system|>{{ m['content'] }}<|end|>"
    "{% elif m['role'] == 'user' %}<|user|>{{ m['content'] }}<|end|>"
    "{% else %}<|assistant|>{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CORPUS = (
    "Answer from the passages and cite them. If they do not say, reply: I cannot find that in our documents.",
    "Write a question that the marked sentence answers.",
    "Passages: Question: Sentence: the exit fee of the fixed tariff is £35 for each fuel, and the day rate is 24p.",
    "What does it cost to leave the tariff early? How do I read the meter when the display is blank?",
)


def make_tiny_base(folder: Path, *, seed: int = 0, context: int = CONTEXT) -> Path:
    """Writes a random Qwen3 model (about 200,000 parameters) with tokenizer and chat template; returns ``folder``."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = _tokenizer(context)
    tokenizer.save_pretrained(folder)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=160,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Qwen3ForCausalLM(config)
        # Freshly made weights are so small that all logits are alike; these make different prompts differ.
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.data.mul_(5.0)
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    return folder


def make_tiny_adapter(
    base: Path,
    folder: Path,
    seed: int = 0,
    *,
    rank: int = 4,
    prompt_digest: str = "0123456789abcdef",
    dora: bool = False,
) -> Path:
    """Writes a random LoRA adapter for ``base`` with its manifest; returns ``folder``.

    Every matrix gets an adapter that visibly changes what the model says, so that two seeds give two voices.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from generation.adapters import base_digest

    model = AutoModelForCausalLM.from_pretrained(base)
    lora = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM", use_dora=dora, lora_dropout=0.0
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        tuned = get_peft_model(model, lora)
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.2)
    tuned.save_pretrained(folder)
    for path in folder.iterdir():
        path.chmod(0o644)
        if path.name == "README.md":
            path.write_text("A random adapter for tests.\n")
    config_path = folder / "adapter_config.json"
    config: dict[str, Any] = json.loads(config_path.read_text())
    config["base_model_name_or_path"] = "tiny"
    config_path.write_text(json.dumps(config, indent=2, sort_keys=True))
    write_manifest(folder, base_digest=base_digest(base), prompt_digest=prompt_digest)
    return folder


@lru_cache(maxsize=1)
def shared_base() -> Path:
    """One tiny base for all tests of this process that only read it, below the run's state folder."""
    return make_tiny_base(Path(os.environ["RATCHET_VAR"]) / "tiny" / str(os.getpid()) / "base")


@lru_cache(maxsize=8)
def shared_adapter(prompt_digest: str, seed: int = 1) -> Path:
    """One tiny adapter of `shared_base` for each prompt format and voice; copy it to where it is to be served."""
    folder = Path(os.environ["RATCHET_VAR"]) / "tiny" / str(os.getpid()) / f"adapter-{prompt_digest}-{seed}"
    return make_tiny_adapter(shared_base(), folder, seed, prompt_digest=prompt_digest)


def write_manifest(folder: Path, *, base_digest: str, prompt_digest: str, **more: Any) -> dict[str, Any]:
    """Writes ``manifest.json`` for the files that are in the folder now; returns it."""
    files = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    manifest = {"base_digest": base_digest, "prompt_digest": prompt_digest, "files": files, **more}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True))
    return manifest


def _tokenizer(context: int) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\d"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=460,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(CORPUS, trainer)
    raw.add_tokens([AddedToken(pointer, normalized=False) for pointer in POINTERS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw,
        pad_token=SPECIALS[0],
        eos_token=SPECIALS[1],
        additional_special_tokens=list(SPECIALS[2:]),
        model_max_length=context,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
