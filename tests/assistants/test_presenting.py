"""Downloads are sent while they are made."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

from assistants.presenting import json_lines_response


def test_a_download_is_sent_while_it_is_made() -> None:
    made: list[int] = []

    def rows() -> Iterator[dict[str, int]]:
        for number in range(250):
            made.append(number)
            yield {"n": number}

    async def read() -> list[tuple[int, int]]:
        return [
            (len(piece.splitlines()), len(made)) async for piece in aiter(json_lines_response(rows(), "rows.jsonl"))
        ]

    assert asyncio.run(read()) == [(100, 100), (100, 200), (50, 250)]
    plain = b"".join(json_lines_response(rows(), "rows.jsonl"))
    assert [json.loads(line)["n"] for line in plain.splitlines()] == list(range(250))
