"""Whether what is live can be served. Where it cannot, users go on getting answers, the base model's: only the engine's
log says so, and everybody believes that the adapter writes them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from django.conf import settings

from generation.adapters import check_adapter
from generation.engines import AdapterRefused, EngineError
from serving.models import Deployment
from training.finetune.bases import digest_of_base, from_state
from training.models import Adapter
from training.providers.serving import served_elsewhere

Stamps = tuple[tuple[str, int, int], ...]


def why_unserved(adapter: Adapter, *, prompt_digest: str) -> str:
    """What is wrong with it, as the end of a sentence; empty: nothing. Files are read when one of them has changed."""
    if adapter.prompt_digest != prompt_digest:
        return "it was trained on another prompt format"
    if adapter.source == Adapter.Source.REMOTE:
        return _elsewhere(adapter)
    if adapter.base_digest != (_base_digest() or adapter.base_digest):
        return "it was trained on another base model"
    folder = from_state(adapter.folder)
    try:
        found = [(path.name, path.stat()) for path in sorted(folder.iterdir())]
    except OSError:
        return "its folder cannot be read"
    stamps = tuple((name, stat.st_mtime_ns, stat.st_size) for name, stat in found)
    try:
        whole = _is_whole(str(folder), stamps)
    except OSError:
        return "its files cannot be read"
    return "" if whole else "its files are damaged or were changed"


def why_base_answers(deployment: Deployment | None) -> str:
    """Why users get the base model's answers although an adapter is live; empty: they do not, or none is live."""
    if deployment is None or deployment.adapter is None:
        return ""
    return why_unserved(deployment.adapter, prompt_digest=deployment.assistant.prompt_digest)


def _elsewhere(adapter: Adapter) -> str:
    """Of one that a provider trained, which has no files here."""
    try:
        served_elsewhere(adapter)
    except AdapterRefused:
        return "it answers only where it was trained"
    return ""


def _base_digest() -> str:
    """Empty where another server has the base model, or it is not on this machine; and in web processes, whose first
    page would wait until gigabytes were hashed: another base model is told by the alert, which the worker makes."""
    if settings.RATCHET_OPENAI_BASE_URL or settings.PROCESS == "web":
        return ""
    try:
        return digest_of_base()
    except (EngineError, OSError):
        return ""


@lru_cache(maxsize=64)
def _is_whole(folder: str, stamps: Stamps) -> bool:
    """``stamps``: names, times and sizes of its files, so that an answer is kept until one changes. That they could not
    be read is no answer: it raises OSError, which is not kept."""
    try:
        check_adapter(Path(folder))
    except AdapterRefused:
        return False
    return True
