"""Writes of retrieval configurations: save a version, make one active, note what serves."""

from __future__ import annotations

from typing import Any

from django.conf import settings as django_settings
from django.contrib.auth.models import User
from django.db import IntegrityError, transaction
from django.db.models import Max

from assistants.background import launch
from assistants.models import Assistant
from assistants.prose import masked_prose
from assistants.services import audit
from knowledge.configuration import (
    RetrievalSettings,
    SettingsRefused,
    checked,
    digest_of,
    put_on,
    settings_of,
    surroundings,
)
from knowledge.query_maps import is_usable
from knowledge.retrieval_models import RetrievalCheck, RetrievalConfiguration

MAX_NAME = 120
UNNAMED = "Settings as they were"
_noted: set[tuple[int, str]] = set()
"""(assistant, digest) that this process knows to be stored."""


def saved(*, assistant: Assistant, settings: RetrievalSettings) -> RetrievalConfiguration | None:
    """The version with these settings in today's surroundings (embedder, chunker, glossary)."""
    digest = digest_of(settings, surroundings(assistant))
    return RetrievalConfiguration.objects.filter(assistant=assistant, digest=digest).first()


@transaction.atomic
def save_configuration(
    *, assistant: Assistant, name: str, settings: RetrievalSettings, note: str = "", actor: User | None = None
) -> RetrievalConfiguration:
    """A new version, not active yet.

    Raises:
        SettingsRefused: no name, no reranker where one is wanted, or a version with just these settings is there.
    """
    name = name.strip()[:MAX_NAME]
    if not name:
        raise SettingsRefused("Give it a name.")
    note = masked_prose(note, assistant=assistant, typed_by=actor)
    _refuse_without_reranker(settings)
    _refuse_without_map(assistant, settings)
    # Two at once would take the same number.
    Assistant.objects.select_for_update(no_key=True).only("pk").get(pk=assistant.pk)
    if twin := saved(assistant=assistant, settings=settings):
        raise SettingsRefused(f"Version {twin} has just these settings.")
    created = _create(assistant, name, settings, note, actor)
    audit(
        assistant=assistant, actor=actor, action="retrieval.saved", target=str(created)[:200],
        details={"digest": created.digest},
    )  # fmt: skip
    return created


@transaction.atomic
def activate(*, configuration: RetrievalConfiguration, actor: User | None = None) -> RetrievalConfiguration:
    """Makes its settings those that the assistant searches by; returns the version that is active then.

    What counted before is kept as a version too, so that one can always go back. Where embedder, chunker or glossary
    have changed since it was saved, the same settings become a new version: their digest is another one.

    Raises:
        SettingsRefused: another release wrote it, with settings that this one does not know, or no reranker is set.
    """
    settings = checked(configuration.settings)
    _refuse_without_reranker(settings)
    assistant = Assistant.objects.select_for_update(no_key=True).get(pk=configuration.assistant_id)
    _refuse_without_map(assistant, settings)
    try:
        before: RetrievalConfiguration | None = _note(assistant, actor)
    except SettingsRefused:  # what counts cannot be read: this is how it is mended
        before = None
    assistant.save(update_fields=put_on(assistant, settings))
    now = saved(assistant=assistant, settings=settings)
    if now is None:
        now = _create(assistant, configuration.name, settings, f"Version {configuration.number}, made anew.", actor)
    if before is None or now.pk != before.pk:
        audit(
            assistant=assistant, actor=actor, action="retrieval.activated", target=str(now)[:200],
            details={"digest": [before.digest if before else "", now.digest]},
        )  # fmt: skip
    return now


def _refuse_without_map(assistant: Assistant, settings: RetrievalSettings) -> None:
    if settings.learned and not is_usable(assistant, settings.learned):
        raise SettingsRefused(f"There is no learned map {settings.learned} for this assistant's embedder.")


def _refuse_without_reranker(settings: RetrievalSettings) -> None:
    """Every question would fail, and nobody would see why before the first user does."""
    if settings.rerank and not django_settings.RATCHET_RERANKER:
        raise SettingsRefused("No reranker is installed: set RATCHET_RERANKER, or switch reranking off.")


def note_active(assistant: Assistant) -> None:
    """Stores the settings that the assistant searches by, so that the digest on its turns leads to them. Costs nothing
    but the first time in a process."""
    settings = settings_of(assistant)
    key = (assistant.pk, digest_of(settings, surroundings(assistant)))
    if key in _noted:
        return
    try:
        with transaction.atomic():
            _note(assistant, None)
    except IntegrityError:  # another process was first
        return
    _noted.add(key)


def _note(assistant: Assistant, actor: User | None) -> RetrievalConfiguration:
    settings = settings_of(assistant)
    return saved(assistant=assistant, settings=settings) or _create(assistant, UNNAMED, settings, "", actor)


def _create(
    assistant: Assistant, name: str, settings: RetrievalSettings, note: str, actor: User | None
) -> RetrievalConfiguration:
    around = surroundings(assistant)
    last = RetrievalConfiguration.objects.filter(assistant=assistant).aggregate(last=Max("number"))["last"]
    return RetrievalConfiguration.objects.create(
        assistant=assistant, number=(last or 0) + 1, name=name, note=note, settings=settings.model_dump(mode="json"),
        around=around, digest=digest_of(settings, around), created_by=actor,
    )  # fmt: skip


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """(title of the setting, here, there) of what differs between two versions' settings."""
    fields = RetrievalSettings.model_fields
    return [
        (field.title or name.replace("_", " ").capitalize(), one.get(name), other.get(name))
        for name, field in fields.items()
        if one.get(name) != other.get(name)
    ]


def start_check(*, assistant: Assistant, actor: User | None = None) -> RetrievalCheck:
    """Queues a self-test; one that is under way already is returned instead."""
    with transaction.atomic():
        Assistant.objects.select_for_update(no_key=True).only("pk").get(pk=assistant.pk)
        if running := RetrievalCheck.objects.active().filter(assistant=assistant).first():
            return running
        check = RetrievalCheck.objects.create(assistant=assistant, created_by=actor)
        audit(assistant=assistant, actor=actor, action="retrieval.checked", target=str(check))
    launch(check)
    return check
