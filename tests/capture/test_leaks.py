"""The leak audit: what it finds, what it lets pass, and what it stops."""

from __future__ import annotations

from typing import Any

import pytest

from annotations.models import Annotation, Resolution
from assistants.background import launch
from assistants.policies import Rules, change_policy
from capture import leaks
from capture.export_guard import ExportBlocked
from capture.leak_reports import LeakReport
from capture.leaks import Audit, OverrideRefused, Row, canaries_of, guard_export, leaves, override
from capture.models import Passage, Turn
from capture.reading import readable, turn_json
from capture.services import receive_turns, scrub_waiting
from capture.vault import entities_key
from privacy.canaries import Matcher, people
from privacy.entities import EntityTable, Value
from privacy.leaks import AuditText, LeakScanner, strict_policy
from privacy.policy import Policy
from tests.capture.conftest import Call, Cast, streamed_bytes, turn_item
from tests.factories import CONTEXTS, make_conversation, make_document, make_turn, make_user
from tests.training.data.test_build import OFFERED
from training.models import DatasetVersion
from training.services import NotPossible, start_run

DOCUMENT = "Ask Margaret Thistleworth on 0300 440 220 or margaret@tarnwick.example about the kettle."


def scanner(policy: Policy | None = None, **fields: Any) -> LeakScanner:
    given = {"canaries": Matcher.of(people(b"seed", 1)), "key": lambda value: f"key of {value}", **fields}
    return LeakScanner(policy or Policy(), **given)


def found(reader: LeakScanner, *texts: AuditText, table: EntityTable | None = None) -> set[tuple[str, str, str]]:
    return {(leak.field, leak.entity_type, leak.by) for leak in reader.read(texts, table) if leak.blocks}


def said(text: str) -> AuditText:
    return AuditText("question", text)


def printed(text: str) -> AuditText:
    return AuditText("contexts.1.text", text, trusted=True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Write to zoe.clark@example.org", "EMAIL"),
        ("My card is 4556 7375 8689 9855", "CREDIT_CARD"),
        ("iban GB33BUKB20201555555555", "IBAN"),
        ("call me on +44 7700 900417", "PHONE"),
        ("My name is Zebulon Clark.", "PERSON"),
        ("from 192.168.17.4 today", "IP_ADDRESS"),
    ],
)
def test_hard_types_block(text: str, kind: str) -> None:
    assert ("question", kind, "scan") in found(scanner(), said(text))


def test_masked_and_harmless_texts_pass() -> None:
    reader = scanner()
    for text in ("I am [PERSON_1], mail [EMAIL_2].", "The exit fee is £35 on 1 April 2026.", "", "Leeds is a city."):
        assert reader.read([said(text)]) == [] or not any(leak.blocks for leak in reader.read([said(text)])), text


def test_what_the_own_documents_print_may_be_repeated_and_nothing_else_of_it() -> None:
    reader = scanner()
    answer = "Margaret Thistleworth answers on 0300 440 220."
    assert found(reader, printed(DOCUMENT), said(answer)) == set()
    assert found(reader, said(answer)) == {("question", "PERSON", "scan"), ("question", "PHONE", "scan")}
    # Not trusted: the same passage from elsewhere is somebody's data.
    types = {kind for _, kind, _ in found(reader, AuditText("contexts.1.text", DOCUMENT))}
    assert types == {"PERSON", "PHONE", "EMAIL"}
    # A card stands in no document.
    assert found(reader, printed("Card 4556 7375 8689 9855")) == {("contexts.1.text", "CREDIT_CARD", "scan")}


def test_no_allow_list_helps_and_the_deny_list_is_searched() -> None:
    policy = Policy(allow=("0300 440 220",), deny=("Operation Kingfisher",))
    assert found(scanner(policy), said("Call 0300 440 220.")) == {("question", "PHONE", "scan")}
    assert found(scanner(policy), said("It was operation kingfisher!")) == {("question", "PERSON", "deny list")}
    assert strict_policy(policy).digest() != policy.digest()


def test_canaries_are_found_however_they_are_spaced() -> None:
    (person,) = people(b"seed", 1)
    reader = scanner()
    for value, kind in ((person.name.upper(), "NAME"), (person.card.replace(" ", "-"), "CARD"), (person.mail, "MAIL")):
        assert ("question", kind, "canary") in found(reader, said(f"so {value} said")), value
    assert found(scanner(canaries=Matcher([])), said(person.name.lower().replace(" ", "_"))) == set()


def test_a_value_that_another_turn_of_the_conversation_gave_away() -> None:
    table = EntityTable(b"k" * 16)
    table.assign([Value("PERSON", "Xanthe Quillfeather", private=True)])
    text = said("And xanthe quillfeather, what of her?")
    assert found(scanner(), text, table=table) == {("question", "PERSON", "conversation")}
    assert found(scanner(), text) == set()


