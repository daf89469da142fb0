"""Fixtures of browser tests, which another room's tests have already."""

from __future__ import annotations

from tests.annotations.conftest import quiet  # noqa: F401
from tests.annotations.test_accessibility import axe  # noqa: F401
