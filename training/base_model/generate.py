"""Makes tokenizer and training rows: ``python -m training.base_model.generate --manuals FOLDER --out FOLDER``."""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Tokenizer

from training.base_model.corpus import Section, is_held_out, read_sections
from training.base_model.lexicon import HELD_OUT_LEXICON, TRAIN_LEXICON, read_lexicon
from training.base_model.packing import ANSWER, FIRST, Packer, encode
from training.base_model.phrasing import upper_first
from training.base_model.ranking import Ranker
from training.base_model.rows import read_shard
from training.base_model.sessions import STAGES, Example, examples
from training.base_model.tokenizer import (
    LEARNED_VOCABULARY,
    SPECIAL_TOKENS,
    VOCABULARY,
    load_tokenizer,
    train_tokenizer,
)
from training.base_model.worlds import World, handbook_world, list_world, manual_world

if TYPE_CHECKING:
    from numpy.typing import NDArray

ROW_LENGTH = 512
_WORLDS_PER_BATCH = 96
ENOUGH = 64
"""Times that a token has to be a target before it counts as learned."""
_SHARES = {
    "1": (0.42, 0.38, 0.20),
    "2": (0.55, 0.40, 0.05),
    "3": (0.45, 0.30, 0.25),
    "4": (0.35, 0.25, 0.40),
    "test": (0.5, 0.5, 0.0),
}
"""Per stage: share of handbook, manual and list worlds."""


class Source:
    """Draws worlds; the manuals and domains of evaluation are kept apart."""

    def __init__(self, manuals: Path, *, held_out: bool) -> None:
        sections = list(read_sections(manuals))
        self.sections: Sequence[Section] = [s for s in sections if is_held_out(s.page) == held_out]
        if not self.sections:
            raise ValueError(f"no sections left in {manuals}")
        self.domains = read_lexicon(HELD_OUT_LEXICON if held_out else TRAIN_LEXICON)
        plain = (w.strip(".,;:()").lower() for s in self.sections for t in s.sentences for w in t.split())
        self.pieces: Sequence[str] = ()
        self.words = sorted({w for w in plain if w.isalpha() and 4 <= len(w) <= 9})

    def use_vocabulary(self, tokenizer: Tokenizer) -> None:
        """From now on things are called by any words, and lists string tokens together."""
        decoded = (tokenizer.decode([i]) for i in range(len(SPECIAL_TOKENS), LEARNED_VOCABULARY))
        self.pieces = sorted({text for text in decoded if text.strip() and "\ufffd" not in text and "|" not in text})

    def prefer_rare(self, tokenizer: Tokenizer, folder: Path) -> None:
        """From now on names and lists take the tokens that were answered too rarely in the shards so far.

        A token that was a target less than about thirty times is copied badly: another token comes out instead.
        """
        counts = target_counts(folder)
        rare = [tokenizer.decode([i]) for i in range(len(SPECIAL_TOKENS), LEARNED_VOCABULARY) if counts[i] < ENOUGH]
        self.pieces = [text for text in self.pieces if text in set(rare)]
        self.words = [text.strip() for text in self.pieces if text.strip().isalpha() and len(text.strip()) > 2]

    def world(self, rng: random.Random, shares: tuple[float, float, float]) -> World:
        kind = rng.choices(("handbook", "manual", "list"), shares)[0]
        if kind == "handbook":
            return handbook_world(rng, rng.choice(self.domains), words=self.words if self.pieces else ())
        if kind == "manual":
            return manual_world(rng, self.sections, rng.randrange(len(self.sections)))
        return list_world(rng, self.words, self.pieces)


def target_counts(folder: Path) -> NDArray[np.int64]:
    """(vocabulary,): how often each token is an answer token in the training shards of ``folder``."""
    counts = np.zeros(VOCABULARY, np.int64)
    for path in sorted(folder.glob("stage*.npz")):
        shard = read_shard(path)
        answered = np.isin(shard["codes"], (ANSWER, FIRST))
        counts += np.bincount(shard["ids"][answered], minlength=VOCABULARY)
    return counts


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
        world = source.world(rng, (0.95, 0.0, 0.05))
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


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manuals", type=Path, required=True, help="folder with the unpacked documentation packages")
    parser.add_argument("--out", type=Path, required=True, help="folder for tokenizer.json and the shards")
    parser.add_argument(
        "--stage",
        choices=tuple(_SHARES)[:4],
        default="2",
        help="1: by content; 2: as served; 3: and every token; 4: rare tokens",
    )
    parser.add_argument("--shards", type=int, default=8, help="how many shards to write (existing ones are kept)")
    parser.add_argument("--rows", type=int, default=768, help="rows of 512 tokens per shard")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--held-out", action="store_true", help="rows for validation, from the held-out domains and pages"
    )
    options = parser.parse_args(argv)
    options.out.mkdir(parents=True, exist_ok=True)
    source = Source(options.manuals, held_out=options.held_out)
    rng = random.Random(f"{options.seed}/{options.stage}/{options.held_out}")
    path = options.out / "tokenizer.json"
    if not path.exists():
        started = time.monotonic()
        train_tokenizer(tokenizer_texts(source, rng)).save(str(path))
        print(f"tokenizer in {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    tokenizer, ranker = load_tokenizer(path), Ranker()
    if options.stage in ("3", "4"):
        source.use_vocabulary(tokenizer)
    if options.stage == "4":
        source.prefer_rare(tokenizer, options.out)
        print(f"{len(source.pieces)} rare tokens", file=sys.stderr, flush=True)
    batches = stage_examples(source, ranker, options.stage, rng)
    name = "held" if options.held_out else f"stage{options.stage}"
    for number in range(options.shards):
        target = options.out / f"{name}-{options.seed:02d}-{number:04d}.npz"
        if target.exists():
            next(batches)
            continue
        started, packer, questions = time.monotonic(), Packer(ROW_LENGTH), 0
        while len(packer.rows) < options.rows:
            for example in next(batches):
                packer.add(encode(tokenizer, example))
                questions += len(example.branches)
        write_shard(target, packer)
        seconds = time.monotonic() - started
        print(
            f"{target.name}: {len(packer.rows)} rows, {questions} questions, "
            f"{packer.dropped} too long, {seconds:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
