"""A POST that tells of an alert, signed so that its receiver knows who sent it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction

from assistants.services import audit
from serving.alerts.models import AlertChannel, new_salt

SECONDS = 10.0
MOST_PLACES = 3
"""Addresses of one name that are tried."""
SIGNATURE = "X-Ratchet-Signature"


def address_problem(address: str) -> str:
    """Empty: it may be sent to. Names are looked up again when something is sent."""
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        return "This is no address."
    if parts.scheme not in ("https", "http") or not parts.hostname:
        return "Give an address that begins with https://."
    if parts.username or parts.password:
        return "Leave the name and password out: the request is signed instead."
    if parts.scheme == "http" and not settings.RATCHET_WEBHOOK_PRIVATE:
        return "Give an https address; http only where RATCHET_WEBHOOK_PRIVATE=1."
    if port == 0:
        return "This is no address."
    return ""


def post(address: str, body: dict[str, Any], *, key: str) -> str:
    """Sends, signed with ``key``; returns what went wrong, or nothing. What the receiver answers is not kept: only its
    status."""
    if problem := address_problem(address):
        return problem
    data = json.dumps(body, separators=(",", ":"), sort_keys=True).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "ratchet", SIGNATURE: sign(data, key)}
    try:
        found = _looked_up(address)
        if not settings.RATCHET_WEBHOOK_PRIVATE and not all(ipaddress.ip_address(one).is_global for one in found):
            return "It lies in a private network; allow that with RATCHET_WEBHOOK_PRIVATE=1."
        return _sent(address, found, data, headers)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # ValueError: a name that is no name
        return f"No answer ({type(error).__name__})."


def _looked_up(address: str) -> list[str]:
    parts = urlsplit(address)
    found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _sent(address: str, found: list[str], data: bytes, headers: dict[str, str]) -> str:
    """To the first of the addresses that takes a connection. To these and not to the name: whoever may set an address
    here could have the name lead into this machine's network once it has been looked at."""
    url = httpx.URL(address)
    headers = {**headers, "Host": url.netloc.decode()}
    # Redirects could lead where the check of the address did not look.
    with httpx.Client(timeout=SECONDS, follow_redirects=False, trust_env=False) as client:
        for place, host in enumerate(found[:MOST_PLACES], start=1):
            try:
                answer = client.post(
                    url.copy_with(host=host),
                    content=data,
                    headers=headers,
                    extensions={"sni_hostname": url.raw_host.decode()},
                )
            except httpx.ConnectError:
                if place == len(found[:MOST_PLACES]):
                    raise
            else:
                return "" if 200 <= answer.status_code < 300 else f"It answered {answer.status_code}."
    return "No answer."


def key_of(channel: AlertChannel) -> str:
    """The key with which what is sent to this webhook is signed. Each has its own: with one for all, whoever receives
    for one assistant could write in the name of another's alerts. It is derived, so that the database alone gives none
    away."""
    named = f"webhook {channel.pk} {channel.key_salt}".encode()
    drawn = hmac.new(settings.RATCHET_WEBHOOK_KEY.encode(), named, hashlib.sha256).digest()
    return "whk_" + base64.urlsafe_b64encode(drawn).decode().rstrip("=")


@transaction.atomic
def change_key(*, channel: AlertChannel, by: User) -> str:
    """The new signing key, from the next alert on."""
    channel.key_salt = new_salt()
    channel.save(update_fields=["key_salt"])
    audit(
        assistant=channel.assistant, actor=by, action="alert_channel.key_changed", target=f"{channel.kind} {channel.pk}"
    )  # fmt: skip
    return key_of(channel)


def sign(data: bytes, key: str) -> str:
    """``sha256=`` and the HMAC-SHA256 of the body."""
    return "sha256=" + hmac.new(key.encode(), data, hashlib.sha256).hexdigest()
