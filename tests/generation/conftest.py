"""A tiny base model and two adapters with voices of their own, made once per run."""

from __future__ import annotations

from pathlib import Path

import pytest

from generation.local import TransformersEngine
from tests.tiny_model import make_tiny_adapter, make_tiny_base


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `base`, `one` and `two` (adapters)."""
    folder = tmp_path_factory.mktemp("models")
    base = make_tiny_base(folder / "base")
    make_tiny_adapter(base, folder / "one", seed=1)
    make_tiny_adapter(base, folder / "two", seed=2, rank=8)
    return folder


@pytest.fixture(scope="session")
def shared_engine(models: Path) -> TransformersEngine:
    """The base with both adapters; tests leave it as it is. Random weights loop at once: here they may."""
    engine = TransformersEngine(models / "base", cut_loops=False)
    engine.load_adapter("one", models / "one")
    engine.load_adapter("two", models / "two")
    return engine
