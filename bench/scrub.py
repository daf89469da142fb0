"""How fast is the scrubber, beside Presidio on the same texts in the same run, and does its memory stay flat?

    make bench-scrub ARGS='--turns 60'

Processor milliseconds of one thread, unless a name says wall. They grow too while others work on the machine, so
``gflops_…`` says what a float32 product reached in between: some 95 on a quiet core of a Zen 4.

Presidio is ``AnalyzerEngine.analyze`` with its default English pattern recognisers on a blank spaCy pipeline (nothing
is downloaded), with lower-case words for lemmas so that its context words work.

- ``patterns_same_spans_vs_presidio``: the same recognisers through `privacy.presidio_set`; (start, end, type, score) of
  every text are compared, and one difference fails the run.
- ``patterns_default_set_vs_presidio``: our own recognisers except those of names and places, on texts not seen before.
- ``turn_ms_repeated_80``: a whole turn through `Scrubber.scrub_turn` with every tier, four of five passages seen
  before; ``name_model_ms_…``, ``recognisers_ms_…``: what the name model and all other recognisers take of it;
  ``turn_wall_ms_…``: on the clock. Passages are untrusted: all is looked for in them.
  What is new is put together from the demo's sentences, most of which were in some passage before.
- ``turn_ms_new_sentences``: the same, but no sentence or question of what is new was in any text before.
- ``rss_growth_mb``: resident memory after the last text less that after the first fifth.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]

from _chat_mix import ChatMix, ChatTurn, Kind  # noqa: E402
from _report import report  # noqa: E402

from privacy import turn as turn_module  # noqa: E402
from privacy.analyzer import OfflineAnalyzer  # noqa: E402
from privacy.entities import EntityTable  # noqa: E402
from privacy.findings import ALL_TYPES  # noqa: E402
from privacy.name_model.finder import name_model  # noqa: E402
from privacy.policy import Policy  # noqa: E402
from privacy.presidio_set import PresidioSet  # noqa: E402
from privacy.recognizers import get_analyzer  # noqa: E402
from privacy.scrubber import Scrubber, ScrubText  # noqa: E402

PATTERN_TYPES = ALL_TYPES - {"PERSON", "LOCATION"}
WARM_UP = (
    "call +44 20 7946 0958 about account 12345678, mail me@example.org or https://example.org, 10.1.2.3, 12/05/1984"
)
POOL = 200
ONCE = 12
REPEATED = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=60, help="Turns of five texts per mix (%(default)s).")
    parser.add_argument("--texts", type=int, default=100_000, help="Distinct texts for the memory (%(default)s).")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    report("scrub", run(options.turns, options.texts))


def run(turns: int, texts: int) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    engines = {"presidio": vanilla(), "same": PresidioSet().analyze, "default": default_set()}
    for text in [WARM_UP, *(text for _ in range(5) for text in ChatMix("digit-rich", seed=9).turn().texts)]:
        for engine in engines.values():
            engine(text)
    for kind in get_args(Kind):
        mix = ChatMix(kind)
        metrics |= {f"{name} ({kind})": value for name, value in patterns(mix, turns, engines).items()}
        whole = whole_turn(mix, mix, turns, "repeated_80")
        # The name model remembers sentences: what follows must not have been read in what went before.
        name_model().forget()
        whole |= whole_turn(ChatMix(kind, half=0), ChatMix(kind, half=1, once=True), min(turns, ONCE), "new_sentences")
        metrics |= {f"{name} ({kind})": value for name, value in whole.items()}
    # The worse of the two mixes is the figure.
    for name in ("patterns_same_spans_vs_presidio", "patterns_default_set_vs_presidio"):
        metrics[name] = min(metrics[f"{name} ({kind})"] for kind in get_args(Kind))
    for name in ("turn_ms_repeated_80", "turn_ms_new_sentences"):
        metrics[name] = max(metrics[f"{name} ({kind})"] for kind in get_args(Kind))
    return metrics | memory(texts)


def patterns(mix: ChatMix, turns: int, engines: dict[str, Callable[[str], Any]]) -> dict[str, float]:
    """Every engine reads a turn before the next turn comes, so that a disturbance of the machine hits all alike."""
    seconds = dict.fromkeys(engines, 0.0)
    made = [mix.turn().texts for _ in range(turns)]
    for texts in made:
        found = {}
        for name, engine in engines.items():
            started = time.process_time()
            found[name] = [engine(text) for text in texts]
            seconds[name] += time.process_time() - started
        if list(map(spans, found["presidio"])) != list(map(spans, found["same"])):
            raise SystemExit("The quick set found something else than Presidio; the ratio would mean nothing.")
    return {
        "patterns_same_spans_vs_presidio": round(seconds["presidio"] / seconds["same"], 2),
        "patterns_default_set_vs_presidio": round(seconds["presidio"] / seconds["default"], 2),
        **{f"{name}_ms_a_turn": round(1000 * taken / turns, 2) for name, taken in seconds.items()},
        "characters_a_turn": round(sum(len(text) for texts in made for text in texts) / turns),
    }


def spans(results: Sequence[Any]) -> list[tuple[int, int, str, float]]:
    return sorted((result.start, result.end, result.entity_type, result.score) for result in results)


def whole_turn(old: ChatMix, new: ChatMix, turns: int, name: str) -> dict[str, float]:
    """Milliseconds for a turn of which four in five passages, of the old mix, were scrubbed before."""
    pick = random.Random(2)
    scrubber = Scrubber()
    pool = [old.passage() for _ in range(POOL)]
    for start in range(0, POOL, 3):
        scrub(scrubber, ChatTurn(old.question(), tuple(pool[start : start + 3]), ""))
    made = [
        new.turn(tuple(pick.choice(pool) if pick.random() < REPEATED else new.passage() for _ in range(3)))
        for _ in range(turns)
    ]
    seconds = wall = 0.0
    speeds = []
    with clocked(turn_module, "read_names") as names, clocked(OfflineAnalyzer, "find") as recognisers:
        for turn in made:
            began, started = time.perf_counter(), time.process_time()
            scrub(scrubber, turn)
            seconds += time.process_time() - started
            wall += time.perf_counter() - began
            speeds.append(gflops())
    taken = {"turn_ms": seconds, "turn_wall_ms": wall, "name_model_ms": names[0], "recognisers_ms": recognisers[0]}
    return {
        **{f"{part}_{name}": round(1000 * value / turns, 2) for part, value in taken.items()},
        f"gflops_{name}": round(statistics.median(speeds), 1),
    }


@contextmanager
def clocked(owner: Any, name: str) -> Iterator[list[float]]:
    """The processor seconds that go into a function while this lasts, in a list of one."""
    plain = getattr(owner, name)
    taken = [0.0]

    def timed(*given: Any) -> Any:
        began = time.process_time()
        try:
            return plain(*given)
        finally:
            taken[0] += time.process_time() - began

    setattr(owner, name, timed)
    try:
        yield taken
    finally:
        setattr(owner, name, plain)


def gflops() -> float:
    """What this core does at this moment, by a product as large as the name model's were in float32."""
    left, right = np.ones((128, 384), dtype=np.float32), np.ones((384, 1536), dtype=np.float32)
    started = time.process_time()
    left @ right
    return 2 * 128 * 384 * 1536 / (time.process_time() - started) / 1e9


