"""The tokenizer of the bundled model: byte-level BPE, single digits, one token per sentence number."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from generation.prompts import MAX_POINTER

PAD, END, SYSTEM, USER, ASSISTANT = range(5)
SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
LEARNED_VOCABULARY = 8192
VOCABULARY = 8256
"""8192 learned, 40 sentence numbers, the rest unused: a multiple of 64 suits matrix kernels."""
FIRST_POINTER = LEARNED_VOCABULARY
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}<|system|>{{ m['content'] }}<|end|>"
    "{% elif m['role'] == 'user' %}<|user|>{{ m['content'] }}<|end|>"
    "{% else %}<|assistant|>{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_PIECES = r"'(?:s|t|re|ve|m|ll|d)| ?\p{L}+| ?\p{N}|[^\S\n]*\n| ?[^\s\p{L}\p{N}]|\s+"


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """Learns the merges; afterwards `[1]`..`[40]` are added as whole tokens right behind the learned vocabulary.

    Raises:
        ValueError: the texts are too few to fill the vocabulary (the numbers would land elsewhere).
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=LEARNED_VOCABULARY, special_tokens=list(SPECIAL_TOKENS), min_frequency=2, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() != LEARNED_VOCABULARY:
        raise ValueError(f"only {tokenizer.get_vocab_size()} tokens learned; give more text")
    tokenizer.add_tokens([AddedToken(f"[{n}]", special=False, normalized=False) for n in range(1, MAX_POINTER + 1)])
    return tokenizer


def load_tokenizer(path: Path) -> Tokenizer:
    """Raises FileNotFoundError when the generator has not made one yet."""
    if not path.is_file():
        raise FileNotFoundError(f"no tokenizer at {path}; run training.base_model.generate first")
    return Tokenizer.from_file(str(path))
