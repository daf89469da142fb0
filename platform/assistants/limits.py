"""How often a key may call: a token bucket per key in each web process.

In process rather than in PostgreSQL: a shared counter would cost every request a row write and make all requests of a
key wait for each other. With n web processes a key therefore gets up to n times the rate; the limit protects the
server from a program that runs wild, it is not a price list.
"""

from __future__ import annotations

import math
import re
import threading
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from rest_framework.request import Request
from rest_framework.throttling import BaseThrottle

from assistants.errors import ApiError
from assistants.models import ApiKey

_SECONDS = {"s": 1, "sec": 1, "m": 60, "min": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_MAX_BUCKETS = 10_000


@dataclass
class _Bucket:
    tokens: float
    at: float


_buckets: dict[int, _Bucket] = {}
_lock = threading.Lock()


@lru_cache(maxsize=8)
def parse_rate(rate: str) -> tuple[int, float]:
    """``"6000/min"`` → (6000 requests at once, 100.0 per second).

    Raises:
        ImproperlyConfigured: not of that form.
    """
    match = re.fullmatch(r"\s*(\d+)\s*/\s*([a-z]+)\s*", rate)
    if match is None or match[2] not in _SECONDS or not int(match[1]):
        raise ImproperlyConfigured(
            f"RATCHET_RATE_LIMIT={rate!r} is not a rate. Use for example 50/sec, 6000/min, 100000/hour or 1000000/day."
        )
    return int(match[1]), int(match[1]) / _SECONDS[match[2]]


def take(key: ApiKey) -> None:
    """Counts one request of ``key``.

    Raises:
        assistants.errors.ApiError: 429 with Retry-After, the bucket is empty.
    """
    if not settings.RATCHET_RATE_LIMIT:
        return
    capacity, per_second = parse_rate(settings.RATCHET_RATE_LIMIT)
    now = time.monotonic()
    with _lock:
        if len(_buckets) > _MAX_BUCKETS:
            _buckets.clear()
        bucket = _buckets.setdefault(key.pk, _Bucket(capacity, now))
        bucket.tokens = min(capacity, bucket.tokens + (now - bucket.at) * per_second)
        bucket.at = now
        if bucket.tokens >= 1:
            bucket.tokens -= 1
            return
        wait = (1 - bucket.tokens) / per_second
    raise ApiError(
        429,
        detail=f"More than {settings.RATCHET_RATE_LIMIT} requests with this key. Wait, or send batches.",
        headers={"Retry-After": str(max(1, math.ceil(wait)))},
    )


def reset() -> None:
    """Forgets all counts."""
    with _lock:
        _buckets.clear()


class KeyThrottle(BaseThrottle):
    """For API views: refuses with the time to wait."""

    def allow_request(self, request: Request, view: Any) -> bool:
        if isinstance(request.auth, ApiKey):
            take(request.auth)
        return True
