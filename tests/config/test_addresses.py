"""Every address of the pages, found by looking at the routes: who is refused, and that no text becomes markup.

A new page is walked without being named here, unless its address needs a value that cannot be guessed (`ARGUMENTS`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from django.contrib.auth.models import User
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import NoReverseMatch, URLPattern, get_resolver, reverse

from assistants.models import Role
from tests.everything import HOSTILE, MARK, everything
from tests.factories import add_member, make_assistant, make_user

Rows = dict[str, Any]
ARGUMENTS: dict[str, Callable[[Rows], list[Any]]] = {
    "of_person": lambda rows: [rows["auth.User"].pk],
    "gold": lambda rows: [rows["annotations.Queue"].pk, rows["annotations.QueueItem"].pk],
    "adjudicate": lambda rows: [rows["annotations.Queue"].pk, rows["annotations.QueueItem"].pk],
    "experiment-act": lambda rows: [rows["serving.Experiment"].pk, "stop"],
    "drift-act": lambda rows: [rows["serving.DriftReport"].pk, "queue"],
    "overview-of": lambda rows: ["live"],
    "overview": lambda rows: ["live", rows["assistants.Assistant"].slug],
    "assistants_privacypolicy_edit": lambda rows: [rows["assistants.Assistant"].pk],
    "capture_rescrub_start": lambda rows: [rows["assistants.Assistant"].pk],
    "training_retrainingrule_of": lambda rows: [rows["assistants.Assistant"].pk],
    "training_retrainingrule_check": lambda rows: [rows["assistants.Assistant"].pk],
    "training_retrainingrule_decide": lambda rows: [rows["training.RetrainingProposal"].pk, "dismiss"],
    "training_datasetversion_turn": lambda rows: [rows["capture.Turn"].pk],
    "training_datasetversion_row": lambda rows: [rows["training.DatasetVersion"].pk, rows["training.Example"].position],
    "knowledge_document_version": lambda rows: [rows["knowledge.Document"].pk, 1],
    "knowledge_retrieval_activate": lambda rows: [rows["knowledge.RetrievalConfiguration"].pk],
    "knowledge_retrieval_digest": lambda rows: [rows["assistants.Assistant"].slug, MARK],
    "knowledge_upload_file": lambda rows: [rows["knowledge.Upload"].pk, rows["knowledge.UploadedFile"].pk],
    "annotations_comparisonround_export": lambda rows: [rows["annotations.ComparisonRound"].pk, "pairs"],
    "view_on_site": lambda rows: [1, rows["assistants.Assistant"].pk],
    "app_list": lambda rows: ["capture"],
}
OPEN = {"app_list", "overview-of"}
"""With an argument that names nobody's row."""
ANNOTATORS = {
    "annotations_comparisonround_changelist", "annotations_queue_change", "annotations_queue_changelist",
    "annotations_queue_history", "app_list", "assistants_assistant_change", "assistants_assistant_changelist",
    "assistants_assistant_history", "capture_turn_change", "capture_turn_changelist", "capture_turn_history", "index",
    "jsi18n", "label", "mine", "password_change", "password_change_done", "search", "training_synthesis_check",
    "training_synthesis_checks",
}  # fmt: skip
"""All that an annotator may look at. Whoever adds a page for them writes it here."""
DASHBOARDS = {"experiment": "serving.Experiment", "drift": "serving.DriftReport"}
OF = {"queue_id": "annotations.Queue", "round_id": "annotations.ComparisonRound", "slug": "assistants.Assistant"}
SPACES = ("admin", "annotations", "dashboards")
WRITES = re.compile(r"^\s*(?:INSERT INTO|UPDATE|DELETE FROM) \"(\w+)\"")
NOTED = {"django_session", "assistants_auditevent"}
"""What a look may write: the session, and that somebody looked."""
QUERIES = (
    "assistant",
    "q",
    "page",
    "state",
    "from",
    "before",
    "after",
    "show",
    "run",
    "split",
    "days",
    "adapter",
    "dataset",
)
ODD = (0, 2**31, 10**18, 10**40)


class Address(NamedTuple):
    name: str
    space: str
    parameters: tuple[str, ...]
    view: Any

    def arguments(self, rows: Rows) -> list[Any]:
        if self.name in ARGUMENTS:
            return ARGUMENTS[self.name](rows)
        return [self._argument(parameter, rows) for parameter in self.parameters]

    def _argument(self, parameter: str, rows: Rows) -> Any:
        if parameter in ("pk", "object_id", "id"):
            return rows[self._model(rows)].pk
        row = rows[OF[parameter]]
        return row.slug if parameter == "slug" else row.pk

    def _model(self, rows: Rows) -> str:
        if self.space == "dashboards":
            return DASHBOARDS.get(self.name.partition("-")[0], "training.Evaluation")
        app, model, *_ = self.name.split("_")
        return next(label for label in rows if label.lower() == f"{app}.{model}")

    def of(self, rows: Rows) -> str:
        return reverse(f"{self.space}:{self.name}", args=self.arguments(rows))


def _walk(resolver: Any, space: str = "") -> Iterator[Address]:
    for entry in resolver.url_patterns:
        if not isinstance(entry, URLPattern):
            yield from _walk(entry, entry.namespace or space)
        elif entry.name and space in SPACES:
            yield Address(entry.name, space, tuple(entry.pattern.regex.groupindex), entry.callback)


