"""Whether the hash key of now is the one that this database was filled with.

A data key that is missing is noticed, since nothing opens. A hash key is not: with another one everything works, only
that a person gets a new placeholder in an old conversation, a repeated post is refused as a conflict, and what was
erased is no longer known to be. So the database keeps a hash under it.
"""

from __future__ import annotations

import hmac

from django.db import transaction

from assistants.models import KeyCheck
from assistants.services import audit
from assistants.vault import keyed_hash

PROBLEM = "RATCHET_HASH_KEY is another than the one that this database was filled with."
HINT = (
    "Put ratchet_hash_key of the old var/secrets back, or the old value into the environment. Where it is lost for "
    "good, run `python manage.py up --accept-hash-key`: persons then get new placeholders in old "
    "conversations, and what was posted before and comes again counts as changed."
)


def hash_key_fits() -> bool:
    """True as well where nothing has been written down yet. One query."""
    kept = KeyCheck.objects.filter(pk=KeyCheck.ONLY).values_list("hash_key", flat=True).first()
    return kept is None or hmac.compare_digest(bytes(kept), _value())


def remember_hash_key() -> bool:
    """Writes it down where nothing has been yet. False: another one was."""
    KeyCheck.objects.get_or_create(pk=KeyCheck.ONLY, defaults={"hash_key": _value()})
    return hash_key_fits()


@transaction.atomic
def accept_hash_key() -> bool:
    """From now on the key of now is the right one. False: it was already."""
    if KeyCheck.objects.exists() and hash_key_fits():
        return False
    KeyCheck.objects.update_or_create(pk=KeyCheck.ONLY, defaults={"hash_key": _value()})
    audit(assistant=None, actor=None, action="key.accepted", target="RATCHET_HASH_KEY")
    return True


def _value() -> bytes:
    return keyed_hash("key check", "")
