"""The receipt: who erased what kind of scope, when, why, how much of it, and what has learned from it. Signed."""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.utils import timezone

from assistants.services import audit
from assistants.vault import keyed_hash
from serving.erasure.record import Erasure

FORMAT = 1


def sign_off(erasure: Erasure, *, unreadable: int) -> None:
    """Writes the receipt, destroys what the scope was, and notes the act, in one transaction.

    Raises:
        WorkLost: another process goes on with it.
    """
    content = {
        "format": FORMAT,
        "erasure": erasure.pk,
        "assistant": erasure.assistant.slug,
        "scope": {"kind": erasure.kind, "keyed_hash": erasure.scope_digest},
        "asked_by": erasure.created_by.get_username() if erasure.created_by else "command line",
        "asked_at": erasure.created_at.isoformat(),
        "confirmed_by": erasure.confirmed_name,
        "confirmed_at": erasure.confirmed_at.isoformat() if erasure.confirmed_at else "",
        "finished_at": timezone.now().isoformat(),
        "reason": erasure.reason,
        "counts": dict(sorted(erasure.counts.items())),
        "could_not_be_opened": unreadable,
        **erasure.affected,
    }
    receipt = {**content, "signature": signature(content)}
    with transaction.atomic():
        erasure.receipt, erasure.sealed = receipt, None
        erasure.keep("receipt", "sealed", "affected")
        audit(
            assistant=erasure.assistant, actor=erasure.confirmed_by, action="erasure.done", target=str(erasure),
            reason=erasure.reason,
            details={"scope": erasure.scope_digest, "kind": erasure.kind, "counts": erasure.counts},
        )  # fmt: skip


def signature(content: Mapping[str, Any]) -> str:
    """Keyed hash over the receipt without its signature: whoever holds RATCHET_HASH_KEY can check that nobody changed
    it since."""
    unsigned = {name: value for name, value in content.items() if name != "signature"}
    return keyed_hash("erasure receipt", json.dumps(unsigned, sort_keys=True, ensure_ascii=False)).hex()


def is_genuine(receipt: Mapping[str, Any]) -> bool:
    return hmac.compare_digest(str(receipt.get("signature", "")), signature(receipt))
