"""A replaced document keeps its history, and what did not change keeps its rows and vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from assistants.models import Assistant
from assistants.policies import change_policy, rules_of
from knowledge import storing
from knowledge.loading import Brought
from knowledge.models import Chunk, Document
from knowledge.services import load_document, mark_superseded
from tests.factories import make_assistant, make_user

CARD = "4111 1111 1111 1111"


def text_of(*sections: str) -> bytes:
    return ("# Fees\n\n" + "\n\n".join(f"## {s.split('.')[0]}\n\n{s}" for s in sections) + "\n").encode()


ONE, TWO, THREE = "Leaving. It costs £35.", "Late. It costs £6.", "Moving. It costs nothing."


@pytest.fixture
def ada(db: None) -> User:
    return make_user("ada")


@pytest.fixture
def assistant(ada: User) -> Assistant:
    return make_assistant("bot", members={"admin": [ada]})


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The chunks whose text was embedded, in order; the embedding itself goes on."""
    seen: list[str] = []
    real = storing.embed

    def noting(texts: Any) -> Any:
        seen.extend(texts)
        return real(texts)

    monkeypatch.setattr(storing, "embed", noting)
    return seen


def load(assistant: Assistant, *sections: str, path: str = "fees.md", **more: Any) -> Document:
    return load_document(assistant=assistant, path=path, data=text_of(*sections), **more)


def rows(document: Document) -> list[tuple[int, str]]:
    return [(chunk.pk, chunk.text.split(".")[0]) for chunk in document.chunks.order_by("position")]


def test_only_what_changed_is_embedded_and_the_rest_keeps_its_rows_in_the_new_order(
    assistant: Assistant, embedded: list[str]
) -> None:
    first = load(assistant, ONE, TWO)
    assert len(embedded) == 2
    (one, _), (two, _) = rows(first)
    vectors = dict(Chunk.objects.values_list("pk", "embedding"))
    embedded.clear()
    second = load(assistant, THREE, TWO, ONE)
    assert [text.split("\n")[1] for text in embedded] == [THREE]
    assert [(pk, text) for pk, text in rows(second) if pk in (one, two)] == [(two, "Late"), (one, "Leaving")]
    assert [text for _, text in rows(second)] == ["Moving", "Late", "Leaving"]
    assert [chunk.position for chunk in second.chunks.order_by("position")] == [0, 1, 2]
    for pk in (one, two):
        assert Chunk.objects.get(pk=pk).embedding == vectors[pk]
    assert [(v.number, v.chunks, v.chunks_kept) for v in second.versions.all()] == [(2, 3, 2), (1, 2, 0)]
    embedded.clear()
    third = load(assistant, ONE)
    assert (embedded, rows(third)) == ([], [(one, "Leaving")])


def test_the_same_text_twice_in_one_document_is_two_chunks(assistant: Assistant) -> None:
    body = b"# T\n\n## A\n\nSame here.\n\n## A\n\nSame here.\n"
    document = load_document(assistant=assistant, path="t.md", data=body)
    before = [chunk.pk for chunk in document.chunks.order_by("position")]
    assert len(before) == 2
    again = load_document(assistant=assistant, path="t.md", data=body + b"\n## B\n\nOther.\n")
    assert [chunk.pk for chunk in again.chunks.order_by("position")][:2] == before


def test_a_file_that_moved_finds_its_vectors_and_another_assistants_are_not_touched(
    assistant: Assistant, embedded: list[str]
) -> None:
    load(make_assistant("other"), ONE)
    load(assistant, TWO)
    embedded.clear()
    load(assistant, TWO, path="moved/fees.md")
    assert embedded == []
    load(assistant, ONE, path="x.md")
    assert len(embedded) == 1


