"""Under which id a client's id is kept."""

from __future__ import annotations

import pytest

from capture.vault import stored_id


@pytest.mark.parametrize("given", ["anna@example.org", "Anna Smith", "+447700900123", "whatsapp:+447700900123"])
def test_an_id_that_says_who_it_was_is_kept_as_a_hash(given: str) -> None:
    kept = stored_id(given)
    assert kept.startswith("h-")
    assert kept == stored_id(given) == stored_id(kept)
    assert "7700" not in kept
    assert "nna" not in kept


@pytest.mark.parametrize("given", ["t-1", "447700900123", "0f8fad5b-d9cb-469f-a165", "a+12", "x+1234567890123456"])
def test_others_stay_as_they_are(given: str) -> None:
    assert stored_id(given) == given
