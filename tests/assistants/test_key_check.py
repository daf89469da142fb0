"""A hash key that is not the one that the database was filled with: everything would work, and quietly wrong."""

from __future__ import annotations

import io
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from assistants.key_check import accept_hash_key, hash_key_fits, remember_hash_key
from assistants.models import AuditEvent, KeyCheck
from capture.management.commands.worker import Command as Worker
from config import checks
from config.management.commands import up

pytestmark = pytest.mark.django_db


def found() -> list[str | None]:
    return [message.id for message in checks.check_database(app_configs=None, databases=["default"])]


def test_the_first_start_remembers_the_key_and_later_ones_compare(settings: Any) -> None:
    settings.RATCHET_HASH_KEY = "the-key-of-this-house"
    assert hash_key_fits()  # nothing is known yet
    assert KeyCheck.objects.count() == 0
    assert remember_hash_key()
    assert remember_hash_key()
    row = KeyCheck.objects.get()
    assert b"the-key-of-this-house" not in bytes(row.hash_key)
    assert found() == []
    settings.RATCHET_HASH_KEY = "a-key-that-was-made-by-itself"
    assert not hash_key_fits()
    assert not remember_hash_key()
    assert found() == ["ratchet.E013"]
    settings.RATCHET_HASH_KEY = "the-key-of-this-house"
    assert found() == []


def test_nothing_starts_with_another_key(settings: Any) -> None:
    settings.RATCHET_HASH_KEY = "old"
    up._migrate()
    assert hash_key_fits()
    settings.RATCHET_HASH_KEY = "new"
    with pytest.raises(CommandError, match="ratchet_hash_key of the old var/secrets back"):
        up._migrate()
    with pytest.raises(CommandError, match="RATCHET_HASH_KEY is another"):
        Worker().handle()
    up._migrate(accept_hash_key=True)
    up._migrate()
    assert hash_key_fits()


def test_a_key_that_is_lost_for_good_can_be_followed_by_another(settings: Any) -> None:
    settings.RATCHET_HASH_KEY = "old"
    remember_hash_key()
    settings.RATCHET_HASH_KEY = "new"
    out = io.StringIO()
    call_command("rotate_keys", "--accept-hash-key", stdout=out)
    assert "counts" in out.getvalue()
    assert hash_key_fits()
    assert AuditEvent.objects.filter(action="key.accepted", target="RATCHET_HASH_KEY").count() == 1
    assert not accept_hash_key()
    assert AuditEvent.objects.filter(action="key.accepted").count() == 1