def scrub(scrubber: Scrubber, turn: ChatTurn) -> None:
    texts = [
        ScrubText("user", turn.question),
        *(ScrubText("context", passage, trusted=False) for passage in turn.passages),
        ScrubText("response", turn.answer),
    ]
    scrubber.scrub_turn(texts, EntityTable(b"a key that only this bench has.."))


def memory(texts: int) -> dict[str, float]:
    """Resident memory over many distinct texts through the default set."""
    mix = ChatMix("digit-rich", seed=7)
    find = default_set()
    early = 0.0
    for number in range(texts):
        find(f"{mix.question()} (case {number:06d} of the sixth of may)")
        if number == texts // 5:
            early = resident_mb()
    return {"rss_growth_mb": round(resident_mb() - early, 1), "rss_texts": texts}


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def default_set() -> Callable[[str], Any]:
    """Our recognisers without those of names and places."""
    analyzer = get_analyzer(Policy().regions)
    return lambda text: analyzer.find(text, PATTERN_TYPES)


def vanilla() -> Callable[[str], Any]:
    """Presidio as it comes, less what would need a download."""
    import spacy
    import tldextract
    from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
    from presidio_analyzer.nlp_engine import NlpArtifacts, SpacyNlpEngine

    # Presidio asks the network for the suffix list at the first address; the bundled one serves both sides.
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())

    class Blank(SpacyNlpEngine):
        def load(self) -> None:
            self.nlp = {"en": spacy.blank("en")}

        def _doc_to_nlp_artifact(self, doc: Any, language: str) -> NlpArtifacts:
            places = [token.idx for token in doc]
            words = [token.lower_ for token in doc]
            return NlpArtifacts([], doc, places, words, self, language)

    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=["en"])
    registry.recognizers = [r for r in registry.recognizers if r.name != "SpacyRecognizer"]
    nlp = Blank()
    nlp.load()
    engine = AnalyzerEngine(registry=registry, nlp_engine=nlp, supported_languages=["en"])
    return lambda text: engine.analyze(text, "en")


if __name__ == "__main__":
    main()
