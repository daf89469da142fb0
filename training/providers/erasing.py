"""The files that a run has left at its provider, and deleting them there."""

from __future__ import annotations

from assistants.vault import PayloadUnreadable
from training.models import Run
from training.providers.client import FineTuningClient, ProviderError

_FILES = ("training_file", "validation_file")


def kept_there(run: Run) -> list[str]:
    """Which of the run's files (names in ``Run.remote``) are at the provider, as far as we know."""
    return [name for name in _FILES if run.remote.get(name) and not run.remote.get(f"{name}_deleted")]


def files_there(run: Run) -> list[str]:
    """The provider's ids of those, and the job on a Ray cluster: what was sent with it stays in the cluster's store and
    on its nodes until the cluster drops it, and nobody outside can take it away."""
    named = [str(run.remote[name]) for name in kept_there(run)]
    return [*named, *([f"files of the job {run.remote.get('job', '')}"] if run.remote.get("jobs") else [])]


def delete_there(run: Run) -> int:
    """Deletes them at the provider and notes it in the run; how many. Of a run that is not active. What the provider
    does not delete (it is away, refuses, was removed here) stays in `files_there`."""
    if run.provider is None or not kept_there(run):
        return 0
    try:
        key = run.provider.api_key
    except PayloadUnreadable:
        return 0
    gone: dict[str, bool] = {}
    with FineTuningClient(run.provider.base_url, key, pause=0.2) as client:
        for name in kept_there(run):
            try:
                client.delete_file(str(run.remote[name]))
            except ProviderError:
                continue
            gone[f"{name}_deleted"] = True
    if gone:
        run.remote = {**run.remote, **gone}
        run.save(update_fields=["remote"])
    return len(gone)
