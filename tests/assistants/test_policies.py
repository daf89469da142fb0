"""Privacy policies: versions, who may read and change them, what is refused, and trying a text."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connection
from django.test import Client
from django.urls import reverse

from assistants.models import Assistant, AuditEvent, PrivacyPolicy
from assistants.policies import (
    MAX_VALUES,
    PolicyConflict,
    Rules,
    add_value,
    change_policy,
    differences,
    policy_of,
    restore_policy,
    rules_of,
)
from privacy.findings import ALL_TYPES
from privacy.policy import Policy
from tests.factories import make_assistant, make_user

pytestmark = pytest.mark.django_db
HOSTILE = "<script>alert(1)</script> Wendeline"


@pytest.fixture
def bot() -> Assistant:
    return make_assistant("bot")


def save(bot: Assistant, reason: str = "Because.", **changes: Any) -> PrivacyPolicy:
    rules = rules_of(bot)
    policy = replace(rules.policy, **changes)
    return change_policy(assistant=bot, rules=replace(rules, policy=policy), actor=None, reason=reason)


def test_a_change_makes_the_next_version_and_the_newest_counts(bot: Assistant) -> None:
    assert policy_of(bot) == Policy()
    first = save(bot, deny=("Wendeline Okafor",))
    second = save(bot, deny=())
    assert [first.number, second.number] == [1, 2]
    assert policy_of(bot) == Policy()
    assert PrivacyPolicy.objects.get(number=1).policy.deny == ("Wendeline Okafor",)
    assert rules_of(make_assistant("other")).number == 0


def test_a_step_back_is_a_new_version_with_the_old_content(bot: Assistant) -> None:
    first = save(bot, thresholds={**Policy().thresholds, "PERSON": 0.8})
    save(bot, thresholds=dict(Policy().thresholds))
    back = restore_policy(version=first, actor=None, reason="Too much was masked.")
    assert (back.number, back.restored_from, back.digest) == (3, 1, first.digest)
    assert policy_of(bot).threshold("PERSON") == 0.8
    with pytest.raises(ValidationError, match="Nothing was changed"):
        restore_policy(version=first, actor=None, reason="Again.")


def test_the_audit_trail_counts_values_and_quotes_none(bot: Assistant) -> None:
    save(bot, deny=("Wendeline Okafor", "Project Heron"), entity_types=ALL_TYPES - {"URL"})
    event = AuditEvent.objects.get(action="privacy.policy_changed")
    assert event.details["changes"]["deny"] == {"added": 2, "removed": 0}
    assert event.details["changes"]["entity_types"] == {"added": [], "removed": ["URL"]}
    assert "Wendeline" not in str(event.details) + event.reason + event.target


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"deny": ("x" * 201,)}, "at most 200"),
        ({"deny": ("of the",)}, "too short or too common"),
        ({"deny": ("ab\u202ecd name",)}, "cannot be printed"),
        ({"deny": tuple(f"person number{n} x" for n in range(MAX_VALUES + 1))}, "at most 5,000"),
        ({"deny": ("Heron",), "allow": ("heron",)}, "both lists"),
    ],
)
def test_bad_lists_are_refused_without_quoting_them(bot: Assistant, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why) as refused:
        save(bot, **changes)
    assert not any(value in str(refused.value) for value in ("of the", "heron", "xxxx"))
    assert not PrivacyPolicy.objects.exists()
    with pytest.raises(ValidationError, match="Say why"):
        save(bot, reason="  ", deny=("Heron",))


def test_two_officers_cannot_overwrite_each_other(bot: Assistant) -> None:
    seen = rules_of(bot)
    save(bot, deny=("Heron",))
    mine = replace(seen, policy=replace(seen.policy, deny=("Plover",)))
    with pytest.raises(PolicyConflict, match="Version 1"):
        change_policy(assistant=bot, rules=mine, actor=None, reason="x")
    assert policy_of(bot).deny == ("Heron",)


@pytest.mark.django_db(transaction=True)
def test_values_added_at_the_same_time_are_all_kept(bot: Assistant) -> None:
    def add(name: str) -> None:
        try:
            add_value(assistant=bot, name="deny", value=name, actor=None, reason="seen")
        finally:
            connection.close()

    names = ["Wendeline", "Heronby", "Ploverton", "Curlewson"]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(add, names))
    assert sorted(policy_of(bot).deny) == sorted(names)
    assert sorted(PrivacyPolicy.objects.values_list("number", flat=True)) == [1, 2, 3, 4]


def test_a_value_moves_from_one_list_to_the_other(bot: Assistant) -> None:
    save(bot, deny=("Heronby",))
    add_value(assistant=bot, name="allow", value=" heronby ", actor=None, reason="a product")
    assert (policy_of(bot).allow, policy_of(bot).deny) == (("heronby",), ())
    assert add_value(assistant=bot, name="allow", value="Heronby", actor=None, reason="again") is None


def test_differences_name_every_setting(bot: Assistant) -> None:
    old = Rules()
    new = Rules(
        1,
        replace(old.policy, regions=("GB",), trust_contexts=False, review_band={"PERSON": 0.3}),
        7,
        "surrogates",
        "nothing",
    )
    names = {d.name: (d.before, d.after) for d in differences(old, new)}
    assert names["review_band PERSON"] == (0.1, 0.3)
    assert names["review_days"] == (30, 7)
    assert {"regions", "trust_contexts", "rendering", "documents", "review_band LOCATION"} <= names.keys()


# --- Pages -----------------------------------------------------------------------------------------


@pytest.fixture
def cast(bot: Assistant) -> dict[str, User]:
    other = make_assistant("other")
    people = {name: make_user(name) for name in ("ann", "rita", "dana", "alice", "stranger")}
    from tests.factories import add_member

    for name, role in {"ann": "annotator", "rita": "reviewer", "dana": "privacy", "alice": "admin"}.items():
        add_member(bot, people[name], role)
    add_member(other, people["stranger"], "privacy")
    return people


def edit_url(bot: Assistant) -> str:
    return reverse("admin:assistants_privacypolicy_edit", args=[bot.pk])


def fields(client: Client, bot: Assistant) -> dict[str, Any]:
    form = client.get(edit_url(bot)).context["form"]
    values = {name: form.get_initial_for_field(field, name) for name, field in form.fields.items()}
    return {name: value for name, value in values.items() if value is not False and value is not None}


def test_who_may_read_and_change(client: Client, bot: Assistant, cast: dict[str, User]) -> None:
    row = save(bot, deny=("Wendeline Okafor",))
    page = reverse("admin:assistants_privacypolicy_change", args=[row.pk])
    history = reverse("admin:assistants_privacypolicy_changelist")
    for name, status in {"ann": 403, "rita": 403}.items():
        client.force_login(cast[name])
        assert client.get(history).status_code == status, name
        assert client.get(page).status_code == status, name
        assert client.get(edit_url(bot)).status_code == 404, name
        assert client.post(edit_url(bot), {}).status_code == 404, name
        restore = reverse("admin:assistants_privacypolicy_restore", args=[row.pk])
        assert client.post(restore, {"reason": "x"}).status_code == status
        assert "Privacy policies" not in client.get("/admin/").content.decode()
        shown = client.get(reverse("admin:assistants_assistant_change", args=[bot.pk])).content.decode()
        assert "Wendeline" not in shown
    client.force_login(cast["stranger"])
    assert client.get(page).status_code == 404
    assert client.get(edit_url(bot)).status_code == 404
    assert "Because." not in client.get(history).content.decode()
    assert f"/of/{bot.pk}/" not in client.get(history).content.decode()
    for name in ("dana", "alice"):
        client.force_login(cast[name])
        response = client.get(page)
        assert "Wendeline Okafor" in response.content.decode()
        assert "no-store" in response["Cache-Control"]
        assert client.get(edit_url(bot)).status_code == 200
    assert client.get(reverse("admin:assistants_privacypolicy_delete", args=[row.pk])).status_code == 403


def test_the_edit_page_makes_a_version(client: Client, bot: Assistant, cast: dict[str, User]) -> None:
    client.force_login(cast["dana"])
    posted = fields(client, bot)
    posted |= {"deny": f"{HOSTILE}\n\nHeronby", "threshold_PERSON": "0.7", "reason": "Staff list of <b>May</b>"}
    posted["documents"] = "everything"
    posted.pop("mask_URL")
    response = client.post(edit_url(bot), posted, follow=True)
    text = response.content.decode()
    policy = policy_of(bot)
    assert policy.deny == (HOSTILE, "Heronby")
    assert policy.threshold("PERSON") == 0.7
    assert "URL" not in policy.entity_types
    assert policy.regions == Policy().regions
    assert rules_of(bot).documents == "everything"
    assert "Mask everything that turns lose" in text
    assert PrivacyPolicy.objects.get().author == "dana"
    assert "<script>alert(1)" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "0.5 → <strong>0.7</strong>" in text
    again = client.post(edit_url(bot), posted).content.decode()  # it was made on version 0
    assert "Version 1 was saved meanwhile" in again
    for name, value, why in [
        ("regions", "GB XX", "no country codes"), ("threshold_PERSON", "1.5", "less than or equal to 1"),
        ("review_days", "0", "greater than or equal to 1"), ("documents", "some", "Select a valid choice"),
        ("reason", "", "required"),
    ]:  # fmt: skip
        assert why in client.post(edit_url(bot), {**posted, "number": 1, name: value}).content.decode(), name
    assert PrivacyPolicy.objects.count() == 1


def test_a_text_is_tried_under_the_edited_policy_and_nothing_is_stored(
    client: Client, bot: Assistant, cast: dict[str, User]
) -> None:
    client.force_login(cast["dana"])
    posted = {**fields(client, bot), "try": "1", "deny": "Heronby"}
    sample = "I am with Heronby, write to w.okafor@heathmere.co.uk. <i>Thanks</i>"
    text = client.post(edit_url(bot), {**posted, "sample": sample}).content.decode()
    assert "[PERSON_1]" in text
    assert "[EMAIL_1]" in text
    assert "conversation (literal), score 1.00" in text
    assert "<i>Thanks" not in text
    assert not PrivacyPolicy.objects.exists()
    assert "required" in client.post(edit_url(bot), {**posted, "sample": ""}).content.decode()


def test_the_history_costs_a_constant_number_of_queries(
    client: Client, bot: Assistant, cast: dict[str, User], django_assert_max_num_queries: Any
) -> None:
    for n in range(6):
        save(bot, deny=(f"Heronby{n}",))
    client.force_login(cast["dana"])
    with django_assert_max_num_queries(12):
        client.get(reverse("admin:assistants_privacypolicy_changelist"))
