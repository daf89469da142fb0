"""How fast and how large: ``python -m training.base_model.speed --model models/base`` (one core, by the engine)."""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from generation.engines import GenerationRequest
from generation.local import TransformersEngine
from training.base_model.evaluate import DEVELOPMENT, handbook
from training.base_model.library import library_examples
from training.base_model.ranking import Ranker

_QUESTIONS = 60
_ALONE = 12
"""Questions asked one after the other, for the time to the first token."""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/base"), help="model folder")
    options = parser.parse_args(argv)
    library = handbook(DEVELOPMENT)
    library.items = library.items[:_QUESTIONS]
    found = library_examples(library, Ranker())
    requests = [GenerationRequest(messages=e.branches[0].messages, max_new_tokens=80) for e in found]
    before = _resident()
    started = time.perf_counter()
    engine = TransformersEngine(options.model)
    loading = time.perf_counter() - started
    first = [GenerationRequest(messages=r.messages, max_new_tokens=1) for r in requests[:_ALONE]]
    waits = [_timed(engine, [request])[0] for request in first]
    alone, tokens = zip(*(_timed(engine, [request]) for request in requests[:_ALONE]), strict=True)
    together, all_tokens = _timed(engine, requests)
    figures = {
        "load_s": round(loading, 2),
        "first_token_ms": round(1000 * median(waits)),
        "tokens_per_s_alone": round(sum(tokens) / sum(alone)),
        "tokens_per_s_together": round(all_tokens / together),
        "prompts_per_s_together": round(len(requests) / together, 1),
        "resident_mb": round(_resident() - before),
    }
    print(json.dumps(figures), file=sys.stdout)
    return 0


def _timed(engine: TransformersEngine, requests: Sequence[GenerationRequest]) -> tuple[float, int]:
    """(seconds, completion tokens)"""
    started = time.perf_counter()
    results = engine.generate(requests)
    return time.perf_counter() - started, sum(result.completion_tokens for result in results)


def _resident() -> float:
    """Largest resident memory of this process so far, in MB (Linux counts in kB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    raise SystemExit(main())
