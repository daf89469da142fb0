"""How many rows a dataset has for each method."""

from __future__ import annotations

from training.data.render import count_rows
from training.finetune.methods import Counts
from training.models import DatasetVersion, Example


def counts_of_dataset(dataset: DatasetVersion) -> Counts:
    """Of its training split. One query."""
    found = count_rows(dataset, Example.Split.TRAIN)
    return Counts(sft=found.sft, pairs=found.dpo, good=found.kto_desirable, bad=found.kto_undesirable)
