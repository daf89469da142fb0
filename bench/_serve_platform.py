"""The platform whole under load: what it adds to the engine's time, and whether promotions cost anybody an answer."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PROMOTE_EVERY = 5.0
LOOK_EVERY = 5.0
PARTS = 200
SERVING = ("generation.server", "uvicorn", "config.asgi")


def platform(place: Path, *, minutes: float, users: int, kill: bool = False) -> dict[str, Any]:
    """Starts `manage.py up` on a state folder below ``place`` and loads it; see `_measure`. ``kill``: the engine gets
    SIGKILL in the middle."""
    os.environ.update(
        RATCHET_VAR=str(place / "var"), DJANGO_SETTINGS_MODULE="config.settings", RATCHET_RATE_LIMIT="100000/min",
        RATCHET_PORT=str(_free_port()),
    )  # fmt: skip
    import django

    django.setup()
    from serving.demo.platform_process import Platform

    with Platform() as running:
        running.start()
        return _measure(running.url, minutes=minutes, users=users, kill=kill)


def _measure(url: str, *, minutes: float, users: int, kill: bool) -> dict[str, Any]:
    """overhead_p50_ms: of a whole answer, what the engine did not take, one user at a time. failed_requests: of all
    users while adapters are promoted and rolled back every few seconds. rss_growth_mb: of engine and web processes,
    from the end of the first fifth of the load (when every adapter has been used) to the end."""
    from _serve_parts import parts
    from _serve_servers import resident_mb

    assistant, secret = _assistant()
    before = _captured(assistant)
    alone = _Users(url, assistant.slug, secret)
    (engine,) = _pids("generation.server")
    questions = (alone.questions * 2)[:PARTS]
    by_part = parts(assistant, secret, questions, engine)
    print(f"parts of the overhead, processor ms: {by_part}", flush=True)
    before += len(questions) + 20
    _scrubbed(assistant)  # what the parts have captured all at once: nobody alone leaves so much behind
    alone.run(1, seconds=min(20.0, 20 * minutes))
    promoting = threading.Event()
    promotions: list[str] = []
    thread = threading.Thread(target=_promote, args=(assistant, promoting, promotions), daemon=True)
    crowd = _Users(url, assistant.slug, secret)
    samples: list[tuple[float, float]] = []
    thread.start()
    began = time.monotonic()
    watcher = threading.Thread(target=_watch, args=(samples, promoting, resident_mb), daemon=True)
    watcher.start()
    killer = threading.Timer(30 * minutes, os.kill, (engine, signal.SIGKILL))
    if kill:
        killer.start()
    crowd.run(users, seconds=60 * minutes)
    killer.cancel()
    promoting.set()
    thread.join(30)
    watcher.join(30)
    settled = [mb for at, mb in samples if at - began > 12 * minutes]
    return {
        "overhead_p50_ms": round(median(alone.overhead), 1),
        "retrieval_p50_ms": round(median(alone.retrieval), 1),
        "engine_p50_ms": round(median(alone.engine), 1),
        "requests": len(crowd.overhead),
        "failed_requests": alone.failed + crowd.failed,
        "failures": dict(Counter(alone.reasons + crowd.reasons).most_common(5)),
        "engine_killed": kill,
        "parts_cpu_ms": by_part,
        "promotions": len(promotions),
        "promotions_failed": sum(1 for each in promotions if each),
        "rss_mb": round(settled[-1]) if settled else 0,
        "rss_growth_mb": round(settled[-1] - settled[0], 1) if settled else 0,
        "load_minutes": minutes,
        "load_users": users,
        "turns_missing": _missing(assistant, before + len(alone.overhead) + len(crowd.overhead)),
    }


class _Users:
    """Each asks, waits for the whole answer, and asks again."""

    def __init__(self, url: str, model: str, secret: str) -> None:
        import json

        self.url, self.model, self.secret = url, model, secret
        lines = (ROOT / "serving/demo/benchmark.jsonl").read_text(encoding="utf-8").splitlines()
        self.questions = [json.loads(line)["question"] for line in lines]
        self.overhead: list[float] = []
        self.retrieval: list[float] = []
        self.engine: list[float] = []
        self.failed = 0
        self.reasons: list[str] = []

    def run(self, users: int, *, seconds: float) -> None:
        end = time.monotonic() + seconds
        threads = [threading.Thread(target=self._ask, args=(end, number)) for number in range(users)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _ask(self, end: float, number: int) -> None:
        import httpx

        with httpx.Client(base_url=self.url, trust_env=False, timeout=150) as http:
            while time.monotonic() < end:
                number += 7
                body = {
                    "model": self.model,
                    "messages": [{"role": "user", "content": self.questions[number % len(self.questions)]}],
                }
                try:
                    answer = http.post(
                        "/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {self.secret}"}
                    )
                    if answer.status_code != 200:
                        raise RuntimeError(f"{answer.status_code}: {answer.text[:120]}")
                except (httpx.HTTPError, RuntimeError) as error:
                    self.failed += 1
                    self.reasons.append(f"{type(error).__name__}: {error}"[:160])
                    time.sleep(1.0)  # as Retry-After says
                    continue
                timing = {
                    name.strip(): float(took)
                    for name, _, took in (p.partition(";dur=") for p in answer.headers["server-timing"].split(","))
                }
                self.overhead.append(timing["total"] - timing["engine"])
                self.retrieval.append(timing["retrieval"])
                self.engine.append(timing["engine"])


def _assistant() -> tuple[Any, str]:
    """With the demo's documents, a key, and two adapters that passed nothing (promoted by override)."""
    from _serve_servers import random_adapters
    from django.conf import settings

    from assistants.models import Assistant
    from assistants.services import issue_key
    from generation.adapters import base_digest
    from knowledge.services import load_document
    from training.finetune.bases import relative_to_state
    from training.models import Adapter

    assistant, made = Assistant.objects.get_or_create(slug="bench", defaults={"name": "Bench"})
    if made:
        for path in sorted((ROOT / "serving/demo/documents").rglob("*.md")):
            load_document(
                assistant=assistant, path=str(path.relative_to(ROOT / "serving/demo/documents")), data=path.read_bytes()
            )
    base = ROOT / "models" / "base"
    scratch = Path(settings.VAR_DIR) / "bench-adapters" / assistant.prompt_digest
    for number, folder in enumerate(random_adapters(base, scratch, assistant.prompt_digest, 2), start=1):
        target = Path(settings.RATCHET_ADAPTERS_DIR) / assistant.slug / str(number)
        shutil.copytree(folder, target, dirs_exist_ok=True)
        Adapter.objects.get_or_create(
            assistant=assistant, number=number,
            defaults={
                "folder": relative_to_state(target), "base_digest": base_digest(base),
                "prompt_digest": assistant.prompt_digest,
            },
        )  # fmt: skip
    _, secret = issue_key(assistant=assistant, name="bench", scopes=["chat"])
    return assistant, secret


