"""What one training is asked to do (CONFIG.json), and its rows made ready. No Django."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.finetune.config import ConfigError, FinetuneConfig
from training.finetune.rows import Row, RowsError, Tokens, check_lengths, read_rows, tokenise


@dataclass(frozen=True)
class Job:
    """CONFIG.json, read and checked."""

    train: Path
    validation: Path | None
    base: str
    base_name: str
    work: Path
    output: Path
    seed: int
    settings: FinetuneConfig
    base_digest: str
    prompt_digest: str
    facts: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> Job:
        """Raises ConfigError."""
        try:
            raw = json.loads(path.read_bytes())
            return cls(
                train=Path(raw["train"]),
                validation=Path(raw["validation"]) if raw.get("validation") else None,
                base=raw["base"],
                base_name=raw["base_name"],
                work=Path(raw["work"]),
                output=Path(raw["output"]),
                seed=int(raw["seed"]),
                settings=FinetuneConfig.from_dict(raw["settings"]),
                base_digest=raw["base_digest"],
                prompt_digest=raw["prompt_digest"],
                facts=raw.get("facts", {}),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path} is not a training configuration: {type(error).__name__} {error}.") from error


@dataclass(frozen=True)
class Material:
    """Rows as tokens; ``repeated`` holds each as often as its weight says. ``longest`` in tokens."""

    rows: list[Row]
    held_out: list[Row]
    repeated: list[Tokens]
    held_tokens: list[Tokens]
    tokenizer: Any
    longest: int
    context: int


def read_material(job: Job) -> Material:
    """Rows → tokens. Raises RowsError when a single row would be cut or dropped: nothing has started yet."""
    from transformers import AutoConfig, AutoTokenizer

    rows = read_rows(job.train)
    held_out = read_rows(job.validation) if job.validation else []
    if not rows:
        raise RowsError("There is no row to train on.")
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokens, held_tokens = tokenise(rows, tokenizer), tokenise(held_out, tokenizer)
    context = AutoConfig.from_pretrained(job.base).get_text_config().max_position_embeddings
    longest = check_lengths([*tokens, *held_tokens], min(job.settings.max_length or context, context))
    repeated = [t for row, t in zip(rows, tokens, strict=True) for _ in range(row.weight)]
    return Material(rows, held_out, repeated, held_tokens, tokenizer, longest, context)
