"""Annotations in the shapes of other tools: what `Dataset.records(…).to_json` of Argilla 2 writes and reads, and Label
Studio's JSON of annotated tasks. One entry is a turn with all its labels that count.

Neither has a place for a label that was replaced or taken back; those are in the JSON lines.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from django.db.models import QuerySet

from annotations.export import export_turns
from annotations.models import Annotation, ContextMark

Records = list[dict[str, Any]]
"""The labels of one turn, as `annotations.export.export_record` makes them."""

_PEOPLE = uuid.UUID("0f3f1c52-4d5e-4a55-9a65-6f2f6c8c1f0e")
"""Argilla knows people by UUID: ours are made from this and the name, the same for the same person everywhere."""


def argilla_pieces(annotations: QuerySet[Annotation]) -> Iterator[str]:
    """A JSON array of Argilla records, in pieces.

    Raises:
        capture.export_guard.ExportBlocked: something in a batch leaks; nothing of the batch has left.
    """
    return _array(annotations, argilla_record)


def label_studio_pieces(annotations: QuerySet[Annotation]) -> Iterator[str]:
    """A JSON array of Label Studio tasks, in pieces.

    Raises:
        capture.export_guard.ExportBlocked: as `argilla_pieces`.
    """
    return _array(annotations, label_studio_task)


def argilla_record(labels: Records) -> dict[str, Any]:
    """Fields are texts (``history`` a chat); questions: verdict, reasons, correction, note, and the ranks of passages
    that are relevant or not."""
    turn = labels[0]
    said: dict[str, list[dict[str, Any]]] = {}
    for label in labels:
        for question, value in _answers(label).items():
            said.setdefault(question, []).append({"value": value, "user_id": str(person_id(label["annotator"]))})
    return {
        "id": turn["turn"],
        "fields": {
            "history": [{"role": message["role"], "content": message["content"]} for message in turn["history"]],
            "question": turn["question"],
            "response": turn["response"],
            "contexts": "\n\n".join(f"[{c['rank']}] {c['title']}\n{c['text']}" for c in turn["contexts"]),
        },
        "metadata": {
            "client_id": turn["client_id"],
            "conversation": turn["conversation"],
            "declined": "yes" if turn["declined"] else "no",
            "annotators": [label["annotator"] for label in labels],
        },
        "suggestions": {},
        "responses": said,
        "vectors": {},
        "_server_id": None,
    }


def label_studio_task(labels: Records) -> dict[str, Any]:
    """A task with one annotation per label. Names stand in the data: as ``completed_by`` Label Studio takes
    only people that it knows, and refuses the file for others."""
    turn = labels[0]
    return {
        "data": {
            "turn": turn["turn"],
            "client_id": turn["client_id"],
            "history": [{"author": message["role"], "text": message["content"]} for message in turn["history"]],
            "question": turn["question"],
            "response": turn["response"],
            "contexts": [
                {"author": f"[{c['rank']}] {c['title']}", "text": c["text"], "source": c["source"]}
                for c in turn["contexts"]
            ],
            "annotators": {str(label["id"]): label["annotator"] for label in labels},
        },
        "annotations": [_label_studio_annotation(label) for label in labels],
        "predictions": [],
    }


def person_id(name: str) -> uuid.UUID:
    return uuid.uuid5(_PEOPLE, name)


def _label_studio_annotation(label: dict[str, Any]) -> dict[str, Any]:
    result = [
        {
            "id": f"{label['id']}-{question}",
            "from_name": question,
            "to_name": "response",
            "type": "textarea" if question in ("correction", "note") else "choices",
            "origin": "manual",
            "value": {"text": [value]}
            if question in ("correction", "note")
            else {"choices": value if isinstance(value, list) else [value]},
        }
        for question, value in _answers(label).items()
    ]
    return {
        "id": label["id"],
        "result": result,
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": label["created_at"],
        "lead_time": label["seconds"],
        "result_count": len(result),
    }


def _answers(label: dict[str, Any]) -> dict[str, str | list[str]]:
    """What a label says, by question; what it leaves out is left out."""
    marked = {
        relevance: [str(context["rank"]) for context in label["contexts"] if context["relevance"] == relevance]
        for relevance in (ContextMark.Relevance.RELEVANT.value, ContextMark.Relevance.NOT_RELEVANT.value)
    }
    answers: dict[str, str | list[str]] = {
        "verdict": label["verdict"],
        "reasons": list(label["reasons"]),
        "correction": label["correction"],
        "note": label["note"],
        **marked,
    }
    return {question: value for question, value in answers.items() if value}


def _array(annotations: QuerySet[Annotation], shape: Callable[[Records], dict[str, Any]]) -> Iterator[str]:
    """Valid JSON only when it is whole: an export that a guard stops on the way cannot be taken for a complete one."""
    before = "[\n"
    for batch in export_turns(annotations):
        yield before + ",\n".join(json.dumps(shape(labels), ensure_ascii=False) for labels in batch)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"
