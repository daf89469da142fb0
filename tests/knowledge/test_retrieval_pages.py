"""The pages of retrieval: who sees and changes what, what they show, how many queries they cost."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from assistants.models import Assistant
from knowledge.configuration import RetrievalSettings, config_digest
from knowledge.configuring import save_configuration
from knowledge.models import RetrievalCheck, RetrievalConfiguration
from knowledge.retrieval_form import ConfigurationForm, initial_of
from knowledge.services import load_document
from tests.factories import make_assistant, make_user

LIST = "admin:knowledge_retrievalconfiguration_changelist"
PAGE = "admin:knowledge_retrievalconfiguration_change"
ADD = "admin:knowledge_retrievalconfiguration_add"
LAB = "admin:knowledge_retrieval_lab"


@pytest.fixture
def ada(db: None) -> User:
    return make_user("ada")


@pytest.fixture
def assistant(ada: User) -> Assistant:
    members = {"admin": [ada], "reviewer": [make_user("rob")], "annotator": [make_user("ann")]}
    bot = make_assistant("bot", members=members)
    load_document(assistant=bot, path="fees.md", data=b"# Fees\n\nA fixed plan has an exit fee of 35 pounds.")
    load_document(assistant=bot, path="late.md", data=b"# Late\n\nA late payment costs <b>6</b> pounds.")
    return bot


@pytest.fixture
def version(assistant: Assistant) -> RetrievalConfiguration:
    return save_configuration(assistant=assistant, name="Narrow <i>", settings=RetrievalSettings(k=1))


@pytest.fixture
def stranger(db: None) -> User:
    user = make_user("sam")
    make_assistant("other", members={"admin": [user]})
    return user


def enter(user: User | str) -> Client:
    client = Client()
    client.force_login(User.objects.get(username=user) if isinstance(user, str) else user)
    return client


def shown(response: Any) -> str:
    assert response.status_code == 200, response.status_code
    return str(response.content.decode())


def values(assistant: Assistant, **changes: Any) -> dict[str, Any]:
    return {"assistant": assistant.pk, "name": "Wide", "note": "", **initial_of(RetrievalSettings()), **changes}


def test_an_admin_saves_a_version_and_makes_it_active(assistant: Assistant, ada: User) -> None:
    client = enter(ada)
    assert "Only admins" not in shown(client.get(reverse(ADD)))
    page = shown(client.post(reverse(ADD), values(assistant, k=9, folders="fees\n\nlate"), follow=True))
    assert "Make it active" in page
    made = RetrievalConfiguration.objects.get(name="Wide")
    assert (made.settings["k"], made.settings["folders"]) == (9, ["fees", "late"])
    page = shown(client.post(reverse("admin:knowledge_retrieval_activate", args=[made.pk]), follow=True))
    assert "searches by this version" in page
    assistant.refresh_from_db()
    assert config_digest(assistant) == made.digest
    assert "✓ active" in shown(client.get(reverse(LIST)))
    before = RetrievalConfiguration.objects.get(assistant=assistant, name="Settings as they were")
    shown(client.post(reverse("admin:knowledge_retrieval_activate", args=[before.pk]), follow=True))
    assistant.refresh_from_db()
    assert assistant.retrieval_k == 6


def test_impossible_values_are_said_at_the_form(assistant: Assistant, ada: User, version: Any) -> None:
    client = enter(ada)
    assert "cannot both weigh nothing" in shown(client.post(reverse(ADD), values(assistant, words=0, vectors=0)))
    assert "less than or equal to 20" in shown(client.post(reverse(ADD), values(assistant, k=99)))
    assert "has just these settings" in shown(client.post(reverse(ADD), values(assistant, k=1)))
    assert RetrievalConfiguration.objects.count() == 1
    assert 'value="1"' in shown(client.get(reverse(ADD), {"from": version.pk}))


def test_who_is_refused(assistant: Assistant, version: RetrievalConfiguration, stranger: User) -> None:
    page, make = reverse(PAGE, args=[version.pk]), reverse("admin:knowledge_retrieval_activate", args=[version.pk])
    digest = reverse("admin:knowledge_retrieval_digest", args=["bot", version.digest])
    for client, seen in ((enter("rob"), 200), (enter(stranger), 404), (enter("ann"), 404), (Client(), 302)):
        assert client.get(page).status_code == seen
        assert client.post(make).status_code == (403 if seen == 200 else seen)
        assert client.get(digest).status_code == (302 if seen in (200, 302) else 404)
    assert enter("rob").get(digest)["Location"] == page
    assert enter("rob").get(reverse(ADD)).status_code == 403
    assert enter("ann").get(reverse(LAB)).status_code == 403
    assert enter("ann").get(reverse(LIST)).status_code == 403
    assert "Narrow" not in shown(enter(stranger).get(reverse(LIST)))
    assert enter("rob").post(reverse("admin:knowledge_retrieval_check"), {"assistant": "bot"}).status_code == 404
    refused = enter(stranger).post(reverse(ADD), values(assistant))
    assert "valid choice" in shown(refused)
    assert RetrievalConfiguration.objects.filter(assistant=assistant).count() == 1


def test_the_lab_shows_both_ways_side_by_side(assistant: Assistant, version: RetrievalConfiguration) -> None:
    client = enter("rob")
    assert "One question, two ways" in shown(client.get(reverse(LAB)))
    asked = {"q": "What is the exit <fee>?", "assistant": "bot", "second": version.number}
    page = shown(client.get(reverse(LAB), asked))
    assert page.count("[1]") == 2
    assert "+ only here" in page  # the second passage, which the narrow version does not bring
    assert "&lt;fee&gt;" in page
    assert "&lt;i&gt;" in page
    assert "<b>6</b>" not in page
    assert shown(client.get(reverse(LAB), {**asked, "q": "\x00 ", "assistant": "nobody", "first": "x"}))
    # Looking changes nothing.
    assert RetrievalConfiguration.objects.filter(assistant=assistant).count() == 1


def test_pages_cost_the_same_however_many_versions_there_are(
    assistant: Assistant, ada: User, django_assert_max_num_queries: Any
) -> None:
    client = enter(ada)
    for k in range(1, 15):
        save_configuration(assistant=assistant, name=f"v{k}", settings=RetrievalSettings(k=k))
    shown(client.get(reverse(LIST)))
    with django_assert_max_num_queries(14):
        shown(client.get(reverse(LIST)))
    with django_assert_max_num_queries(30):
        shown(client.get(reverse(LAB), {"q": "fee"}))


@pytest.mark.django_db(transaction=True)
def test_a_self_test_runs_and_says_what_it_found(settings: Any) -> None:
    settings.RATCHET_FOREGROUND = True
    ada = make_user("ada")
    bot = make_assistant("bot", members={"admin": [ada]})
    load_document(assistant=bot, path="fees.md", data=b"# Fees\n\nA fixed plan has an exit fee of 35 pounds.")
    page = shown(enter(ada).post(reverse("admin:knowledge_retrieval_check"), {"assistant": "bot"}, follow=True))
    assert "searched exactly" in page
    assert RetrievalCheck.objects.get().result["recall"] == 1.0


def test_settings_of_another_release_are_shown_and_not_made_active(assistant: Assistant, ada: User) -> None:
    old = RetrievalConfiguration.objects.create(
        assistant=assistant, number=1, name="Old", settings={"k": 4, "colour": "blue"}, around={}, digest="0" * 16
    )
    client = enter(ada)
    assert "Old" in shown(client.get(reverse(PAGE, args=[old.pk])))
    assert shown(client.get(reverse(ADD), {"from": old.pk}))
    page = shown(client.post(reverse("admin:knowledge_retrieval_activate", args=[old.pk]), follow=True))
    assert "cannot be made active" in page
    Assistant.objects.filter(pk=assistant.pk).update(retrieval={"colour": "blue"})
    assert shown(client.get(reverse(PAGE, args=[old.pk])))
    assert shown(client.get(reverse(LIST)))
    assert "No search now" in shown(client.get(reverse(LAB), {"q": "fee"}))
    made = save_configuration(assistant=assistant, name="Mended", settings=RetrievalSettings(k=3))
    page = shown(client.post(reverse("admin:knowledge_retrieval_activate", args=[made.pk]), follow=True))
    assert "searches by this version" in page


def test_every_setting_has_a_field(ada: User) -> None:
    assert set(RetrievalSettings.model_fields) < set(ConfigurationForm(user=ada).fields)
