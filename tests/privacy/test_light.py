"""What a process loads that scrubs: not torch, which other parts of it may still load."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIBE = """
import json, sys
from privacy.scrubber import Scrubber

found = Scrubber().scrub_text("Ask Mary Jones, +44 20 7946 0018, or mary@example.com.").text
heavy = sorted({name.partition(".")[0] for name in sys.modules} & {"torch", "transformers"})
import scipy.stats  # looks into sys.modules for torch, and stumbles over one that is None
import torch

print(json.dumps({"text": found, "heavy": heavy, "one": torch.ones(1).item()}))
"""


def test_scrubbing_loads_neither_torch_nor_transformers_and_keeps_them_from_nobody() -> None:
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}", "PATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", SCRIBE], env=environment, capture_output=True, text=True, timeout=300, check=True
    )
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["heavy"] == []
    assert told["one"] == 1.0
    assert "mary@example.com" not in told["text"]
    assert "Mary" not in told["text"]
