"""The fine-tuning API of OpenAI as a client: files, jobs, events, cancel. Any server that speaks it, at any address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

TIMEOUT = httpx.Timeout(60.0, connect=10.0)
"""Of one step: httpx bounds each read and write only."""
WHOLE_SECONDS = 120.0
"""Of one request from the connection to the end of the answer: a server that sends a byte now and then would hold the
run without end."""
SLOWEST_UPLOAD = 64 * 1024
"""Bytes a second that an upload is waited for, beside ``WHOLE_SECONDS``."""
MAX_ANSWER = 16 * 1024 * 1024
TRIES = 4
PAUSE = 1.0
BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
MAX_MESSAGE = 300
EVENTS = 100
ENDED = frozenset({"succeeded", "failed", "cancelled"})


class ProviderError(RuntimeError):
    """The provider refuses, fails, or is not there; the message says what and what to do."""


class ProviderAway(ProviderError):
    """It did not answer, or was too busy, several times running: it may be back in a while."""


class FineTuningClient:
    """``with FineTuningClient(url, key) as client``. Reading is tried again when the provider is busy or away for a
    moment; making a job is not: it costs money, and who asks twice may get two. What has taken ``whole`` seconds is not
    tried again at once either, since nobody could cancel meanwhile: whoever asked may look again later."""

    def __init__(self, base_url: str, api_key: str, *, pause: float = PAUSE, whole: float = WHOLE_SECONDS) -> None:
        self.pause, self.whole = pause, whole
        self._loop = asyncio.Runner()
        # Of asyncio, because a time limit there reaches every wait of a request, also those inside of httpx.
        self._http = httpx.AsyncClient(
            base_url=base_url.rstrip("/") + "/",
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=TIMEOUT,
            follow_redirects=False,  # a key goes to the address that somebody has entered, nowhere else
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._loop:
            self._loop.run(self._http.aclose())

    def upload(self, path: Path) -> str:
        """Returns the id of the file there."""
        with path.open("rb") as file:
            files = {"file": (path.name, file, "application/jsonl")}
            whole = self.whole + path.stat().st_size / SLOWEST_UPLOAD
            answer = self._send("POST", "files", whole=whole, data={"purpose": "fine-tune"}, files=files)
        return _text(answer, "id")

    def delete_file(self, file: str) -> None:
        self._send("DELETE", f"files/{file}", retry=True)

    def create_job(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._send("POST", "fine_tuning/jobs", json=dict(body))

    def job(self, job: str) -> dict[str, Any]:
        return self._send("GET", f"fine_tuning/jobs/{job}", retry=True)

    def find_job(self, mark: str) -> dict[str, Any] | None:
        """The newest job whose metadata hold our mark, among the last hundred."""
        found = _rows(self._send("GET", "fine_tuning/jobs", params={"limit": 100}, retry=True))
        return next((job for job in found if _mark(job) == mark), None)

    def events(self, job: str, *, seen: frozenset[str]) -> list[dict[str, Any]]:
        """Events that are not in ``seen``, oldest first. Providers list the newest first."""
        fresh: list[dict[str, Any]] = []
        params: dict[str, Any] = {"limit": EVENTS}
        for _ in range(20):
            page = self._send("GET", f"fine_tuning/jobs/{job}/events", params=params, retry=True)
            rows = _rows(page)
            new = [row for row in rows if str(row.get("id")) not in seen]
            fresh += new
            if len(new) < len(rows) or not page.get("has_more") or not rows:
                break
            params["after"] = str(rows[-1].get("id"))
        return list(reversed(fresh))

    def cancel(self, job: str) -> None:
        self._send("POST", f"fine_tuning/jobs/{job}/cancel", retry=True)

    def _send(
        self, method: str, path: str, *, retry: bool = False, whole: float | None = None, **how: Any
    ) -> dict[str, Any]:
        for attempt in range(1, TRIES + 1):
            last = attempt == TRIES or not retry
            seconds = whole or self.whole
            try:
                answer = self._loop.run(self._asked(method, path, seconds, how))
            except TimeoutError as error:
                raise ProviderAway(
                    f"The provider at {self._http.base_url.host} has not answered to the end within {seconds:.0f} "
                    "seconds. Look whether it is up, then let the run go on."
                ) from error
            except httpx.HTTPError as error:
                if last:
                    raise ProviderAway(
                        f"The provider at {self._http.base_url.host} does not answer ({type(error).__name__}). Look "
                        "whether it is up, then let the run go on."
                    ) from error
            else:
                if answer.is_success:
                    return _object(answer)
                if last or answer.status_code not in BUSY:
                    away = answer.status_code in BUSY
                    raise (ProviderAway if away else ProviderError)(_refusal(answer))
            time.sleep(self.pause * 2 ** (attempt - 1))
        raise AssertionError("unreachable")

    async def _asked(self, method: str, path: str, seconds: float, how: Mapping[str, Any]) -> httpx.Response:
        """Raises TimeoutError, httpx.HTTPError or ProviderError (more than `MAX_ANSWER` bytes)."""
        async with asyncio.timeout(seconds), self._http.stream(method, path, **how) as answer:
            content = bytearray()
            async for part in answer.aiter_bytes():
                content += part
                if len(content) > MAX_ANSWER:
                    raise ProviderError("The provider's answer does not end. Is the address right (…/v1)?")
        return httpx.Response(answer.status_code, content=bytes(content))


def _object(answer: httpx.Response) -> dict[str, Any]:
    try:
        value = answer.json()
    except ValueError as error:
        raise ProviderError("The provider answered something that is no JSON. Is the address right (…/v1)?") from error
    if not isinstance(value, dict):
        raise ProviderError("The provider answered no JSON object. Is the address right (…/v1)?")
    return value


def _rows(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Of a list as the wire format has it; what is none has none."""
    rows = page.get("data")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _mark(job: Mapping[str, Any]) -> Any:
    told = job.get("metadata")
    return told.get("ratchet") if isinstance(told, dict) else None


def _refusal(answer: httpx.Response) -> str:
    """Status and the provider's own sentence, cut: it must not fill a page, nor carry a file that it quotes."""
    said = ""
    try:
        body = answer.json()
        error = body.get("error", body) if isinstance(body, dict) else {}
        said = str(error.get("message", "") if isinstance(error, dict) else error)
    except ValueError:
        pass
    words = {401: "It does not know the key.", 403: "The key may not train.", 404: "Is the address right (…/v1)?"}
    hint = words.get(answer.status_code, "")
    return " ".join(filter(None, (f"The provider refused ({answer.status_code}).", said[:MAX_MESSAGE], hint)))


def _text(answer: dict[str, Any], name: str) -> str:
    value = answer.get(name)
    if not isinstance(value, str) or not value:
        raise ProviderError(f"The provider's answer has no {name!r}. Does it speak OpenAI's fine-tuning API?")
    return value
