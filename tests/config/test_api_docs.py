"""The description of the API, and its page."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import yaml
from django.test import Client
from drf_spectacular.validation import validate_schema


class _Scripts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str | None] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "script":
            self.addresses.append(dict(attrs).get("src"))


def test_the_page_runs_files_of_our_own_and_nothing_inline(client: Client) -> None:
    page = client.get("/api/docs")
    assert page.status_code == 200
    assert "script-src 'self'" in page.headers["Content-Security-Policy"]
    assert "'unsafe-inline'" not in re.search(r"script-src[^;]*", page.headers["Content-Security-Policy"])[0]  # type: ignore[index]
    reader = _Scripts()
    reader.feed(page.content.decode())
    assert len(reader.addresses) == 3
    for address in reader.addresses:
        assert address is not None
        assert address.startswith(("/static/", "/api/docs"))
        answer = client.get(address)
        assert answer.status_code == 200, address
    assert "/api/v1/schema" in answer.content.decode()


def test_the_description_is_valid_and_whole(client: Client) -> None:
    described = yaml.safe_load(client.get("/api/v1/schema").content)
    validate_schema(described)
    operations = {(path, method) for path, methods in described["paths"].items() for method in methods}
    assert operations == {
        ("/api/v1/turns", "get"), ("/api/v1/turns", "post"), ("/api/v1/turns/batch", "post"),
        ("/api/v1/turns/batch", "patch"),
        ("/api/v1/turns/{name}", "get"), ("/api/v1/turns/{name}", "patch"), ("/api/v1/turns/export", "get"),
        ("/api/v1/feedback", "post"), ("/v1/traces", "post"), ("/v1/chat/completions", "post"), ("/v1/models", "get"),
        ("/api/v1/annotations", "get"), ("/api/v1/annotations", "post"),
        ("/api/v1/documents", "get"), ("/api/v1/documents", "post"), ("/api/v1/documents/{id}", "get"),
        ("/api/v1/documents/{id}", "delete"), ("/api/v1/documents/at/{path}", "get"),
        ("/api/v1/documents/at/{path}", "put"), ("/api/v1/documents/at/{path}", "delete"),
        ("/api/v1/uploads/{id}", "get"), ("/api/v1/uploads/{id}", "delete"), ("/api/v1/uploads/{id}/{act}", "post"),
        ("/api/v1/runs", "get"), ("/api/v1/runs", "post"), ("/api/v1/runs/{id}", "get"),
        ("/api/v1/runs/{id}/cancel", "post"),
    }  # fmt: skip
    for path, method in operations:
        operation = described["paths"][path][method]
        assert operation["security"], path
        assert {"401", "403", "429", "503"} <= set(operation["responses"]), path
        assert all("content" in answer for answer in operation["responses"].values()), path
    turn = described["components"]["schemas"]["TurnItem"]
    assert turn["additionalProperties"] is False
    assert set(turn["required"]) == {"id", "question", "response"}


def test_every_reference_of_the_description_leads_somewhere(client: Client) -> None:
    text = client.get("/api/v1/schema").content.decode()
    known = set(yaml.safe_load(text)["components"]["schemas"])
    assert set(re.findall(r"#/components/schemas/([\w.-]+)", text)) <= known