def test_another_embedder_or_chunker_embeds_everything_anew_without_a_new_version(
    assistant: Assistant, embedded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    document = load(assistant, ONE, TWO)
    before = {pk for pk, _ in rows(document)}
    embedded.clear()
    mark_superseded(documents=[document], superseded=True)
    monkeypatch.setattr("knowledge.loading.embedder_digest", lambda: "another")
    again = load(assistant, ONE, TWO)
    assert again.superseded  # what a person has said of it stays
    assert (again.version, len(embedded)) == (1, 2)
    assert before.isdisjoint(pk for pk, _ in rows(again))
    assert again.index_digest != document.index_digest
    assert [v.number for v in again.versions.all()] == [1]


def test_the_history_says_who_when_and_what_was_there(assistant: Assistant, ada: User) -> None:
    load(assistant, ONE, brought=Brought(by=ada, via="page"))
    load(assistant, TWO, brought=Brought(via="key sync"))
    document = load(assistant, THREE)
    newest, middle, oldest = document.versions.all()
    assert (oldest.created_by, oldest.via, middle.via, newest.via) == (ada, "page", "key sync", "")
    assert oldest.created_at < middle.created_at < newest.created_at
    assert (ONE in oldest.text, TWO in middle.text, newest.text) == (True, True, "")
    assert newest.digest == document.digest
    failed = load_document(assistant=assistant, path="fees.md", data=b"\x00")
    assert (failed.state, failed.version, failed.versions.count()) == ("failed", 3, 3)
    back = load(assistant, THREE)
    assert (back.state, back.version, back.versions.count()) == ("ready", 3, 3)


def test_only_so_many_texts_are_kept(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storing, "KEPT_TEXTS", 2)
    for n in range(5):
        document = load(assistant, f"Fee. It costs £{n}.")
    assert [bool(version.text) for version in document.versions.all()] == [False, True, True, False, False]


@pytest.mark.parametrize("same_text", [True, False])
def test_a_text_that_a_stricter_policy_would_mask_does_not_stay_in_the_history(
    assistant: Assistant, same_text: bool
) -> None:
    nothing = replace(rules_of(assistant), documents="nothing")
    change_policy(assistant=assistant, rules=nothing, actor=None, reason="All is public.")
    load(assistant, f"Till. Its card is {CARD}.")
    document = load(assistant, ONE)
    assert CARD in document.versions.get(number=1).text
    strict = replace(rules_of(assistant), documents="everything")
    change_policy(assistant=assistant, rules=strict, actor=None, reason="It is not.")
    document = load(assistant, *([ONE] if same_text else [TWO]))
    assert document.version == (2 if same_text else 3)
    assert not any(document.versions.values_list("text", flat=True))
    third = load(assistant, THREE)
    assert [bool(version.text) for version in third.versions.all()][:2] == [False, True]


def test_a_sentence_that_names_the_document_that_counts_leads_to_it(assistant: Assistant) -> None:
    new = load(assistant, ONE, path="fees-2026.md")
    other = load_document(assistant=make_assistant(), path="fees-2027.md", data=b"# Fees 2027\n\nIt costs.")
    for said, by in (
        ("Superseded by [fees-2026](fees-2026.md).", new), ("*Superseded by fees-2026.md on 1 March.*", new),
        ("Superseded by fees-2027.md.", None), ("Superseded by nothing in particular.", None),
    ):  # fmt: skip
        old = load_document(assistant=assistant, path="old.md", data=f"# Old\n\n{said}\n\nThe fee is £30.".encode())
        assert old.superseded
        assert old.superseded_by == by, said
    assert other.supersedes.count() == 0


def test_a_document_is_replaced_by_another_by_hand(assistant: Assistant, ada: User) -> None:
    old, new = load(assistant, ONE, path="old.md"), load(assistant, TWO, path="new.md")
    client = Client()
    client.force_login(ada)
    url = reverse("admin:knowledge_document_supersede", args=[old.pk])
    page = client.post(url, {"by": "nowhere.md"}, follow=True).content.decode()
    assert "no other document with this path" in page
    client.post(url, {"by": "new.md"})
    old.refresh_from_db()
    assert (old.superseded, old.superseded_by, old.superseded_at is not None) == (True, new, True)
    page = client.get(reverse("admin:knowledge_document_change", args=[new.pk])).content.decode()
    assert "Counts instead of" in page
    assert mark_superseded(documents=[old], superseded=True, by=new) == 0
    client.post(url, {"in_force": "1"})
    old.refresh_from_db()
    assert (old.superseded, old.superseded_by) == (False, None)


def test_pages_show_the_versions_and_what_changed(assistant: Assistant, ada: User) -> None:
    make_assistant("other", members={"admin": [make_user("sam")]})
    load(assistant, ONE, TWO, brought=Brought(by=ada, via="page"))
    document = load(assistant, ONE, "Late. It costs <i>£9</i>.")
    client = Client()
    client.force_login(ada)
    page = client.get(reverse("admin:knowledge_document_change", args=[document.pk])).content.decode()
    assert "2 versions" in page
    url = reverse("admin:knowledge_document_version", args=[document.pk, 1])
    assert url in page
    changed = client.get(url).content.decode()
    assert f"− </span>{TWO}</del>" in changed
    assert "+ </span>Late. It costs &lt;i&gt;£9&lt;/i&gt;.</ins>" in changed
    newest = client.get(reverse("admin:knowledge_document_version", args=[document.pk, 2])).content.decode()
    assert "This is the version that counts" in newest
    assert client.get(reverse("admin:knowledge_document_version", args=[document.pk, 7])).status_code == 404
    client.force_login(User.objects.get(username="sam"))
    assert client.get(url).status_code == 404
