"""An adapter written into its base: a full model folder for servers that load no adapters. A job."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from assistants.background import launch
from assistants.services import audit
from generation.adapters import base_digest, check_adapter
from generation.engines import AdapterRefused
from training.finetune.bases import base_folder, from_state, relative_to_state
from training.finetune.process import recipe_environment
from training.models import Adapter
from training.registry.models import AdapterMerge

SPARE = 1.2


class MergeRefused(ValueError):
    """The adapter cannot be merged; the message says why and what to do."""


def start_merge(*, adapter: Adapter, created_by: User | None) -> AdapterMerge:
    """Raises MergeRefused: trained elsewhere, another base than ours now, or one is under way."""
    if adapter.source == Adapter.Source.REMOTE:
        raise MergeRefused(f"{adapter} was trained elsewhere; its weights are not here.")
    if adapter.erased_rows:
        raise MergeRefused(f"{adapter} holds erased data. Train a new adapter, and merge that one.")
    with transaction.atomic():
        Adapter.objects.select_for_update().get(pk=adapter.pk)
        if AdapterMerge.objects.active().filter(adapter=adapter).exists():
            raise MergeRefused(f"{adapter} is being merged already.")
        merge = AdapterMerge.objects.create(assistant=adapter.assistant, adapter=adapter, created_by=created_by)
        audit(assistant=adapter.assistant, actor=created_by, action="adapter.merge_started", target=str(adapter))
        transaction.on_commit(lambda: launch(merge))
    return merge


def cancel_merge(*, merge: AdapterMerge, actor: User | None) -> bool:
    """False when it had ended already."""
    with transaction.atomic():
        asked = merge.request_cancel()
        if asked:
            audit(assistant=merge.assistant, actor=actor, action="adapter.merge_cancelled", target=str(merge))
    return asked


def perform(merge: AdapterMerge) -> None:
    """Raises MergeRefused and what `check_adapter` raises."""
    adapter = merge.adapter
    base = base_folder()
    merge.beat(stage="checking the adapter")
    if base_digest(base) != adapter.base_digest:
        raise MergeRefused(f"{adapter} was trained on another base model than the one that is set now.")
    folder = from_state(adapter.folder)
    try:
        check_adapter(folder, base_digest=adapter.base_digest, prompt_digest=adapter.prompt_digest)
    except AdapterRefused as error:
        raise MergeRefused(str(error)) from error
    home = Path(settings.RATCHET_ADAPTERS_DIR) / adapter.assistant.slug / f"{adapter.number}-merged"
    home.parent.mkdir(parents=True, exist_ok=True)
    need = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    if shutil.disk_usage(home.parent).free < need * SPARE:
        raise MergeRefused(f"The merged model needs {need // 1024**2} MiB, and the disk has less. Make room first.")
    merge.beat(stage="merging")
    _merge_apart(merge, base, folder, home)
    merge.folder, merge.digest = relative_to_state(home), base_digest(home)
    merge.size_bytes = sum(path.stat().st_size for path in home.iterdir())
    merge.keep("folder", "digest", "size_bytes")


def _merge_apart(merge: AdapterMerge, base: Path, folder: Path, home: Path) -> None:
    """In a process of its own, so that a cancel takes its memory with it."""
    fresh = home.with_name(f".{home.name}.new")
    shutil.rmtree(fresh, ignore_errors=True)
    command = [sys.executable, "-W", "ignore", "-m", "training.finetune.merge", str(base), str(folder), str(fresh)]
    with tempfile.TemporaryFile() as said:
        # The other end of its standard input is ours: it ends when we do, however we end.
        child = subprocess.Popen(
            command, cwd=settings.BASE_DIR, env=recipe_environment(), stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip
        try:
            while child.poll() is None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(2)
                merge.beat()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
            assert child.stdin is not None
            child.stdin.close()
            if child.returncode:  # also after a cancel: half a model is of no use, and as large as a whole one
                shutil.rmtree(fresh, ignore_errors=True)
        said.seek(0)
        lines = [line for line in said.read().decode("utf-8", "replace").splitlines() if line.strip()]
    if child.returncode:
        raise MergeRefused(f"Merging failed: {lines[-1][:300] if lines else 'the process was killed.'}")
    shutil.rmtree(home, ignore_errors=True)
    fresh.rename(home)
