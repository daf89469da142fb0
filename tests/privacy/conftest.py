from __future__ import annotations

import pytest

from privacy.entities import EntityTable
from privacy.scrubber import Scrubber

KEY = b"a test key of thirty-two bytes.."


@pytest.fixture(scope="session")
def scrubber() -> Scrubber:
    return Scrubber()


@pytest.fixture
def table() -> EntityTable:
    return EntityTable(KEY)
