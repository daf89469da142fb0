"""An assistant from the command line, and what the commands say where there is none."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from assistants.models import Assistant, AuditEvent, Membership
from tests.factories import make_user

pytestmark = pytest.mark.django_db


def run(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out, stderr=out)
    return out.getvalue()


def test_an_assistant_is_made_with_its_admin_and_takes_a_key() -> None:
    ada = make_user("ada")
    assert "create_key help-desk" in run("create_assistant", "help-desk", "--admin", "ada")
    made = Assistant.objects.get()
    assert (made.slug, made.name) == ("help-desk", "Help desk")
    assert Membership.objects.get(assistant=made, user=ada).role == "admin"
    assert AuditEvent.objects.get(action="assistant.created").actor == ada
    assert run("create_key", "help-desk", "--scopes", "log").splitlines()[-1].startswith("rk_")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["help-desk"], "already exists"),
        (["help desk"], "valid “slug”"),
        (["x" * 60], "at most 50"),
        (["new", "--admin", "nobody"], "no active user"),
        (["new", "--name", "x" * 121], "at most 120"),
    ],
)
def test_what_cannot_be_made_is_a_sentence_and_nothing_is(words: list[str], said: str) -> None:
    run("create_assistant", "help-desk")
    with pytest.raises(CommandError, match=said):
        run("create_assistant", *words)
    assert Assistant.objects.count() == 1


def test_a_key_for_nobody_says_what_to_do() -> None:
    with pytest.raises(CommandError, match=r"manage\.py create_assistant helpdesk"):
        run("create_key", "helpdesk")
