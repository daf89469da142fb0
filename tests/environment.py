"""Loaded before the settings (see pyproject.toml): tests keep their state, secrets and database in a folder of their
own, never in the checkout's `var/`. Workers of pytest-xdist and child processes inherit it."""

from __future__ import annotations

import os
import tempfile

if "RATCHET_TEST_OWNER" not in os.environ:
    os.environ["RATCHET_TEST_OWNER"] = str(os.getpid())
    os.environ["RATCHET_VAR"] = tempfile.mkdtemp(prefix="ratchet-test-")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["RATCHET_ENV_FILE"] = os.devnull
    for name in ("DEBUG", "RATCHET_PROCESS", "RATCHET_ENGINE_URL", "Q_CLUSTER_NAME"):
        os.environ.pop(name, None)
