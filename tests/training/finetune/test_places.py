"""Adapters and runs are found wherever their folders are on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.conf import LazySettings

from training.finetune.bases import from_state, relative_to_state


@pytest.mark.parametrize(("setting", "name"), [("RATCHET_ADAPTERS_DIR", "adapters"), ("RATCHET_RUNS_DIR", "runs")])
def test_a_folder_that_lies_elsewhere_on_another_machine_is_found_there(
    settings: LazySettings, tmp_path: Path, setting: str, name: str
) -> None:
    """Two machines share one folder of adapters, and each mounts it where it likes; a backup comes back anywhere."""
    settings.VAR_DIR = tmp_path / "var"
    setattr(settings, setting, tmp_path / "var" / name)
    stored = relative_to_state(tmp_path / "var" / name / "helpdesk" / "1")
    assert stored == f"{name}/helpdesk/1"
    assert from_state(stored) == tmp_path / "var" / name / "helpdesk" / "1"
    setattr(settings, setting, tmp_path / "shared")
    assert from_state(stored) == tmp_path / "shared" / "helpdesk" / "1"
    assert relative_to_state(tmp_path / "shared" / "helpdesk" / "2") == f"{name}/helpdesk/2"


def test_other_folders_are_told_from_the_state_folder_or_absolute(settings: LazySettings, tmp_path: Path) -> None:
    settings.VAR_DIR = tmp_path
    for folder in (tmp_path / "merged" / "1", Path("/elsewhere/1")):
        assert from_state(relative_to_state(folder)) == folder
    assert relative_to_state(tmp_path / "merged" / "1") == "merged/1"
    assert from_state("") == tmp_path
