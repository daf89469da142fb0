"""A POST that tells of an alert, signed so that its receiver knows who sent it."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
from django.conf import settings

SECONDS = 10.0
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


def post(address: str, body: dict[str, Any]) -> str:
    """Sends; returns what went wrong, or nothing. What the receiver answers is not kept: only its status."""
    if problem := address_problem(address):
        return problem
    data = json.dumps(body, separators=(",", ":"), sort_keys=True).encode()
    headers = {"Content-Type": "application/json", "User-Agent": "ratchet", SIGNATURE: sign(data)}
    try:
        if problem := _forbidden(address):
            return problem
        # Redirects could lead where the check of the address did not look.
        with httpx.Client(timeout=SECONDS, follow_redirects=False, trust_env=False) as client:
            status = client.post(address, content=data, headers=headers).status_code
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # ValueError: a name that is no name
        return f"No answer ({type(error).__name__})."
    return "" if 200 <= status < 300 else f"It answered {status}."


def sign(data: bytes) -> str:
    """``sha256=`` and the HMAC of the body with RATCHET_WEBHOOK_KEY."""
    return "sha256=" + hmac.new(settings.RATCHET_WEBHOOK_KEY.encode(), data, hashlib.sha256).hexdigest()


def _forbidden(address: str) -> str:
    """Whoever may set an address here could otherwise reach what only this machine's network can."""
    if settings.RATCHET_WEBHOOK_PRIVATE:
        return ""
    parts = urlsplit(address)
    found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    if all(ipaddress.ip_address(entry[4][0]).is_global for entry in found):
        return ""
    return "It lies in a private network; allow that with RATCHET_WEBHOOK_PRIVATE=1."
