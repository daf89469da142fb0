"""Examines the model folder: ``make base-eval`` or ``python -m training.base_model.evaluate --handbook FOLDER ...``.

Evidence stands in MiniLM order, as served, so the constant pointer ``[1]`` and "print the most similar sentence" are
the same baseline. The second baseline declines below a similarity that is chosen on the development handbook.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.base_model.generate import Source
from training.base_model.library import Condition, Library, library_examples
from training.base_model.packing import chat_text
from training.base_model.ranking import Ranker
from training.base_model.reading.format import read_folder
from training.base_model.reading.worlds import whole_world
from training.base_model.reading_set import answerability_examples, doc2dial_library, squad_library
from training.base_model.scoring import Scores, best_threshold, first_sentence, kind_of, score, thresholded
from training.base_model.sessions import HELD_OUT, STAGES, Example, examples

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONGEST_ANSWER = 80
_BATCH = 24
DEVELOPMENT = Path(__file__).parent / "handbooks" / "development"
COLUMNS = (
    "right sentence", "right document", "contains", "token f1", "verdict", "all sentences", "false decline", "declined",
    "decline f1", "numbers copied",
)  # fmt: skip
KINDS = {"handbook": (1.0, 0.0, 0.0, 0.0), "manual": (0.0, 1.0, 0.0, 0.0)}


def held_out_examples(source: Source, ranker: Ranker, kind: str, count: int, seed: int) -> list[Example]:
    """Questions with evidence in the order and with the misses of retrieval; one question per evidence set."""
    rng = random.Random(f"evaluation/{kind}/{seed}")
    found: list[Example] = []
    while len(found) < count:
        worlds = [source.world(rng, KINDS[kind]) for _ in range(8)]
        for world, similarity in zip(worlds, ranker.similarities(worlds), strict=True):
            found += examples(rng, world, similarity, STAGES[HELD_OUT])
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


def handbook(folder: Path) -> Library:
    """A folder of reading files without slots, as one library.

    Raises:
        FileNotFoundError: it holds none.
        FormatError: one of them is not in the format.
    """
    library = Library(folder.name)
    for file in read_folder(folder):
        library.add_world(whole_world(file))
    return library


def question_sets(options: argparse.Namespace, ranker: Ranker) -> Iterator[tuple[str, list[Example]]]:
    """What the command line asks for, as (name, examples)."""
    for folder in options.handbook:
        library = handbook(folder)
        for condition in Condition:
            yield f"{folder.name} handbook, {condition}", library_examples(library, ranker, condition)
    if options.squad:
        library = squad_library(options.squad, options.items, options.seed)
        for condition in (Condition.CLEAN, Condition.MISSING):
            yield f"{options.squad.name.split('.json')[0]}, {condition}", library_examples(library, ranker, condition)
    if options.doc2dial:
        documents, questions = options.doc2dial
        library = doc2dial_library(documents, questions, options.items, options.seed)
        yield "doc2dial, clean", library_examples(library, ranker)
    if options.mtrag_un:
        yield "mtrag-un, passages given", answerability_examples(options.mtrag_un, ranker, options.items, options.seed)
    if options.manuals:
        source = Source(options.manuals, held_out=True)
        for kind in KINDS:
            yield f"generated {kind}", held_out_examples(source, ranker, kind, options.items, options.seed)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("models/base"), help="model folder")
    parser.add_argument("--adapter", type=Path, help="LoRA adapter folder")
    parser.add_argument("--handbook", type=Path, nargs="*", default=[DEVELOPMENT], help="folders of reading files")
    parser.add_argument("--squad", type=Path, help="questions by people in SQuAD's format (.json or .json.gz)")
    parser.add_argument("--doc2dial", type=Path, nargs=2, metavar=("DOCUMENTS", "QUESTIONS"))
    parser.add_argument("--mtrag-un", type=Path, help="reference file of MTRAG-UN")
    parser.add_argument("--manuals", type=Path, help="folder with the unpacked manuals: adds the generated sets")
    parser.add_argument("--items", type=int, default=300, help="questions per public or generated set")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=0, help="print this many answers per set")
    options = parser.parse_args(argv)
    ranker, answerer = Ranker(), Answerer(options.model, options.adapter)
    chosen_on = library_examples(handbook(DEVELOPMENT), ranker)
    for_model = best_threshold(chosen_on, answer_all(answerer, chosen_on))
    for_sentence = best_threshold(chosen_on, first_sentence(chosen_on))
    print(_row("questions (answerable + not)", "answers", *COLUMNS))
    print("|" + "---|" * (len(COLUMNS) + 2))
    for name, found in question_sets(options, ranker):
        outputs = answer_all(answerer, found)
        _report(name, "**model**", score(found, outputs))
        below = thresholded(found, outputs, for_model)
        _report(name, f"model, declines below {for_model:.2f}", score(found, below))
        _report(name, "`[1]`", score(found, first_sentence(found)))
        below = thresholded(found, first_sentence(found), for_sentence)
        _report(name, f"`[1]`, declines below {for_sentence:.2f}", score(found, below))
        if name.endswith(f"handbook, {Condition.CLEAN}"):
            for kind in ("plain", "yes or no", "follow-up", "joined"):
                mine = [i for i, e in enumerate(found) if e.answerable and kind_of(e) == kind]
                some = [found[i] for i in mine]
                _report(f"... {kind}", "**model**", score(some, [outputs[i] for i in mine]))
                _report(f"... {kind}", "`[1]`", score(some, first_sentence(some)))
        for example, output in list(zip(found, outputs, strict=True))[: options.show]:
            asked = example.branches[0].messages[-1]["content"]
            print(json.dumps({"asked": asked, "wanted": example.branches[0].completion, "said": output}))
    return 0


def _report(name: str, answers: str, scores: Scores) -> None:
    values = [
        f"{getattr(scores, column.replace(' ', '_')):.3f}" if count else ""
        for column in COLUMNS
        for count in (scores.unanswerable if column.startswith("decline") else scores.answerable,)
    ]
    print(_row(f"{name} ({scores.answerable} + {scores.unanswerable})", answers, *values), flush=True)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    raise SystemExit(main())