def test_a_public_contact_that_a_user_named_elsewhere_stays_public() -> None:
    table = EntityTable(b"k" * 16)
    table.assign([Value("PHONE", "0300 440 220")])
    passage = "Call the desk on 0300 440 220."
    assert found(scanner(), printed(passage), table=table) == set()
    assert found(scanner(), said(passage), table=table) == {("question", "PHONE", "scan")}
    table.assign([Value("PHONE", "0300 440 229", private=True)])
    private = {("contexts.1.text", "PHONE", "conversation")}
    assert found(scanner(), printed("Call 0300 440 229."), table=table) == private


def test_the_name_model_is_heard_where_lists_of_names_would_block() -> None:
    assert found(scanner(), said("My neighbour rosalind hargreaves owes me.")) == {("question", "PERSON", "scan")}
    assert found(scanner(), said("What does Lantern Gas charge for the same thing?")) == set()


def test_accepted_values_pass_but_no_canary() -> None:
    reader = scanner()
    (leak,) = [leak for leak in reader.read([said("Write to zoe.clark@example.org")]) if leak.blocks]
    accepted = scanner(accepted=frozenset({leak.key}))
    assert found(accepted, said("Or ZOE.CLARK@example.org")) == set()
    assert found(accepted, said("Write to other@example.org")) != set()
    (person,) = people(b"seed", 1)
    keys = frozenset(leak.key for leak in reader.read([said(person.name)]))
    assert ("question", "NAME", "canary") in found(scanner(accepted=keys), said(person.name))


def test_each_distinct_text_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    reader = scanner()
    for _ in range(5):
        reader.read([said("Where is the meter?"), printed(DOCUMENT)])
    assert reader.texts == 2


# --- With rows --------------------------------------------------------------------------------------------------------


def leaky(cast: Cast, *, response: str = "A fixed plan has an exit fee of £35. [1]", **fields: Any) -> Turn:
    """A resolved turn that was never scrubbed."""
    turn = make_turn(cast.bot, response=response, contexts=OFFERED, **fields)
    Resolution.objects.create(turn=turn, verdict="good", response=response, relevant_ranks=[1], how="single")
    Passage.objects.update(trusted=True)
    return turn


def build(cast: Cast) -> DatasetVersion:
    dataset = DatasetVersion.objects.create(
        assistant=cast.bot, number=DatasetVersion.objects.count() + 1, prompt_digest=cast.bot.prompt_digest
    )
    launch(dataset, foreground=True)
    dataset.refresh_from_db()
    assert dataset.state == "succeeded", dataset.error
    return dataset


def test_a_dataset_with_a_leak_is_blocked_until_an_officer_lets_it_pass(cast: Cast) -> None:
    turn = leaky(cast, question="My name is Zebulon Clark. What does leaving early cost?")
    dataset = build(cast)
    report = dataset.leak_report
    assert report is not None
    assert report.blocks
    assert report.content_hash == dataset.content_hash
    assert (report.rows, report.counts) == (1, {"PERSON": 1})
    (finding,) = report.findings
    assert (finding["row"], finding["field"], finding["type"]) == ("0", "question", "PERSON")
    assert finding["turn"] == str(turn.pk)
    assert "Zebulon" not in str(vars(report))
    with pytest.raises(NotPossible, match="leak audit has found personal data"):
        start_run(assistant=cast.bot, dataset=dataset)
    with pytest.raises(OverrideRefused, match="Say why"):
        override(report=report, actor=cast.dana, reason="")
    override(report=report, actor=cast.dana, reason="An invented person")
    with pytest.raises(OverrideRefused, match="blocks nothing"):
        override(report=report, actor=cast.dana, reason="Again")
    dataset.refresh_from_db()
    assert dataset.why_unusable == ""
    again = build(cast)  # the same value blocks no more
    assert again.leak_report is not None
    assert not again.leak_report.blocks


def test_a_clean_dataset_says_under_which_policy(cast: Cast) -> None:
    leaky(cast)
    dataset = build(cast)
    report = dataset.leak_report
    assert report is not None
    assert (report.verdict, report.findings) == ("clean", [])
    before = report.policy_digest
    change_policy(
        assistant=cast.bot, rules=Rules(policy=Policy(deny=("exit fee",))), actor=None, reason="A secret word"
    )
    blocked = build(cast).leak_report
    assert blocked is not None
    assert blocked.blocks
    assert blocked.policy_digest != before
    assert {finding["by"] for finding in blocked.findings} == {"deny list"}


