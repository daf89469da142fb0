"""Loaded before the settings (see pyproject.toml): tests keep their state, secrets and database in a folder of their
own, never in the checkout's `var/`. Child processes inherit it; workers of pytest-xdist share the database server and
keep everything else apart, locks above all."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

if "RATCHET_TEST_OWNER" not in os.environ:
    os.environ["RATCHET_TEST_OWNER"] = str(os.getpid())
    os.environ["RATCHET_VAR"] = tempfile.mkdtemp(prefix="ratchet-test-")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["RATCHET_BACKGROUND_NICE"] = (
        "0"  # whoever waits for background work is a test, and busy with nothing else
    )
    os.environ["RATCHET_ENV_FILE"] = os.devnull
    for name in ("DEBUG", "RATCHET_PROCESS", "RATCHET_ENGINE_URL", "Q_CLUSTER_NAME"):
        os.environ.pop(name, None)
elif worker := os.environ.get("PYTEST_XDIST_WORKER"):
    shared = Path(os.environ["RATCHET_VAR"])
    own = shared / worker
    (own / "secrets").mkdir(mode=0o700, parents=True, exist_ok=True)
    if home := os.environ.get("RATCHET_TEST_DATABASE"):
        (own / "postgres.location").write_text(home, encoding="utf-8")
        shutil.copy(shared / "secrets" / "database_password", own / "secrets")
    os.environ["RATCHET_VAR"] = str(own)
