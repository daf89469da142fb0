"""What every benchmark ends with: one line of JSON that says what was measured, on what, at which commit."""

from __future__ import annotations

import json
import os
import platform as machine_info
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def report(bench: str, metrics: dict[str, Any]) -> None:
    """Prints the closing line."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    machine = {
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "system": machine_info.platform(),
        "python": machine_info.python_version(),
    }
    print(json.dumps({"bench": bench, "metrics": metrics, "machine": machine, "commit": commit}))
