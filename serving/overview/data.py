"""Data: what is known, what is written and labelled, and what the datasets are made of."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Count, Q
from django.urls import reverse

from annotations.models import Resolution
from assistants.models import Assistant
from knowledge.models import Chunk, Document
from serving.models import Deployment
from serving.overview.panels import Cell, Overview, Panel, Series, Span, Table, Tile
from training.models import DatasetVersion, Kind, Origin, Synthesis, SyntheticItem

NEWEST = 12
"""Versions that the charts show."""


def overview(assistant: Assistant, span: Span) -> Overview:
    """``span`` bounds only what is counted as new: a dataset stands for ever."""
    frozen = DatasetVersion.objects.filter(assistant=assistant, state=DatasetVersion.State.SUCCEEDED)
    versions = list(frozen.order_by("-number")[:NEWEST])[::-1]
    return Overview("Data", _tiles(assistant, span, versions), _panels(assistant, versions))


def _tiles(assistant: Assistant, span: Span, versions: Sequence[DatasetVersion]) -> list[Tile]:
    documents = Document.objects.filter(assistant=assistant).aggregate(
        ready=Count("pk", filter=Q(state=Document.State.READY)),
        failed=Count("pk", filter=Q(state=Document.State.FAILED)),
    )
    chunks = Chunk.objects.filter(assistant=assistant).count()
    resolved = Resolution.objects.of(assistant).aggregate(
        n=Count("pk"), new=Count("pk", filter=Q(resolved_at__gte=span.since))
    )
    failed = f", {documents['failed']} could not be read" if documents["failed"] else ""
    newest = versions[-1] if versions else None
    return [
        Tile("Documents", f"{documents['ready']:,}", f"{chunks:,} chunks{failed}", "bad" if failed else "",
             _list("knowledge_document")),
        Tile("Verdicts", f"{resolved['n']:,}", f"{resolved['new']:,} in the last {span.words}",
             link=_list("annotations_resolution")),
        Tile("Written questions", f"{_kept(assistant):,}", "kept by the filters", link=_list("training_synthesis")),
        Tile("Newest dataset", f"{newest.rows:,} rows" if newest else "none", str(newest or "Build one"),
             link=reverse("admin:training_datasetversion_change", args=[newest.pk]) if newest
             else reverse("admin:training_datasetversion_add")),
        _changed(assistant),
    ]  # fmt: skip


def _kept(assistant: Assistant) -> int:
    return SyntheticItem.objects.filter(synthesis__assistant=assistant, dropped_by="").count()


def _changed(assistant: Assistant) -> Tile:
    """Documents that changed since the dataset was built that the live adapter was trained on."""
    deployment = Deployment.objects.filter(assistant=assistant).select_related("adapter__run__dataset").first()
    adapter = deployment.adapter if deployment else None
    run = adapter.run if adapter else None
    if run is None:
        return Tile("Changed since", "–", "the base model is live")
    changed = Document.objects.filter(assistant=assistant, updated_at__gt=run.dataset.created_at).count()
    return Tile("Changed since", f"{changed:,} documents", f"since the data of {adapter}", "amber" if changed else "")


def _panels(assistant: Assistant, versions: Sequence[DatasetVersion]) -> list[Panel]:
    labels = [f"Dataset {version.number}" for version in versions]
    return [
        Panel("origins", "Rows of each dataset, by where they come from", "stacked", labels,
              [s for s in (_series(versions, origin, None) for origin in Origin) if any(s.values)], "rows",
              empty="No dataset yet. Label some turns or write questions, and build one."),
        Panel("kinds", "Rows of each dataset, by what they teach", "stacked", labels,
              [s for s in (_series(versions, None, kind) for kind in Kind) if any(s.values)], "rows",
              empty="No dataset yet."),
        Panel("versions", "Datasets", shown=_versions(versions), empty="No dataset yet."),
        _synthesis(assistant),
    ]  # fmt: skip


def _series(versions: Sequence[DatasetVersion], origin: Origin | None, kind: Kind | None) -> Series:
    values: list[float | None] = []
    for version in versions:
        values.append(sum(
            n for o, kinds in version.mix.items() for k, n in kinds.items()
            if (origin is None or o == origin.value) and (kind is None or k == kind.value)
        ))  # fmt: skip
    return Series(str((origin or kind or Origin.GOOD).label), values)


def _versions(versions: Sequence[DatasetVersion]) -> Table:
    rows: list[list[Cell]] = []
    links: dict[int, str] = {}
    for version in reversed(versions):
        links[len(rows)] = reverse("admin:training_datasetversion_change", args=[version.pk])
        dropped = sum(step.get("dropped", 0) for step in version.funnel)
        rows.append([str(version), version.rows, dropped, len(version.documents), len(version.blocked),
                     version.erased_rows, version.content_hash[:12]])  # fmt: skip
    columns = ["", "rows", "left out", "documents cited", "blocked by the guard", "rows erased since", "hash"]
    return Table(columns, rows, links)


def _synthesis(assistant: Assistant) -> Panel:
    """Why written questions were dropped, in the newest run."""
    newest = Synthesis.objects.filter(assistant=assistant, state=Synthesis.State.SUCCEEDED).order_by("-pk").first()
    dropped = SyntheticItem.objects.filter(synthesis=newest).exclude(dropped_by="").order_by()
    counted = list(dropped.values_list("dropped_by").annotate(n=Count("pk")).order_by("-n")[:15]) if newest else []
    title = f"What the filters dropped in {newest or 'a synthesis'}"
    return Panel("dropped", title, "bars", [name for name, _ in counted],
                 [Series("questions", [n for _, n in counted], "slate")], "questions",
                 empty="No question was dropped, or none was written yet.")  # fmt: skip


def _list(name: str) -> str:
    return reverse(f"admin:{name}_changelist")