def test_an_allowed_value_passes_where_the_documents_print_it(cast: Cast) -> None:
    change_policy(
        assistant=cast.bot,
        rules=Rules(policy=Policy(allow=("0300 440 220", "0300 440 999"))),
        actor=None,
        reason="ours",
    )
    rows = [Row("0", [said("Call 0300 440 220.")]), Row("1", [said("Call 0300 440 999.")])]
    verdicts = []
    for text in ("Nothing about it.", "Our desk: 0300 440 220, all day."):
        make_document(cast.bot, text=text)
        audit = Audit(cast.bot, "x")
        audit.read(rows)
        verdicts.append([finding["row"] for finding in audit.report().findings])
    assert verdicts == [["0", "1"], ["1"]]


def test_exports_stop_before_a_leak_leaves(cast: Cast, api: Call) -> None:
    leaky(cast, question="My name is Zebulon Clark.")
    answer = api("get", "turns/export", {"format": "jsonl"})
    assert answer.status_code == 409
    assert "PERSON in question" in answer.content.decode()
    assert "Zebulon" not in answer.content.decode()
    assert LeakReport.objects.get().subject == "Export of turns"
    assert api("get", "turns/export", {"format": "jsonl"}).status_code == 409
    override(report=LeakReport.objects.get(), actor=cast.dana, reason="Invented")  # asked twice, reported once
    answer = api("get", "turns/export", {"format": "jsonl"})
    assert answer.status_code == 200
    assert "Zebulon" in streamed_bytes(answer).decode()


def test_exports_of_labels_stop_too(cast: Cast, client: Any) -> None:
    from django.urls import reverse

    turn = leaky(cast)
    label = Annotation.objects.create(turn=turn, annotator=make_user("ann"), verdict="good", note="Ask zoe@example.org")
    client.force_login(cast.alice)
    url = reverse("admin:annotations_annotation_changelist")
    data = {"action": "export_selected", "_selected_action": [str(label.pk)]}
    assert client.post(url, data).status_code == 302
    assert LeakReport.objects.get().findings[0]["field"] == "note"
    Annotation.objects.update(note="Ask [EMAIL_1]")
    answer = client.post(url, data)
    assert answer.status_code == 200
    assert "[EMAIL_1]" in streamed_bytes(answer).decode()


def test_what_is_scrubbed_passes_the_audit(cast: Cast) -> None:
    """End to end: the second look agrees with the first on what came through the door."""
    items = [
        turn_item(id="t-1", question="My name is Zebulon Clark, zoe.clark@example.org, call +44 7700 900417."),
        turn_item(id="t-2", question="It is zebulon clark again, card 4556 7375 8689 9855.", metadata={"user": "Zoe"}),
    ]
    receive_turns(assistant=cast.bot, api_key=None, items=items)
    scrub_waiting()
    records = [turn_json(turn) for turn in readable(Turn.objects.of(cast.bot))]
    assert len(records) == 2
    guard_export(cast.bot, records)
    assert not LeakReport.objects.exists()


def test_rows_of_another_assistant_are_read_by_its_own_rules(cast: Cast) -> None:
    change_policy(assistant=cast.other, rules=Rules(policy=Policy(deny=("Kingfisher",))), actor=None, reason="theirs")
    row = Row("0", [said("Kingfisher")])
    for assistant, verdict in ((cast.bot, "clean"), (cast.other, "blocked")):
        audit = Audit(assistant, "x")
        audit.read([row])
        assert audit.report().verdict == verdict
    assert canaries_of(cast.bot) != canaries_of(cast.other)


def test_the_table_of_the_conversation_is_read(cast: Cast) -> None:
    conversation = make_conversation(cast.bot, "c-9")
    table = EntityTable(entities_key(cast.bot.pk, "c-9"))
    table.assign([Value("PERSON", "Xanthe Quillfeather", private=True)])
    conversation.entities = table.to_dict()
    conversation.save()
    make_turn(cast.bot, conversation=conversation, question="and xanthe quillfeather", contexts=CONTEXTS[:1])
    with pytest.raises(ExportBlocked, match="PERSON in question"):
        guard_export(cast.bot, [turn_json(turn) for turn in readable(Turn.objects.of(cast.bot))])
    assert leaks.LeakReport.objects.get().findings[0]["by"] == "conversation"


def test_metadata_is_read_whatever_its_keys_are_called() -> None:
    """Our own ids are skipped by their names; what a chatbot calls ``client`` may be a person."""
    mine = {"user_key": "0" * 32, "chunk": 7, "client": "zoe@example.org", "deep": [{"id": "zoe@example.com"}]}
    record = {"id": "not read", "client": "not read", "metadata": mine}
    fields = {field for key, value in record.items() for field, _ in leaves(key, key, value)}
    assert fields == {"metadata.client", "metadata.deep.0.id"}