def _promote(assistant: Any, stop: threading.Event, done: list[str]) -> None:
    """Whichever adapter is not live, and every third time one step back."""
    from django.db import connection

    from serving.models import Deployment
    from serving.services import PromotionRefused, promote, roll_back
    from training.models import Adapter

    adapters = list(Adapter.objects.filter(assistant=assistant).order_by("number"))
    step = 0
    while not stop.wait(PROMOTE_EVERY):
        try:
            if step % 3 == 2:
                roll_back(assistant=assistant, actor=None, reason="bench")
            else:
                live = Deployment.objects.filter(assistant=assistant).values_list("adapter", flat=True).first()
                other = next(adapter for adapter in adapters if adapter.pk != live)
                promote(assistant=assistant, adapter=other, evaluation=None, actor=None, reason="bench", override=True)
            done.append("")
        except PromotionRefused as refused:
            done.append(str(refused))
        step += 1
    connection.close()


def _watch(samples: list[tuple[float, float]], stop: threading.Event, resident_mb: Any) -> None:
    while not stop.wait(LOOK_EVERY):
        samples.append((time.monotonic(), resident_mb(_pids(*SERVING))))


def _pids(*programs: str) -> list[int]:
    """Processes of the platform that was started here, by their command lines and state folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            command = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            own = os.environ["RATCHET_VAR"].encode() in (path / "environ").read_bytes()
        except OSError:
            continue
        if own and any(program in command for program in programs):
            found.append(int(path.name))
    return found


def _missing(assistant: Any, expected: int) -> int:
    """Answers without a turn, when what is captured behind them has had its time."""
    end = time.monotonic() + 60
    while (missing := expected - _captured(assistant)) > 0 and time.monotonic() < end:
        time.sleep(0.5)
    return missing


def _scrubbed(assistant: Any) -> None:
    """Waits until the worker has nothing left of this assistant."""
    from capture.models import Quarantine

    end = time.monotonic() + 60
    while Quarantine.objects.filter(assistant=assistant).exists() and time.monotonic() < end:
        time.sleep(0.5)


def _captured(assistant: Any) -> int:
    """Turns and what still waits to become one."""
    from capture.models import Quarantine, Turn

    return Turn.objects.filter(assistant=assistant).count() + Quarantine.objects.filter(assistant=assistant).count()


def _free_port() -> int:
    from _serve_servers import _free_port as free

    return free()
