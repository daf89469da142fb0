"""Makes tokenizer and training rows: ``python -m training.base_model.generate --manuals FOLDER --out FOLDER``."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from training.base_model.corpus import Section, is_held_out, read_sections
from training.base_model.lexicon import HELD_OUT_LEXICON, TRAIN_LEXICON, read_lexicon
from training.base_model.packing import Packer, encode
from training.base_model.phrasing import upper_first
from training.base_model.ranking import Ranker
from training.base_model.reading.format import read_folder
from training.base_model.reading.worlds import reading_world
from training.base_model.sessions import HELD_OUT, STAGES, Example, examples
from training.base_model.tokenizer import (
    LEARNED_VOCABULARY,
    SPECIAL_TOKENS,
    load_tokenizer,
    train_tokenizer,
)
from training.base_model.worlds import World, handbook_world, list_world, manual_world

ROW_LENGTH = 512
_WORLDS_PER_BATCH = 96
_SHARES = {
    "1": (0.25, 0.25, 0.20, 0.30),
    "2": (0.22, 0.18, 0.15, 0.45),
    HELD_OUT: (0.5, 0.5, 0.0, 0.0),
}
"""Per stage: share of handbook, manual, list and written worlds."""
_PLAN = f"{HELD_OUT}:1,1:12,2:26"
READING_TEXTS = Path(__file__).parent / "reading" / "texts"


class Source:
    """Draws worlds; the manuals and domains of evaluation are kept apart."""

    def __init__(self, manuals: Path, *, held_out: bool) -> None:
        sections = list(read_sections(manuals))
        self.sections: Sequence[Section] = [s for s in sections if is_held_out(s.page) == held_out]
        if not self.sections:
            raise ValueError(f"no sections left in {manuals}")
        self.domains = read_lexicon(HELD_OUT_LEXICON if held_out else TRAIN_LEXICON)
        self.files = [] if held_out else read_folder(READING_TEXTS)
        plain = (w.strip(".,;:()").lower() for s in self.sections for t in s.sentences for w in t.split())
        self.pieces: Sequence[str] = ()
        self.words = sorted({w for w in plain if w.isalpha() and 4 <= len(w) <= 9})

    def use_vocabulary(self, tokenizer: Tokenizer) -> None:
        """From now on things are called by any words, and lists string tokens together."""
        decoded = (tokenizer.decode([i]) for i in range(len(SPECIAL_TOKENS), LEARNED_VOCABULARY))
        self.pieces = sorted({text for text in decoded if text.strip() and "\ufffd" not in text and "|" not in text})

    def world(self, rng: random.Random, shares: tuple[float, float, float, float]) -> World:
        kind = rng.choices(("handbook", "manual", "list", "written"), shares)[0]
        if kind == "written":
            return reading_world(rng, self.files, words=self.words)
        if kind == "handbook":
            return handbook_world(rng, rng.choice(self.domains), words=self.words if self.pieces else ())
        if kind == "manual":
            return manual_world(rng, self.sections, rng.randrange(len(self.sections)))
        return list_world(rng, self.words, self.pieces)


def stage_examples(source: Source, ranker: Ranker, stage: str, rng: random.Random) -> Iterator[list[Example]]:
    """Endless: the examples of one batch of worlds at a time."""
    while True:
        worlds = [source.world(rng, _SHARES[stage]) for _ in range(_WORLDS_PER_BATCH)]
        found: list[Example] = []
        for world, similarity in zip(worlds, ranker.similarities(worlds), strict=True):
            found += examples(rng, world, similarity, STAGES[stage])
        rng.shuffle(found)
        yield found


def tokenizer_texts(source: Source, rng: random.Random) -> Iterator[str]:
    """Balanced text for the merges: manuals, invented handbooks, titles in upper and lower case."""
    for section in source.sections[::2]:
        yield f"# {section.title}\n" + "\n".join(section.sentences)
    for _ in range(9000):
        world = source.world(rng, (0.6, 0.0, 0.05, 0.35))
        said = [f"# {line.title}\n{line.text}" for line in world.lines]
        yield "\n".join([*said, *(f"Question: {i.question}" for i in world.items)])
    for domain in source.domains:
        words = [*domain.things, *domain.actions, *domain.places, *domain.people, *domain.topics]
        yield "\n".join([*words, *map(upper_first, words)] * 3)


def write_shard(path: Path, packer: Packer) -> None:
    """Writes under another name first, so that a trainer that is watching never reads half a file."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez_compressed(temporary, allow_pickle=False, **packer.arrays())
    temporary.rename(path)


def make_shards(source: Source, tokenizer: Tokenizer, ranker: Ranker, stage: str, options: argparse.Namespace) -> None:
    """The shards of one stage that are not there yet."""
    count = options.plan[stage]
    name = "held" if stage == HELD_OUT else f"stage{stage}"
    for number in range(count):
        target = options.out / f"{name}-{options.seed:02d}-{number:04d}.npz"
        if target.exists():
            continue
        batches = stage_examples(source, ranker, stage, random.Random(f"{options.seed}/{stage}/{number}"))
        started, packer, questions = time.monotonic(), Packer(ROW_LENGTH), 0
        while len(packer.rows) < options.rows:
            for example in next(batches):
                packer.add(encode(tokenizer, example))
                questions += len(example.branches)
        write_shard(target, packer)
        _say(
            f"{target.name} ({number + 1} of {count}): {len(packer.rows)} rows, {questions} questions, "
            f"{packer.dropped} too long, {time.monotonic() - started:.0f} s"
        )


def _plan(text: str) -> dict[str, int]:
    """``held:1,1:12`` → {"held": 1, "1": 12}. Raises ValueError (argparse reports it)."""
    found = {stage: int(count) for stage, count in (part.split(":") for part in text.split(","))}
    if unknown := set(found) - set(_SHARES):
        raise ValueError(f"no such stage: {unknown}")
    return found


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manuals", type=Path, required=True, help="folder with the unpacked documentation packages")
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer.json and the shards")
    parser.add_argument(
        "--plan",
        type=_plan,
        default=_PLAN,
        help="stage:shards, ...; held: validation, 1: by content, 2: as served; existing shards are kept",
    )
    parser.add_argument("--rows", type=int, default=1300, help="rows of 512 tokens per shard, at least")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    path, ranker = options.out / "tokenizer.json", Ranker()
    for stage in options.plan:
        source = Source(options.manuals, held_out=stage == HELD_OUT)
        if not path.exists():
            started, learned_from = time.monotonic(), Source(options.manuals, held_out=False)
            train_tokenizer(tokenizer_texts(learned_from, random.Random(options.seed))).save(str(path))
            _say(f"tokenizer in {time.monotonic() - started:.0f} s")
        tokenizer = load_tokenizer(path)
        source.use_vocabulary(tokenizer)
        make_shards(source, tokenizer, ranker, stage, options)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
