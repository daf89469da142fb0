"""Writes about providers."""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import urlsplit

from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import transaction

from assistants.models import Assistant
from assistants.services import audit
from training.models import TrainingProvider

MAX_KEY = 500
MAX_GPUS = 64


def _is_link_local(host: str) -> bool:
    """Whether the name leads to where clouds keep the credentials of a machine. A private network is allowed: many
    houses train there."""
    try:
        found = socket.getaddrinfo(host, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return False  # unknown now; the run will say so
    addresses = [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    # ::ffff:169.254.169.254 is the same place, and Python 3.11 does not say so.
    return any((getattr(address, "ipv4_mapped", None) or address).is_link_local for address in addresses)


@transaction.atomic
def save_provider(
    *,
    assistant: Assistant,
    name: str,
    base_url: str,
    model: str,
    api_key: str,
    actor: User | None,
    provider: TrainingProvider | None = None,
    kind: str = TrainingProvider.Kind.OPENAI,
    gpus: int = 0,
    folder: str = "",
) -> TrainingProvider:
    """Makes or changes a provider; its kind stays. An empty key keeps the stored one, unless the address changes: a key
    must not go to another server than it was entered for. A Ray cluster may have none.

    Raises:
        django.core.exceptions.ValidationError: a value is not allowed.
    """
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.query or url.fragment:
        raise ValidationError({"base_url": "Write an address such as https://provider.example.org/v1."})
    if _is_link_local(url.hostname):
        raise ValidationError({"base_url": "That address belongs to the machine's own network services."})
    if len(api_key) > MAX_KEY or not api_key.isascii() or any(c.isspace() for c in api_key):
        raise ValidationError({"api_key": f"A key is one word of at most {MAX_KEY} letters, digits and signs."})
    row = provider or TrainingProvider(assistant=assistant, created_by=actor, kind=kind)
    moved = provider is None or provider.base_url != base_url
    ray = row.kind == TrainingProvider.Kind.RAY
    if not api_key and moved and not ray:
        raise ValidationError({"api_key": "Enter the key of this address."})
    if not model.strip() and not ray:
        raise ValidationError({"model": "Enter the base that the provider fine-tunes."})
    if not 0 <= gpus <= MAX_GPUS:
        raise ValidationError({"gpus": f"A job reserves between 0 and {MAX_GPUS} GPUs."})
    if folder and not folder.startswith("/"):
        raise ValidationError({"folder": "Write a path that begins with a slash, as on the machines of the cluster."})
    row.name, row.base_url, row.model = name.strip(), base_url, model.strip()
    if ray:
        row.gpus, row.folder = gpus, folder.strip()
    if api_key or moved:
        row.api_key = api_key
    row.full_clean(exclude=["sealed_key", "created_by"])
    row.save()
    audit(
        assistant=assistant,
        actor=actor,
        action="provider.changed" if provider else "provider.added",
        target=row.name,
        details={"host": url.hostname, "key_changed": bool(api_key)},
    )
    return row


@transaction.atomic
def remove_provider(*, provider: TrainingProvider, actor: User | None) -> None:
    """Forgets a provider and its key.

    Raises:
        django.db.models.ProtectedError: runs have trained there.
    """
    audit(assistant=provider.assistant, actor=actor, action="provider.removed", target=provider.name)
    provider.delete()
