"""The curl examples of docs/api.md, run one after the other against the real application and engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from assistants.models import Assistant
from assistants.services import issue_key
from capture.models import Turn
from capture.services import scrub_waiting
from tests.serving.conftest import Shop
from tests.training.finetune.conftest import make_dataset
from training.models import DatasetVersion

PAGE = Path(__file__).resolve().parents[2] / "docs/api.md"
# The answer as it is, and its status on the other stream.
CURL = "curl() { command curl --silent --show-error --write-out '%{stderr}%{http_code}\\n' \"$@\"; echo; }\n"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def run(block: str, shop: Shop, secret: str, folder: Path) -> tuple[str, list[int]]:
    """What the servers said, and with which statuses."""
    prelude = next(block for block in blocks("sh") if block.startswith("URL="))
    environment = {"PATH": os.environ["PATH"], "KEY": secret, "NO_PROXY": "127.0.0.1"}
    code = prelude.replace("http://127.0.0.1:8000", shop.url) + CURL + block
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{block}\n{done.stderr}"
    return done.stdout, [int(line) for line in done.stderr.split() if line.isdecimal()]


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_every_curl_example_works_and_the_answers_are_as_shown(shop: Shop, tmp_path: Path, settings: Any) -> None:
    Assistant.objects.filter(pk=shop.assistant.pk).update(slug="helpdesk")
    scopes = ["log", "chat", "read", "annotate", "documents", "train"]
    _, secret = issue_key(assistant=shop.assistant, name="examples", scopes=scopes)
    shop.assistant.refresh_from_db()
    DatasetVersion.objects.filter(pk=make_dataset(shop.assistant).pk).update(number=4)  # that the page trains on
    settings.RATCHET_FOREGROUND = False
    examples = [block for block in blocks("sh") if "curl" in block]
    assert len(examples) > 8
    said = ""
    for block in examples:
        answer, statuses = run(block, shop, secret, tmp_path)
        assert statuses, block
        assert set(statuses) <= {200, 201, 202, 207}, f"{statuses}\n{block}\n{answer}"
        said += answer
        scrub_waiting()
    shown = [json.loads(block) for block in blocks("json") if "…" not in block]
    answers = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    expected = [answer for answer in shown if answer.get("status") == "created" or "results" in answer]
    assert len(expected) == 2
    assert [answer for answer in expected if answer not in answers] == []
    turn = Turn.objects.get(client_id="web-4711")
    assert (turn.outcome, turn.latency_ms, turn.tags) == ("resolved", 910, ["web", "checkout"])
    assert turn.client.startswith("curl/")
    assert sorted(turn.feedback.values_list("kind", flat=True)) == ["metric", "thumb"]
    assert "Ada" not in str(turn.metadata)
    assert Turn.objects.filter(client_id__in=["b1", "b3"]).count() == 2
