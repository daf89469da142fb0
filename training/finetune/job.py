"""What one training is asked to do (CONFIG.json), and its rows made ready. No Django."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from training.finetune.config import ConfigError, FinetuneConfig
from training.finetune.methods import METHODS, Counts, Stage, shortage, stages
from training.finetune.preferences import (
    Pair,
    check_preference_lengths,
    counts_of,
    read_labelled,
    read_pairs,
    tokenise_labelled,
    tokenise_pairs,
)
from training.finetune.rows import Row, RowsError, Tokens, check_lengths, read_rows, tokenise


@dataclass(frozen=True)
class Job:
    """CONFIG.json, read and checked."""

    method: str
    train: Path | None
    validation: Path | None
    preferences: Path | None
    held_preferences: Path | None
    parent: Path | None
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
            method = raw.get("method", "sft")
            if method not in METHODS:
                raise ConfigError(f"There is no method {str(method)[:40]!r}; there are {', '.join(METHODS)}.")
            return cls(
                method=method,
                train=_path(raw, "train", needed="sft" in stages(method)),
                validation=_path(raw, "validation"),
                preferences=_path(raw, "preferences", needed=method != "sft"),
                held_preferences=_path(raw, "held_preferences"),
                parent=_path(raw, "parent"),
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


def _path(raw: dict[str, Any], name: str, *, needed: bool = False) -> Path | None:
    if raw.get(name):
        return Path(raw[name])
    if needed:
        raise ConfigError(f"The configuration names no file for {name!r}.")
    return None


@dataclass(frozen=True)
class Material:
    """Rows of one stage as tokens; ``repeated`` holds each as often as its weight says. ``longest`` in tokens;
    ``samples`` are rows that are answered while training, to read along."""

    stage: Stage
    source: Path
    rows: list[Any]
    held_out: list[Any]
    repeated: list[Any]
    held_tokens: list[Any]
    samples: list[tuple[Row, Tokens]]
    counts: Counts
    tokenizer: Any
    longest: int
    context: int

    @property
    def tokens(self) -> int:
        """Tokens that one epoch sees."""
        if self.stage == "sft":
            return sum(len(row.input_ids) for row in self.repeated)
        return sum(row.total for row in self.repeated)


@contextmanager
def reading_base(base: str) -> Iterator[None]:
    """What a damaged or unknown base makes the libraries say goes to the log; people are told what to do.

    Raises:
        ConfigError: the base cannot be read.
    """
    try:
        yield
    except (ConfigError, MemoryError):
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        traceback.print_exc()
        raise ConfigError(
            f"The base model cannot be read ({type(error).__name__}; the log tells more). Restore its folder {base}, "
            "or set RATCHET_BASE_MODEL to another one."
        ) from error


def out_of_memory(error: BaseException) -> bool:
    """Torch has no error of its own for a processor that runs out, and one per kind of device."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said


def read_material(job: Job, stage: Stage = "sft") -> Material:
    """Rows → tokens.

    Raises:
        RowsError: a single row would be cut or dropped, or the rows do not suit the method. Nothing has started yet.
        ConfigError: the base cannot be read.
    """
    from transformers import AutoConfig, AutoTokenizer

    with reading_base(job.base):
        tokenizer = AutoTokenizer.from_pretrained(job.base)
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        context = AutoConfig.from_pretrained(job.base).get_text_config().max_position_embeddings
    limit = min(job.settings.max_length or context, context)
    source = job.train if stage == "sft" else job.preferences
    held = job.validation if stage == "sft" else job.held_preferences
    assert source is not None
    counts = Counts()
    if stage == "sft":
        rows: list[Any] = read_rows(source)
        held_out: list[Any] = read_rows(held) if held else []
        if not rows:
            raise RowsError("There is no row to train on.")
        tokens: list[Any] = tokenise(rows, tokenizer)
        held_tokens: list[Any] = tokenise(held_out, tokenizer)
        longest = check_lengths([*tokens, *held_tokens], limit)
        samples = list(zip(held_out, held_tokens, strict=True))
    else:
        read: Any = read_labelled if stage == "kto" else read_pairs
        rows, held_out = read(source), read(held) if held else []
        counts = counts_of(rows) if stage == "kto" else Counts(pairs=len(rows))
        if why := shortage(stage, counts):
            raise RowsError(why)
        turn_into: Any = tokenise_labelled if stage == "kto" else tokenise_pairs
        tokens, held_tokens = turn_into(rows, tokenizer), turn_into(held_out, tokenizer)
        longest = check_preference_lengths([*tokens, *held_tokens], limit)
        readable = [row for row in held_out if isinstance(row, Pair) or row.label]
        shown = [row.row for row in readable[: job.settings.sample_rows]]
        samples = list(zip(shown, tokenise(shown, tokenizer), strict=True))
    repeated = [t for row, t in zip(rows, tokens, strict=True) for _ in range(row.weight)]
    return Material(stage, source, rows, held_out, repeated, held_tokens, samples, counts, tokenizer, longest, context)
