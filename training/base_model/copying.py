"""Which tokens does the model copy? ``python -m training.base_model.copying --model models/base``.

Every probed token stands in one evidence sentence; the expected answer is given up to each token (teacher forcing) and
the next one is compared.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from generation.prompts import House, PromptPassage, SentenceRef, build_prompt
from training.base_model.evaluate import Answerer
from training.base_model.packing import chat_text
from training.base_model.tokenizer import LEARNED_VOCABULARY

_FIRST_MERGED = 261
"""Below: special tokens and single bytes."""


def copied_tokens(answerer: Answerer, count: int, seed: int) -> dict[int, list[bool]]:
    """Token → whether it was copied, each time it came up in ``count`` probed tokens (three per sentence)."""
    import torch

    rng = random.Random(seed)
    probed = rng.sample(range(_FIRST_MERGED, LEARNED_VOCABULARY), count)
    found: dict[int, list[bool]] = defaultdict(list)
    for start in range(0, count, 3):
        words = [str(answerer.tokenizer.decode([i])).strip() for i in probed[start : start + 3]]
        if len(set(words)) < 3 or not all(words):
            continue
        prompt, answer = _texts(*words)
        given = answerer.tokenizer.encode(prompt, add_special_tokens=False)
        wanted = answerer.tokenizer.encode(answer, add_special_tokens=False)
        with torch.no_grad():
            logits = answerer.model(torch.tensor([given + wanted])).logits[0, len(given) - 1 : -1]
        for token, said in zip(wanted, logits.argmax(-1).tolist(), strict=True):
            if _FIRST_MERGED <= token < LEARNED_VOCABULARY:
                found[token].append(token == said)
    return found


def _texts(first: str, second: str, third: str) -> tuple[str, str]:
    sentence = f"The {first} plan and the {second} {third} are listed together."
    prompt = build_prompt(
        house=House(decline="Sorry, we do not say."),
        question=f"Which plan is listed with the {second} {third}?",
        passages=[PromptPassage(1, "Guide", sentence), PromptPassage(2, "Guide", "Ask at the desk.")],
        evidence=[SentenceRef(1, 0), SentenceRef(2, 0)],
    )
    return chat_text(prompt.messages), f"[1] {sentence}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--tokens", type=int, default=1200, help="how many tokens to probe")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    found = copied_tokens(Answerer(options.model), options.tokens, options.seed)
    shares = [float(np.mean(right)) for right in found.values()]
    print(json.dumps({"tokens": len(shares), "copied": round(float(np.mean(shares)), 3)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
