"""Datasets as files that other tools load: TRL's formats, OpenAI's, Parquet, a folder for Hugging Face `datasets`.

Everything is rendered while it is sent; the memory that it takes does not depend on the rows. Formats that know no
weights (OpenAI's) hold a row as often as its weight says.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from capture.parquet import ParquetMissing, PieceBuffer
from training.data.card import card_of
from training.data.invented import surrogates_of, with_surrogates
from training.data.pool import batches
from training.data.recipe import Recipe
from training.data.recipe_file import write_recipe
from training.data.render import Method, count_rows, count_rows_by_split, rows_for
from training.models import DatasetVersion, Example

if TYPE_CHECKING:
    import pyarrow as pa

METHODS: tuple[Method, ...] = ("sft", "kto", "dpo")
GROUP = 500
SPLITS = Example.Split.values
FIXED_TIME = (1980, 1, 1, 0, 0, 0)
"""Of the files in an archive: the same version, the same bytes."""


class NothingToExport(ValueError):
    """The version has no rows for this; the message says why and what to do."""


NO_PARQUET = "Parquet needs the extra “parquet”: pip install 'ratchet[parquet]'."


@dataclass(frozen=True)
class Format:
    """``whole``: one file holds all splits and methods."""

    label: str
    suffix: str
    content_type: str
    made: Callable[[DatasetVersion, str, Method], Iterator[bytes]]
    methods: tuple[Method, ...] = METHODS
    whole: bool = False


def check_rows(dataset: DatasetVersion, split: str, method: Method) -> None:
    """Raises NothingToExport where this method has no rows in this split."""
    counts = count_rows(dataset, split)
    if method == "dpo" and not counts.dpo:
        raise NothingToExport(
            f"The {split} rows of {dataset} hold no pairs: nobody has corrected an answer there, or the recipe leaves "
            "out what was corrected. Export them for supervised training, or build a version with corrections."
        )
    if method == "kto" and not (counts.kto_desirable and counts.kto_undesirable):
        missing = "desirable" if not counts.kto_desirable else "undesirable"
        raise NothingToExport(
            f"The {split} rows of {dataset} are of one class, and KTO needs both: there is no {missing} one. Label "
            "more turns, or export the rows for supervised training."
        )
    if method == "sft" and not counts.sft:
        raise NothingToExport(f"{dataset} has no {split} rows to learn. Raise the recipe's share for validation.")


def lines(rows: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    for part in batches(rows, 100):
        yield "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in part).encode()


def trl_lines(dataset: DatasetVersion, split: str, method: Method) -> Iterator[bytes]:
    yield from lines(rows_for(dataset, split, method))


def openai_lines(dataset: DatasetVersion, split: str, method: Method) -> Iterator[bytes]:
    """Chat rows for supervised fine-tuning, preference rows for DPO, as OpenAI's fine-tuning API takes them."""
    yield from lines(_openai(dataset, split, method))


def _openai(dataset: DatasetVersion, split: str, method: Method) -> Iterator[dict[str, Any]]:
    for row in rows_for(dataset, split, method):
        plain: Any = row
        if method == "dpo":
            made = {
                "input": {"messages": plain["prompt"]},
                "preferred_output": plain["chosen"],
                "non_preferred_output": plain["rejected"],
            }
        else:
            made = {"messages": [*plain["prompt"], *plain["completion"]]}
        for _ in range(plain["weight"]):
            yield made


def own_lines(dataset: DatasetVersion, split: str, _: Method) -> Iterator[bytes]:
    """Everything that a row is made of, as `training.data.imports` reads it back."""
    yield from lines(_own(dataset, split))


def _own(dataset: DatasetVersion, split: str) -> Iterator[dict[str, Any]]:
    surrogates = surrogates_of(dataset)
    for example in dataset.examples.filter(split=split, erased_at=None).order_by("position").iterator(GROUP):
        drawn = with_surrogates(example, surrogates)
        yield {
            "question": drawn.question,
            "history": drawn.history,
            "contexts": drawn.contexts,
            "evidence": drawn.evidence,
            "sentences": drawn.sentences,
            "rejected": drawn.rejected,
            "origin": drawn.origin,
            "kind": drawn.kind,
            "weight": drawn.weight,
        }


def parquet_pieces(dataset: DatasetVersion, split: str, method: Method) -> Iterator[bytes]:
    """Raises ParquetMissing before the first piece."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise ParquetMissing(NO_PARQUET) from None
    schema = arrow_schema(method)
    buffer = PieceBuffer()
    with pq.ParquetWriter(pa.PythonFile(buffer, mode="w"), schema, compression="zstd") as writer:
        for group in batches(rows_for(dataset, split, method), GROUP):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            yield buffer.take()
    yield buffer.take()


def arrow_schema(method: Method) -> pa.Schema:
    import pyarrow as pa

    messages = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
    columns: dict[Method, list[tuple[str, Any]]] = {
        "sft": [("prompt", messages), ("completion", messages)],
        "kto": [("prompt", messages), ("completion", messages), ("label", pa.bool_())],
        "dpo": [("prompt", messages), ("chosen", messages), ("rejected", messages)],
    }
    return pa.schema([*columns[method], ("weight", pa.int32())])


def folder_pieces(dataset: DatasetVersion, _split: str, _method: Method) -> Iterator[bytes]:
    """A zip archive of a dataset folder: its card, its recipe, and the rows of every method that it has rows for."""
    buffer = PieceBuffer()
    have = count_rows_by_split(dataset)
    files = {
        (method, split): f"{method}/{split}.jsonl"
        for method in METHODS
        for split in SPLITS
        if (have[split].dpo if method == "dpo" else have[split].kto_undesirable if method == "kto" else have[split].sft)
    }
    texts = {
        "README.md": card_of(dataset, files, have),
        "recipe.yaml": write_recipe(Recipe.from_dict(dataset.recipe)),
    }
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(_entry(name), text)
            yield buffer.take()
        for (method, split), name in files.items():
            with archive.open(_entry(name), "w", force_zip64=True) as file:
                for piece in trl_lines(dataset, split, method):
                    file.write(piece)
                    yield buffer.take()
    yield buffer.take()


def _entry(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, FIXED_TIME)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


LINES = "application/x-ndjson; charset=utf-8"
FORMATS: dict[str, Format] = {
    "trl": Format("TRL, JSON lines", "jsonl", LINES, trl_lines),
    "parquet": Format("TRL, Parquet", "parquet", "application/vnd.apache.parquet", parquet_pieces),
    "openai": Format("OpenAI fine-tuning, JSON lines", "jsonl", LINES, openai_lines, methods=("sft", "dpo")),
    "own": Format("Ratchet, JSON lines (nothing lost)", "jsonl", LINES, own_lines, methods=("sft",)),
    "folder": Format(
        "Hugging Face folder with a card", "zip", "application/zip", folder_pieces, methods=("sft",), whole=True
    ),
}
