"""Posts that are answered in threads: what is read of them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.core.exceptions import RequestAborted

from config.intake import IntakeHandler

PIECE = b"x" * 1000


def read(messages: list[dict[str, Any]]) -> tuple[bytes, int]:
    """The body that is kept, and how many messages were left on the line."""
    line = iter(messages)

    async def receive() -> dict[str, Any]:
        return next(line)

    with asyncio.run(IntakeHandler().read_body(receive)) as body:
        return body.read(), len(list(line))


def pieces(count: int) -> list[dict[str, Any]]:
    return [{"type": "http.request", "body": PIECE, "more_body": place < count - 1} for place in range(count)]


def test_a_body_is_kept_up_to_the_limit_and_taken_off_the_line(settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 2500
    assert read(pieces(2)) == (PIECE * 2, 0)
    assert read(pieces(9)) == ((PIECE * 3)[:2501], 0)
    assert read([{"type": "http.request"}]) == (b"", 0)


@pytest.mark.parametrize("in_memory", [0, 999, 1000, 2500, 8999, 9000])
def test_a_body_is_the_same_in_memory_and_in_a_file(settings: Any, in_memory: int) -> None:
    settings.FILE_UPLOAD_MAX_MEMORY_SIZE = in_memory
    assert read(pieces(9)) == (PIECE * 9, 0)


def test_a_client_that_goes_away_is_no_request() -> None:
    with pytest.raises(RequestAborted):
        read([*pieces(2)[:1], {"type": "http.disconnect"}])