ADDRESSES = [
    address
    for address in _walk(get_resolver())
    # The queue's own rows belong to no assistant, and only superusers look at them: its lists are walked.
    if not (address.name.startswith("django_q") and address.parameters) and address.name != "logout"
]
OWNED = [address for address in ADDRESSES if address.parameters and address.name not in OPEN]


@pytest.fixture
def rows(db: None) -> Rows:
    """Owner and annotator of the one assistant, and somebody who may do everything on another."""
    owner, carol = make_user("owner", first_name=HOSTILE), make_user("carol")
    bot = make_assistant("bot", name=HOSTILE, members={role: [owner] for role in Role.values})
    add_member(bot, make_user("ann"))
    make_assistant("other", members={role: [carol] for role in Role.values})
    return everything(bot, owner)


def enter(name: str, **how: Any) -> Client:
    client = Client(raise_request_exception=False, **how)
    client.force_login(User.objects.get(username=name))
    return client


def ask(client: Client, method: str, path: str) -> tuple[Any, str, set[str]]:
    """The answer, its text, and the tables that were written; what was written is taken back."""
    with transaction.atomic(), CaptureQueriesContext(connection) as captured:
        answer: Any = getattr(client, method)(path)
        # What is streamed to the event loop is a file of rows, and no page.
        text = "" if getattr(answer, "is_async", False) else answer.getvalue().decode("utf-8", "replace")
        transaction.set_rollback(True)
    written = {found[1] for query in captured.captured_queries if (found := WRITES.match(query["sql"]))}
    return answer, text, written - NOTED


def is_refusal(answer: Any) -> bool:
    if answer.status_code == 302:  # Django's pages lead back, with "perhaps it was deleted"
        return bool(answer.headers["Location"] == reverse("admin:index"))
    return answer.status_code in (403, 404, 405)


def test_the_walk_finds_the_pages() -> None:
    assert len(OWNED) > 250
    assert {address.space for address in OWNED} == set(SPACES)


@pytest.mark.parametrize("method", ["get", "post"])
def test_who_may_do_everything_on_another_assistant_reaches_nothing_of_this_one(rows: Rows, method: str) -> None:
    carol = enter("carol")
    wrong = []
    for address in OWNED if method == "post" else ADDRESSES:
        answer, text, written = ask(carol, method, path := address.of(rows))
        refused = is_refusal(answer) or address not in OWNED
        if not refused or MARK in text or written:
            wrong.append((path, answer.status_code, MARK in text, written))
    assert wrong == []


@pytest.mark.parametrize("method", ["get", "post"])
def test_who_is_not_signed_in_is_sent_to_the_login(rows: Rows, method: str) -> None:
    nobody, login = Client(), reverse("admin:login")
    wrong = []
    for address in ADDRESSES:
        answer, text, written = ask(nobody, method, path := address.of(rows))
        led = answer.status_code == 302 and answer.headers["Location"].startswith(login)
        if not (led or answer.status_code == 405 or address.name == "login") or MARK in text or written:
            wrong.append((path, answer.status_code, written))
    assert wrong == []


def test_an_annotator_sees_the_pages_for_annotators_and_no_other(rows: Rows) -> None:
    ann = enter("ann")
    seen = {address.name for address in ADDRESSES if ask(ann, "get", address.of(rows))[0].status_code == 200}
    assert seen == ANNOTATORS


def test_no_text_becomes_markup(rows: Rows) -> None:
    """As whoever may see everything: each page is there, and shows what runs as text."""
    owner, wrong, shown = enter("owner"), [], 0
    for address in ADDRESSES:
        answer, text, _ = ask(owner, "get", path := address.of(rows))
        page = answer.headers.get("Content-Type", "").startswith("text/html")
        if answer.status_code >= 500 or (page and HOSTILE[: -len(MARK)] in text):
            wrong.append((path, answer.status_code))
        shown += page and MARK in text
    assert wrong == []
    assert shown > 150


def test_no_page_is_posted_to_from_elsewhere(rows: Rows) -> None:
    owner = enter("owner", enforce_csrf_checks=True)
    assert [address.name for address in ADDRESSES if getattr(address.view, "csrf_exempt", False)] == []
    for address in [address for address in OWNED if not address.name.endswith(("_history", "_delete", "_change"))]:
        assert owner.post(address.of(rows)).status_code == 403, address.name


def test_numbers_that_no_row_can_have_are_no_error(rows: Rows) -> None:
    owner, wrong = enter("owner"), []
    for address in OWNED:
        arguments = address.arguments(rows)
        for odd in ODD:
            try:
                changed = [odd if isinstance(value, int) else value for value in arguments]
                path = reverse(f"{address.space}:{address.name}", args=changed)
            except NoReverseMatch:
                continue
            if arguments != changed and not is_refusal(answer := owner.get(path)):
                wrong.append((path, answer.status_code))
    assert wrong == []


def test_a_text_that_cannot_be_stored_is_nobodys_error(rows: Rows) -> None:
    """In every parameter that some page reads, on every page without an argument."""
    owner, wrong = enter("owner"), []
    query = dict.fromkeys(QUERIES, "\x00")
    for address in ADDRESSES:
        if not address.parameters:
            answer = owner.get(path := address.of(rows), query)
            if answer.status_code >= 500:
                wrong.append((path, answer.status_code))
    assert wrong == []
    assert owner.get(reverse("dashboards:playground"), {"assistant": "\x00"}).status_code == 400
