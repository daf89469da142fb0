"""A POST that tells of an alert, signed so that its receiver knows who sent it."""

from __future__ import annotations

import asyncio
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
"""For one delivery, all its addresses and its answer's head together."""
MOST_PLACES = 3
"""Addresses of one name that are tried."""
SIGNATURE = "X-Ratchet-Signature"
CARRYING = [ipaddress.IPv6Network(one) for one in ("64:ff9b::/96", "64:ff9b:1::/48", "::/96")]
"""IPv6 networks whose last four bytes are an IPv4 address: of NAT64, and the old compatible ones."""


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
        if not settings.RATCHET_WEBHOOK_PRIVATE and not all(is_public(one) for one in found):
            return "It lies in a private network; allow that with RATCHET_WEBHOOK_PRIVATE=1."
        return asyncio.run(_sent(address, found, data, headers))
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # ValueError: a name that is no name
        return f"No answer ({type(error).__name__})."


def is_public(address: str) -> bool:
    """Also of the IPv4 address that some IPv6 addresses carry: where a gateway translates, they lead to it."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found.sixtofour is not None:  # whether these are global themselves depends on Python's version
            return is_public(str(found.sixtofour))
        if any(found in network for network in CARRYING):
            return found.is_global and is_public(str(ipaddress.IPv4Address(found.packed[-4:])))
        if found.is_site_local:
            return False
    return found.is_global and not found.is_multicast


def _looked_up(address: str) -> list[str]:
    parts = urlsplit(address)
    found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def _sent(address: str, found: list[str], data: bytes, headers: dict[str, str]) -> str:
    """To the first of the addresses that takes a connection. To these and not to the name: whoever may set an address
    here could have the name lead into this machine's network once it has been looked at.

    Raises:
        httpx.HTTPError: nobody was there, or what came was no answer.
        TimeoutError: `SECONDS` were over. httpx bounds each read only, and whoever sends a byte now and then would hold
            the worker without end.
    """
    url = httpx.URL(address)
    headers = {**headers, "Host": url.netloc.decode()}
    places = found[:MOST_PLACES]
    # Redirects could lead where the check of the address did not look.
    async with (
        asyncio.timeout(SECONDS),
        httpx.AsyncClient(follow_redirects=False, trust_env=False) as client,
    ):
        for host in places:
            try:
                # Only the status is read: an answer without an end would hold the worker.
                async with client.stream(
                    "POST",
                    url.copy_with(host=host),
                    content=data,
                    headers=headers,
                    timeout=httpx.Timeout(SECONDS, connect=SECONDS / len(places)),
                    extensions={"sni_hostname": url.raw_host.decode()},
                ) as answer:
                    return "" if 200 <= answer.status_code < 300 else f"It answered {answer.status_code}."
            except (httpx.ConnectError, httpx.ConnectTimeout):
                if host == places[-1]:
                    raise
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
