"""Measures the model folder on held-out documents: ``python -m training.base_model.evaluate --model models/base ...``.

The documents come from domains and manual pages that training never saw. Evidence stands in MiniLM order, as served, so
the constant pointer ``[1]`` and "print the most similar sentence" are the same baseline.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base_model.generate import Source
from training.base_model.packing import chat_text
from training.base_model.ranking import Ranker
from training.base_model.reading_set import read_reading_set
from training.base_model.scoring import Scores, best_threshold, first_sentence, score, thresholded
from training.base_model.sessions import STAGES, Example, examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONGEST_ANSWER = 80
_BATCH = 24
KINDS = {"handbook": (1.0, 0.0, 0.0), "manual": (0.0, 1.0, 0.0)}


def held_out_examples(source: Source, ranker: Ranker, kind: str, count: int, seed: int) -> list[Example]:
    """Questions with evidence in the order and with the misses of retrieval; one question per evidence set."""
    rng = random.Random(f"evaluation/{kind}/{seed}")
    found: list[Example] = []
    while len(found) < count:
        worlds = [source.world(rng, KINDS[kind]) for _ in range(8)]
        for world, similarity in zip(worlds, ranker.similarities(worlds), strict=True):
            found += examples(rng, world, similarity, STAGES["test"])
    return found[:count]


class Answerer:
    """Greedy answers from a model folder, in float32 on one thread."""

    def __init__(self, folder: Path, adapter: Path | None = None) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.set_num_threads(1)
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.tokenizer.padding_side = "left"
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
        if adapter is not None:
            from peft import PeftModel

            self.model = PeftModel.from_pretrained(self.model, adapter)
        self.model.eval()

    def __call__(self, prompts: Sequence[str]) -> Iterator[tuple[int, str]]:
        """(index, answer) pairs, shortest prompts first."""
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            encoded = self.tokenizer(
                [prompts[i] for i in chosen], return_tensors="pt", padding=True, add_special_tokens=False
            )
            ids, mask = encoded["input_ids"], encoded["attention_mask"]
            made = self.model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=_LONGEST_ANSWER, do_sample=False
            )
            for i, row in zip(chosen, made, strict=True):
                yield i, str(self.tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True)).strip()


def answer_all(answerer: Answerer, found: Sequence[Example]) -> list[str]:
    outputs = [""] * len(found)
    for done, (i, text) in enumerate(answerer([chat_text(e.branches[0].messages) for e in found]), start=1):
        outputs[i] = text
        if done % (4 * _BATCH) == 0:
            print(f"{done} of {len(found)} answered", file=sys.stderr, flush=True)
    return outputs


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="model folder")
    parser.add_argument("--adapter", type=Path, help="LoRA adapter folder")
    parser.add_argument("--manuals", type=Path, required=True, help="folder with the unpacked documentation packages")
    parser.add_argument(
        "--reading-set", type=Path, help="questions by people in SQuAD's JSON format (.json or .json.gz)"
    )
    parser.add_argument("--items", type=int, default=300, help="questions per kind of document")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="print this many answers per kind")
    options = parser.parse_args(argv)
    source, seen = Source(options.manuals, held_out=True), Source(options.manuals, held_out=False)
    ranker, answerer = Ranker(), Answerer(options.model, options.adapter)
    sets = {kind: held_out_examples(source, ranker, kind, options.items, options.seed) for kind in KINDS}
    if options.reading_set:
        sets["reading set"] = read_reading_set(options.reading_set, ranker, options.items, options.seed)
    for kind, found in sets.items():
        shares = kind if kind in KINDS else "manual"
        threshold = best_threshold(held_out_examples(seen, ranker, shares, options.items, options.seed))
        outputs = answer_all(answerer, found)
        _report(kind, "model", score(found, outputs))
        _report(kind, "first sentence, constant [1]", score(found, first_sentence(found)))
        _report(kind, f"first sentence, decline below {threshold}", score(found, thresholded(found, threshold)))
        for example, output in list(zip(found, outputs, strict=True))[: options.show]:
            branch = example.branches[0]
            print(
                json.dumps(
                    {"asked": branch.messages[-1]["content"], "wanted": branch.completion, "said": output},
                    ensure_ascii=False,
                )
            )
    return 0


def _report(kind: str, name: str, scores: Scores) -> None:
    print(json.dumps({"documents": kind, "answers": name, **asdict(scores)}), flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
