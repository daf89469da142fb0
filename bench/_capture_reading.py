"""How long it takes to read among many stored turns: list, filters, words, meaning, one turn."""

from __future__ import annotations

import http.client
import json
import random
import statistics
import time
from typing import Any
from urllib.parse import urlencode

from _capture_million import vocabulary

TIMES = 40


def read_times(port: int, key: str, stored: int) -> dict[str, Any]:
    """Medians in milliseconds over HTTP, 50 turns a page; each time another word, turn, or place in the list."""
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
    found: dict[str, Any] = {}
    for name, ask in asked.items():
        ask()
        seconds = []
        for _ in range(TIMES):
            begun = time.perf_counter()
            ask()
            seconds.append(time.perf_counter() - begun)
        found[f"{name}_ms"] = round(statistics.median(seconds) * 1000, 1)
        print(f"{name}: p50 {found[f'{name}_ms']} ms, worst {max(seconds) * 1000:.0f} ms", flush=True)
    return found
