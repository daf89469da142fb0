"""How long it takes to read among many stored turns: list, filters, words, meaning, one turn."""

from __future__ import annotations

import http.client
import json
import random
import statistics
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

from _capture_million import vocabulary

TIMES = 40
BETWEEN = 160
"""Reads of each kind between the first and those that count: as on a server that has been up for some minutes."""


def read_times(port: int, key: str, stored: int) -> dict[str, Any]:
    """Medians in milliseconds over HTTP, 50 turns a page; each time another word, turn, or place in the list.
    ``…_first_ms``: of the first reads after the server's start, which bring their pages from the system's cache or the
    disk into PostgreSQL's."""
    picked = random.Random(3)
    words = vocabulary()
    cursors: list[str] = []
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=120)

    def get(path: str, **query: str) -> Any:
        client.request("GET", f"/api/v1/{path}?{urlencode(query)}", headers={"Authorization": f"Bearer {key}"})
        answer = client.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} {query} answered {answer.status}: {body[:300]!r}")
        return json.loads(body)

    def any_turn() -> str:
        return f"stored-{picked.randrange(stored)}"

    def page() -> None:
        found = get("turns", **({"cursor": cursors[-1]} if cursors else {}))
        cursors.append(found["next"])

    asked = {
        "list": page,
        "filter": lambda: get("turns", adapter="adapter-3", tag=f"tag-{picked.randrange(40)}"),
        "declined": lambda: get("turns", declined="true"),
        "rare_words": lambda: get("turns", q=picked.choice(words[2000:])),
        "common_words": lambda: get("turns", q=picked.choice(words[:20])),
        "two_words": lambda: get("turns", q=" ".join(picked.sample(words[:500], 2))),
        "meaning": lambda: get("turns", like=f"turn:{any_turn()}"),
        "meaning_filtered": lambda: get("turns", like=f"turn:{any_turn()}", declined="true"),
        "one_turn": lambda: get(f"turns/{any_turn()}"),
    }

    def times(ask: Callable[[], Any]) -> list[float]:
        taken = []
        for _ in range(TIMES):
            begun = time.perf_counter()
            ask()
            taken.append(1000 * (time.perf_counter() - begun))
        return taken

    found: dict[str, Any] = {}
    for name, ask in asked.items():
        ask()
        first = times(ask)
        for _ in range(BETWEEN):
            ask()
        then = times(ask)
        found[f"{name}_ms"] = round(statistics.median(then), 1)
        found[f"{name}_first_ms"] = round(statistics.median(first), 1)
        print(
            f"{name}: p50 {found[f'{name}_ms']} ms, worst {max(then):.0f} ms; at first {found[f'{name}_first_ms']} ms"
        )
    return found
