"""Keys, roles, limits and the audit trail."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, ValidationError
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from assistants.access import assistants_of, require_role, roles_of
from assistants.auth import authenticate_key, require_scope
from assistants.errors import ApiError
from assistants.limits import parse_rate
from assistants.models import ApiKey, Assistant, AuditEvent, Membership
from assistants.services import audit, create_assistant, grant_role, issue_key, revoke_key, withdraw_role
from tests.factories import add_member, make_assistant

pytestmark = pytest.mark.django_db


def person(name: str, **fields: Any) -> User:
    return User.objects.create(username=name, is_staff=True, **fields)


# --- Keys ----------------------------------------------------------------------------------------


def test_a_secret_is_shown_once_and_stored_as_a_hash() -> None:
    key, secret = issue_key(assistant=make_assistant(), name="web", scopes=["log", "log"])
    stored = ApiKey.objects.values().get(pk=key.pk)
    assert secret.startswith(key.prefix)
    assert secret not in str(stored)
    assert stored["scopes"] == ["log"]
    assert authenticate_key(f"Bearer {secret}") == key
    assert authenticate_key(f"bearer   {secret} ") == key


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer rk_wrong", "Basic abc", "Bearer \ud800", "Bearer a b"])
def test_other_headers_are_refused(header: str | None) -> None:
    with pytest.raises(ApiError) as refused:
        authenticate_key(header)
    assert refused.value.status_code == 401
    assert "WWW-Authenticate" in refused.value.headers


def test_use_is_noted_at_most_once_a_minute(django_assert_num_queries: Any) -> None:
    key, secret = issue_key(assistant=make_assistant(), name="web", scopes=["log"])
    with django_assert_num_queries(2):
        authenticate_key(f"Bearer {secret}")
    first = ApiKey.objects.get(pk=key.pk).last_used_at
    with django_assert_num_queries(1):
        authenticate_key(f"Bearer {secret}")
    assert ApiKey.objects.get(pk=key.pk).last_used_at == first
    ApiKey.objects.filter(pk=key.pk).update(last_used_at=timezone.now() - timedelta(minutes=2))
    authenticate_key(f"Bearer {secret}")
    assert timezone.now() - ApiKey.objects.get(pk=key.pk).last_used_at < timedelta(seconds=30)


def test_revoking_ends_a_key_and_is_audited_once() -> None:
    alice = person("alice")
    key, secret = issue_key(assistant=make_assistant(), name="web", scopes=["log"], created_by=alice)
    revoke_key(key=key, actor=alice)
    revoke_key(key=key, actor=alice)
    with pytest.raises(ApiError):
        authenticate_key(f"Bearer {secret}")
    assert [e.action for e in AuditEvent.objects.order_by("pk")] == ["key.issued", "key.revoked"]
    assert not ApiKey.objects.usable().exists()


@pytest.mark.parametrize("change", [{"scopes": []}, {"scopes": ["everything"]}, {"expires_at": timezone.now()}])
def test_nonsense_keys_are_not_issued(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        issue_key(**{"assistant": make_assistant(), "name": "x", "scopes": ["log"], **change})


def test_scopes() -> None:
    key, _ = issue_key(assistant=make_assistant(), name="x", scopes=["log"])
    require_scope(key, "log")
    with pytest.raises(ApiError) as refused:
        require_scope(key, "chat")
    assert refused.value.status_code == 403


def test_the_command_prints_only_the_secret(capsys: Any) -> None:
    make_assistant("shop")
    call_command("create_key", "shop", "--scopes", "log,read", "--days", "3")
    secret = capsys.readouterr().out.strip()
    key = authenticate_key(f"Bearer {secret}")
    assert key.scopes == ["log", "read"]
    with pytest.raises(CommandError, match="shop"):
        call_command("create_key", "nowhere")
    with pytest.raises(CommandError, match="Unknown scopes"):
        call_command("create_key", "shop", "--scopes", "everything")


def test_rates() -> None:
    assert parse_rate("6000/min") == (6000, 100.0)
    assert parse_rate("86400/day") == (86400, 1.0)
    for bad in ("", "fast", "0/s", "5/year"):
        with pytest.raises(ImproperlyConfigured):
            parse_rate(bad)


# --- Roles -----------------------------------------------------------------------------------------------


def test_roles_count_per_assistant() -> None:
    bot, other = make_assistant("bot"), make_assistant("other")
    alice, boss, gone = person("alice"), person("boss", is_superuser=True), person("gone", is_active=False)
    for user in (alice, gone):
        add_member(bot, user, "admin")
    add_member(bot, alice, "annotator")
    assert roles_of(alice, bot) == {"admin", "annotator"}
    assert roles_of(alice, other) == set()
    assert roles_of(boss, other) == {"admin", "annotator", "reviewer", "privacy"}
    assert roles_of(gone, bot) == roles_of(AnonymousUser(), bot) == set()
    require_role(alice, bot, "admin", "reviewer")
    for user, roles in ((alice, ("privacy",)), (gone, ()), (AnonymousUser(), ())):
        with pytest.raises(PermissionDenied):
            require_role(user, bot, *roles)
    assert list(assistants_of(alice)) == [bot]
    assert not assistants_of(alice, "privacy").exists()
    assert assistants_of(boss, "privacy").count() == 2


def test_granting_and_withdrawing_leave_a_trace() -> None:
    bot, alice, bob = make_assistant(), person("alice"), person("bob")
    membership = grant_role(assistant=bot, user=bob, role="reviewer", actor=alice)
    grant_role(assistant=bot, user=bob, role="reviewer", actor=alice)
    withdraw_role(membership=membership, actor=alice)
    events = AuditEvent.objects.order_by("pk")
    assert [(e.action, e.target, e.actor_name) for e in events] == [
        ("role.granted", "bob: reviewer", "alice"), ("role.withdrawn", "bob: reviewer", "alice"),
    ]  # fmt: skip
    with pytest.raises(ValidationError):
        grant_role(assistant=bot, user=bob, role="king")


def test_creating_an_assistant() -> None:
    alice = person("alice")
    bot = create_assistant(slug="shop", name="Shop", created_by=alice, retrieval_k=3)
    assert roles_of(alice, bot) == {"admin"}
    for bad in ({"slug": "shop"}, {"slug": "no spaces"}, {"slug": "x", "retrieval_k": 99}):
        with pytest.raises(ValidationError):
            create_assistant(**{"name": "X", **bad})


def test_an_audit_event_outlives_the_account() -> None:
    alice = person("alice")
    audit(assistant=None, actor=alice, action="test")
    alice.delete()
    event = AuditEvent.objects.get()
    assert (event.actor, event.actor_name) == (None, "alice")


# --- Pages -------------------------------------------------------------------------------------------------


@pytest.fixture
def alice(client: Client) -> User:
    user = person("alice")
    client.force_login(user)
    return user


def test_a_key_is_made_on_a_page_that_shows_it_once(client: Client, alice: User) -> None:
    bot, other = make_assistant("bot"), make_assistant("other")
    add_member(bot, alice, "admin")
    url = reverse("admin:assistants_apikey_add")
    form = client.get(url).content.decode()
    assert "Bot" in form
    assert "Other" not in form
    body = {"assistant": bot.pk, "name": "web", "scopes": ["log", "chat"], "expires_at_0": "", "expires_at_1": "",
            "once": re.findall(r'name="once" value="(\w+)"', form)[0]}  # fmt: skip
    response = client.post(url, body)
    key = ApiKey.objects.get()
    secret = next(part for part in response.content.decode().replace("<", ">").split(">") if part.startswith("rk_"))
    assert authenticate_key(f"Bearer {secret}") == key
    assert "no-store" in response.headers["Cache-Control"]
    assert key.created_by == alice
    assert secret not in client.get(reverse("admin:assistants_apikey_changelist")).content.decode()
    again = client.post(url, body, follow=True)  # the page that shows it was loaded again
    assert "was made before" in again.text
    assert ApiKey.objects.count() == 1
    assert (
        client.post(url, {**body, "once": "", "assistant": other.pk}).status_code == 200
    )  # the form again, with an error
    assert ApiKey.objects.count() == 1
    client.post(reverse("admin:assistants_apikey_changelist"), {"action": "revoke", "_selected_action": [key.pk]})
    assert ApiKey.objects.get().revoked_at is not None
    assert client.post(reverse("admin:assistants_apikey_change", args=[key.pk]), body).status_code == 403


def test_pages_are_for_admins_of_the_assistant(client: Client, alice: User) -> None:
    bot = make_assistant("bot")
    add_member(bot, alice, "annotator")
    issue_key(assistant=bot, name="web", scopes=["log"])
    for page in ("apikey", "auditevent", "membership"):
        assert client.get(reverse(f"admin:assistants_{page}_changelist")).status_code == 403
    assert client.get(reverse("admin:auth_user_changelist")).status_code == 403
    assert client.post(reverse("admin:assistants_assistant_change", args=[bot.pk]), {"name": "x"}).status_code == 403


def test_roles_are_given_on_the_page_of_the_assistant(client: Client, alice: User) -> None:
    bot, bob = make_assistant("bot"), person("bob")
    add_member(bot, alice, "admin")
    url = reverse("admin:assistants_assistant_change", args=[bot.pk])
    page = client.get(url)
    assert page.status_code == 200
    own = Membership.objects.get()
    form = page.context["adminform"].form
    fields = {name: "" if (value := form.initial.get(name)) is None else value for name in form.fields}
    fields |= {"glossary": "{}"}
    assert "refused until the old prompt is back" in page.content.decode()
    rows = {
        "memberships-TOTAL_FORMS": 2, "memberships-INITIAL_FORMS": 1, "memberships-0-id": own.pk,
        "memberships-0-assistant": bot.pk, "memberships-1-user": bob.pk, "memberships-1-role": "reviewer",
        "memberships-1-assistant": bot.pk,
    }  # fmt: skip
    response = client.post(url, {**fields, **rows})
    assert response.status_code == 302, response.context["errors"]
    assert roles_of(bob, bot) == {"reviewer"}
    assert AuditEvent.objects.filter(action="role.granted", target="bob: reviewer", actor=alice).exists()
    assert AuditEvent.objects.filter(action="assistant.changed").exists()
    assert client.get(reverse("admin:assistants_auditevent_changelist")).status_code == 200
    event = AuditEvent.objects.first()
    assert event is not None
    for method in ("change", "delete"):
        url = reverse(f"admin:assistants_auditevent_{method}", args=[event.pk])
        assert client.post(url, {"action": "x"}).status_code == 403


def settings_form(client: Client, bot: Assistant, **changes: Any) -> Any:
    """Posts the page of an assistant with ``changes``; follows to the page that comes then."""
    url = reverse("admin:assistants_assistant_change", args=[bot.pk])
    form = client.get(url).context["adminform"].form
    fields = {name: "" if (value := form.initial.get(name)) is None else value for name in form.fields}
    fields |= {"glossary": json.dumps(bot.glossary)}
    rows = {"memberships-TOTAL_FORMS": 0, "memberships-INITIAL_FORMS": 0}
    return client.post(url, {**fields, **rows, **changes}, follow=True)


def test_a_changed_prompt_is_told_and_audited(client: Client, alice: User) -> None:
    bot = make_assistant("bot")
    add_member(bot, alice, "admin")
    assert "The prompt changed" not in settings_form(client, bot, handoff_sentence="Ask a person.").content.decode()
    told = settings_form(client, bot, decline_sentence="No idea.").content.decode()
    after = Assistant.objects.get().prompt_digest
    assert f"The prompt changed (from {bot.prompt_digest} to {after})" in told
    assert AuditEvent.objects.latest("pk").details["prompt_digest"] == [bot.prompt_digest, after]


def test_a_glossary_is_kept(client: Client, alice: User) -> None:
    bot = make_assistant("bot")
    add_member(bot, alice, "admin")
    settings_form(client, bot, glossary='{"happy hour": "Owl tariff"}')
    assert Assistant.objects.get().glossary == {"happy hour": "Owl tariff"}


@pytest.mark.parametrize(
    ("glossary", "sentence"),
    [
        ("{", "Enter a valid JSON."),
        ("[]", "Write one object"),
        ("null", "Write one object"),
        ('{"a": 1}', "Entry “a”: both sides are texts"),
        ('{"a": ""}', "Entry “a”: both sides are texts"),
        ('{" ": "b"}', "both sides are texts"),
        (json.dumps({"a": "b" * 201}), "1 to 200 characters"),
        ('{"a": "b\\u0000"}', "cannot be stored"),
        (json.dumps({str(n): "x" for n in range(2001)}), "2,001 entries"),
    ],
)
def test_a_glossary_that_is_none_is_refused_in_a_sentence(
    client: Client, alice: User, glossary: str, sentence: str
) -> None:
    bot = make_assistant("bot")
    add_member(bot, alice, "admin")
    response = settings_form(client, bot, glossary=glossary)
    assert sentence in " ".join(response.context["adminform"].form.errors["glossary"])
    assert Assistant.objects.get().glossary == {}


def test_the_menu_shows_what_a_person_may_open(client: Client, alice: User) -> None:
    add_member(make_assistant("bot"), alice, "annotator")
    shown = client.get(reverse("admin:capture_turn_changelist")).content.decode()
    assert reverse("admin:capture_turn_changelist") in shown
    assert reverse("admin:annotations_queue_changelist") in shown
    assert reverse("admin:assistants_apikey_changelist") not in shown
    assert reverse("admin:capture_quarantine_changelist") not in shown


def test_people_are_for_superusers(client: Client) -> None:
    client.force_login(person("boss", is_superuser=True))
    body = {"username": "new", "password1": "tulip-cable-96", "password2": "tulip-cable-96", "usable_password": "true"}
    response = client.post(reverse("admin:auth_user_add"), body)
    assert response.status_code == 302, response.context["errors"]
    assert User.objects.get(username="new").is_staff
    assert client.get(reverse("admin:assistants_assistant_add")).status_code == 200


def test_lists_cost_the_same_however_long(client: Client, alice: User, django_assert_max_num_queries: Any) -> None:
    bot = make_assistant("bot")
    add_member(bot, alice, "admin")
    pages = [f"admin:assistants_{name}_changelist" for name in ("assistant", "apikey", "membership", "auditevent")]
    issue_key(assistant=bot, name="a", scopes=["log"])
    counts = []
    for name in pages:
        client.get(reverse(name))
        with django_assert_max_num_queries(30) as few:
            client.get(reverse(name))
        counts.append(len(few))
    for n in range(10):
        issue_key(assistant=bot, name=f"{n}", scopes=["log"])
        add_member(bot, person(f"p{n}"), "annotator")
    for name, count in zip(pages, counts, strict=True):
        with django_assert_max_num_queries(count):
            client.get(reverse(name))
    assert Assistant.objects.count() == 1


@pytest.mark.parametrize("page", ["assistants_apikey", "training_evaluation", "capture_turn"])
def test_filters_name_ones_own_assistants_only(client: Client, page: str) -> None:
    sam = person("sam")
    for name in ("Fern", "Gorse"):
        add_member(make_assistant(name.lower(), name=name), sam, "admin")
    make_assistant("heather", name="Heather")
    client.force_login(sam)
    shown = client.get(reverse(f"admin:{page}_changelist")).content.decode()
    assert "Fern" in shown
    assert "Heather" not in shown
    client.force_login(person("root", is_superuser=True))
    assert "Heather" in client.get(reverse(f"admin:{page}_changelist")).content.decode()
