"""From quarantine to rows: what is stored, what is masked, and what happens when something goes wrong."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import pytest
from django.apps import apps
from django.core.management import call_command
from django.db import connection, connections
from django.utils import timezone
from django_q.models import OrmQ

from assistants.models import AuditEvent
from capture import claims, scrub, storing
from capture.claims import LeaseLost, claim
from capture.erasing import user_key
from capture.models import Conversation, Feedback, Passage, Quarantine, Receipt, Retrieval, Turn
from capture.receiving import receive_updates
from capture.services import delete_held, receive_feedback, receive_turns, retry_held, scrub_item, scrub_waiting
from capture.stored_texts import StoredTurn, stored_turns
from privacy.findings import ScrubError
from tests.capture.conftest import Cast, turn_item
from tests.factories import make_turn

CANARIES = {
    "name": "Zebulon Quarrington",
    "mail": "zebulon.q@example.org",
    "phone": "+44 7700 900417",
    "card": "4556 7375 8689 9855",
    "iban": "GB33 BUKB 2020 1555 5555 55",
}


def post(cast: Cast, *items: dict[str, Any]) -> None:
    results = receive_turns(assistant=cast.bot, api_key=cast.key, items=items)
    assert {result.status for result in results} == {"created"}, results


def test_a_turn_becomes_rows_and_its_payload_is_gone(cast: Cast) -> None:
    post(cast, turn_item())
    assert scrub_waiting().sentence == "1 scrubbed, 0 held"
    turn = Turn.objects.get()
    assert (turn.client_id, turn.conversation.external_id, turn.model) == ("t-1", "c-1", "small-1")
    assert (turn.latency_ms, turn.tags, turn.metadata) == (812, ["web"], {"client": "web-2.1"})
    assert turn.asked_at.isoformat() == "2026-03-01T10:00:00+00:00"
    assert turn.api_key == cast.key
    assert turn.policy_digest
    assert turn.citations == [[1, 0]]
    assert not turn.declined
    assert len(turn.embedding) == 384
    first, second = Retrieval.objects.select_related("passage")
    assert (first.rank, first.score, first.passage.source) == (1, 0.81, "tariffs/leaving.md")
    places = [row[0] for retrieval in (first, second) for row in retrieval.evidence]
    assert sorted(places) == [0, 1, 2]
    assert first.evidence[0][:2] == [0, 0]
    assert not Quarantine.objects.exists()
    assert Receipt.objects.count() == 1


def test_turns_that_come_one_by_one_are_scrubbed_together(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first at once; those that come while its job waits queue one job more, which takes them in one batch."""
    batches: list[int] = []
    waited: list[float] = []
    scrub_claimed = scrub.scrub_claimed

    def meanwhile(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 1:
            for name in ("t-2", "t-3", "t-4"):
                post(cast, turn_item(id=name))

    def counted(claimed: claims.Claim, report: scrub.ScrubReport) -> None:
        batches.append(len(claimed.rows))
        scrub_claimed(claimed, report)

    monkeypatch.setattr("capture.scrub.time.sleep", meanwhile)
    monkeypatch.setattr("capture.scrub.scrub_claimed", counted)
    post(cast, turn_item())
    OrmQ.objects.all().delete()
    assert scrub_waiting(gather=0.5).sentence == "1 scrubbed, 0 held", "a job ends, however many still come"
    assert OrmQ.objects.count() == 1
    assert scrub_waiting(gather=0.5).sentence == "3 scrubbed, 0 held"
    assert batches == [1, 3]
    assert waited == [0.5, 0.5]


def test_a_long_line_and_an_empty_one_wait_for_nobody(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("capture.scrub.time.sleep", waited.append)
    assert scrub_waiting(gather=0.5).sentence == "0 scrubbed, 0 held"
    post(cast, *(turn_item(id=f"t-{n}") for n in range(scrub.FEW + 1)))
    assert scrub_waiting(gather=0.5).scrubbed == scrub.FEW + 1
    assert waited == []
    post(cast, *(turn_item(id=f"u-{n}") for n in range(4)))
    assert scrub_waiting(gather=0.5, batch=1).scrubbed == 4
    assert waited == [0.5], "once, not behind each batch"


def test_ranks_a_decline_and_the_time_of_arrival(cast: Cast) -> None:
    contexts = [{"text": "Second text.", "rank": 2}, {"text": "First text.", "rank": 1}]
    item = turn_item(contexts=contexts, response="I can't find that in the documents!", conversation=None)
    del item["time"]
    post(cast, item)
    scrub_waiting()
    turn = Turn.objects.get()
    assert turn.declined
    assert turn.conversation.external_id == "t-1"
    assert timezone.now() - turn.asked_at < timedelta(minutes=5)
    assert [r.passage.text for r in turn.retrievals.all()] == ["First text.", "Second text."]


def test_passages_are_stored_once(cast: Cast) -> None:
    post(cast, *(turn_item(id=f"t-{n}") for n in range(3)))
    scrub_waiting()
    assert (Passage.objects.count(), Retrieval.objects.count(), Turn.objects.count()) == (2, 6, 3)


def test_turns_that_we_served_keep_their_evidence(cast: Cast) -> None:
    evidence = [[0, 1, 0.77], [1, 0, 0.5]]
    context = {"text": "One sentence here. Two sentences here.", "title": "T", "chunk": 5, "evidence": evidence}
    served = {"completion": "[1] Two sentences here.", "citations": [[1, 1]], "prompt_digest": "abcdef0123456789"}
    post(cast, turn_item(contexts=[context], response="Two sentences here. [1]", **served))
    scrub_waiting()
    retrieval = Retrieval.objects.select_related("turn", "passage").get()
    assert retrieval.evidence == evidence
    assert retrieval.passage.metadata == {"chunk": 5}
    assert retrieval.turn.citations == [[1, 1]]
    assert retrieval.turn.prompt_digest == "abcdef0123456789"


def test_evidence_that_does_not_fit_is_ranked_anew(cast: Cast) -> None:
    post(cast, turn_item(contexts=[{"text": "One sentence.", "evidence": [[0, 7, 0.9]]}]))
    scrub_waiting()
    assert [row[:2] for row in Retrieval.objects.get().evidence] == [[0, 0]]


def test_no_planted_value_is_left_in_any_column(cast: Cast) -> None:
    post(
        cast,
        turn_item(
            id=CANARIES["mail"],
            conversation="chat of Zebulon Quarrington",
            question=f"My name is {CANARIES['name']}, my card is {CANARIES['card']}. Is {CANARIES['iban']} right?",
            history=[{"role": "user", "content": f"Call me on {CANARIES['phone']}, I am {CANARIES['name']}."}],
            contexts=[{
                "text": f"Ticket of {CANARIES['name']}, {CANARIES['mail']}: wants to leave.",
                "title": f"Ticket of {CANARIES['name']}", "source": f"crm/{CANARIES['mail']}",
                "metadata": {"phone": CANARIES["phone"]},
            }],
            response=f"Dear {CANARIES['name']}, we wrote to {CANARIES['mail']}. [1]",
            completion=f"[1] Dear {CANARIES['name']}, we wrote to {CANARIES['mail']}.",
            tags=["vip"],
            metadata={
                "user": {"name": CANARIES["name"], "email": CANARIES["mail"]},
                "note": f"card {CANARIES['card']}", "number": 4556737586899855,
            },
        ),
    )  # fmt: skip
    receive_feedback(
        assistant=cast.bot, api_key=cast.key,
        items=[{"turn": CANARIES["mail"], "kind": "comment", "text": f"Zebulon here, write to {CANARIES['mail']}"}],
    )  # fmt: skip
    report = scrub_waiting()
    assert (report.scrubbed, report.held) == (2, 0), list(Quarantine.objects.values_list("error"))
    stored = everything_stored()
    for value in (*CANARIES.values(), "Zebulon", "Quarrington", "zebulon", "4556737586899855", "7700 900417"):
        assert value not in stored, value
    turn = Turn.objects.get()
    assert "[PERSON_1]" in turn.question
    assert "[PERSON_1]" in turn.response
    assert {finding["type"] for finding in turn.pii} >= {"PERSON", "EMAIL", "CREDIT_CARD", "IBAN", "PHONE"}
    said = {"field", "placeholder", "type", "score", "recognizer", "context_word", "uncertain"}
    assert set(turn.pii[0]) <= said
    assert set(turn.metadata) == {"user_key", "note", "number"}


def everything_stored() -> str:
    """Every text of every row of our tables, as PostgreSQL prints it."""
    rows: list[str] = []
    with connection.cursor() as cursor:
        for model in apps.get_models():
            if model._meta.app_label in ("assistants", "capture", "django_q"):
                cursor.execute(f'SELECT t::text FROM "{model._meta.db_table}" t')
                rows += [row[0] for row in cursor.fetchall()]
    return "\n".join(rows)


def test_the_users_own_name_is_masked_where_no_rule_would_find_it(cast: Cast) -> None:
    question = "is the account of okonkwo-bright still open? will you write?"
    post(cast, turn_item(question=question, metadata={"user": {"name": "Will Okonkwo-Bright"}}))
    scrub_waiting()
    turn = Turn.objects.get()
    assert "okonkwo" not in turn.question.lower()
    assert "will you write" in turn.question


def test_one_person_keeps_one_number_through_a_conversation(cast: Cast) -> None:
    post(cast, turn_item(id="1", question="I am Zebulon Quarrington.", contexts=[]))
    scrub_waiting()
    post(cast, turn_item(id="2", question="Tell Maria Schmidt that Zebulon Quarrington called.", contexts=[]))
    scrub_waiting()
    assert Turn.objects.get(client_id="2").question == "Tell [PERSON_2] that [PERSON_1] called."
    assert "quarrington" not in str(Conversation.objects.get().entities).lower()


def test_the_key_of_a_user_is_never_taken_for_a_text(cast: Cast) -> None:
    """Many hashes, since it takes a certain one for a recogniser to see a number or a name in it."""
    users = [f"user {n}" for n in range(40)]
    post(cast, *(turn_item(id=f"t-{n}", conversation=f"c-{n}", metadata={"user": user}, contexts=[], history=[])
                 for n, user in enumerate(users)))  # fmt: skip
    scrub_waiting()
    kept = dict(Turn.objects.values_list("client_id", "metadata"))
    assert kept == {f"t-{n}": {"user_key": user_key(cast.bot, user)} for n, user in enumerate(users)}
    for turn in stored_turns(Conversation.objects.get(external_id="c-0")):
        assert "metadata.user_key" not in [place.name for place in StoredTurn(turn).places]


def test_the_table_of_masks_is_that_of_the_last_item_whatever_its_kind(cast: Cast) -> None:
    """Feedback between two turns is written behind both, and must not take the table back to where it was."""
    post(cast, turn_item(id="1", question="I am Zebulon Quarrington.", contexts=[]))
    said = [{"turn": "1", "kind": "comment", "text": "I am Zebulon Quarrington, and this is no answer."}]
    receive_feedback(assistant=cast.bot, api_key=cast.key, items=said)
    receive_updates(assistant=cast.bot, api_key=cast.key, items=[{"turn": "1", "tags": ["slow"]}])
    post(cast, turn_item(id="2", question="I am Maria Schmidt.", contexts=[]))
    assert scrub_waiting().scrubbed == 4
    post(cast, turn_item(id="3", question="I am Okonkwo Adebayo. Is Maria Schmidt there?", contexts=[]))
    scrub_waiting()
    assert Turn.objects.get(client_id="3").question == "I am [PERSON_3]. Is [PERSON_2] there?"


def test_public_contacts_of_our_own_documents_stay(cast: Cast) -> None:
    text = "Questions? Write to help@brightwater.example or call 0800 496 0123."
    from tests.factories import make_document

    make_document(cast.bot, path="contact.md", text=f"# Contact\n\n{text}\n")
    ours, foreign = {"text": text, "source": "contact.md"}, {"text": text + " Thanks.", "source": "elsewhere.md"}
    post(cast, turn_item(contexts=[ours], id="1"), turn_item(contexts=[foreign], id="2", conversation="c-2"))
    scrub_waiting()
    assert Retrieval.objects.get(turn__client_id="1").passage.text == text
    assert "help@" not in Retrieval.objects.get(turn__client_id="2").passage.text


# --- Feedback ------------------------------------------------------------------------------------


def test_feedback_is_stored_with_its_turn(cast: Cast) -> None:
    post(cast, turn_item())
    rows = [{"turn": "t-1", "kind": "thumb", "value": -1}, {"turn": "t-1", "kind": "comment", "text": "Useless"}]
    receive_feedback(assistant=cast.bot, api_key=cast.key, items=rows)
    assert scrub_waiting().scrubbed == 3
    assert sorted(Feedback.objects.values_list("kind", "value", "text")) == [
        ("comment", None, "Useless"), ("thumb", -1.0, ""),
    ]  # fmt: skip


def test_feedback_on_a_held_turn_is_held_and_comes_back_with_it(cast: Cast, monkeypatch: Any) -> None:
    post(cast, turn_item())
    receive_feedback(assistant=cast.bot, api_key=cast.key, items=[{"turn": "t-1", "kind": "thumb", "value": 1}])
    with monkeypatch.context() as broken:
        broken.setattr(scrub, "mask_turn", fail)
        assert scrub_waiting().held == 2
    held = Quarantine.objects.get(kind="turn")
    assert retry_held(assistant=cast.bot, items=[held.pk], actor=cast.dana) == 2
    assert scrub_waiting().scrubbed == 2
    assert Feedback.objects.count() == 1


# --- Failing closed ------------------------------------------------------------------------------------


def fail(**_: Any) -> Any:
    raise ScrubError("RuntimeError while scrubbing; the text stays held")


def test_what_cannot_be_scrubbed_stays_held_and_the_rest_goes_on(cast: Cast, monkeypatch: Any) -> None:
    post(cast, turn_item(id="good"), turn_item(id="bad", question="Zebulon breaks it"))
    real = scrub.mask_turn

    def fragile(**arguments: Any) -> Any:
        if "Zebulon" in arguments["item"].question:
            raise ValueError("Zebulon")
        return real(**arguments)

    monkeypatch.setattr(scrub, "mask_turn", fragile)
    assert scrub_waiting().sentence == "1 scrubbed, 1 held"
    held = Quarantine.objects.get()
    assert (held.state, held.attempts, held.error) == ("held", 1, "Scrubbing failed (ValueError).")
    assert "Zebulon" not in everything_stored()
    assert Turn.objects.get().client_id == "good"
    assert scrub_waiting().scrubbed == 0


def test_a_payload_that_no_key_opens_is_held(cast: Cast, settings: Any) -> None:
    from cryptography.fernet import Fernet

    old, new = settings.RATCHET_DATA_KEY, Fernet.generate_key().decode()
    post(cast, turn_item())
    settings.RATCHET_DATA_KEY = new
    assert scrub_waiting().held == 1
    assert "RATCHET_DATA_KEY" in Quarantine.objects.get().error
    settings.RATCHET_DATA_KEY = f"{new},{old}"
    retry_held(assistant=cast.bot, items=[Quarantine.objects.get().pk], actor=cast.dana)
    assert scrub_waiting().scrubbed == 1


def test_a_row_that_the_database_refuses_is_held_alone(cast: Cast) -> None:
    post(cast, turn_item(id="a"), turn_item(id="b"))
    conversation = Conversation.objects.create(assistant=cast.bot, external_id="x")
    Turn.objects.create(
        assistant=cast.bot, conversation=conversation, client_id="b", question="?", response="!",
        asked_at=timezone.now(), policy_digest="",
    )  # fmt: skip
    assert scrub_waiting().sentence == "1 scrubbed, 1 held"
    assert Quarantine.objects.get().error == "Storing failed (IntegrityError)."


def test_a_failure_around_the_items_gives_them_back(cast: Cast, monkeypatch: Any) -> None:
    post(cast, turn_item())

    def away(*_: Any) -> Any:
        raise RuntimeError("no embedder")

    with monkeypatch.context() as broken:
        broken.setattr(scrub, "make_vectors", away)
        with pytest.raises(RuntimeError):
            scrub_waiting()
    row = Quarantine.objects.get()
    assert (row.state, row.attempts, row.claimed_until) == ("waiting", 0, None)
    assert scrub_waiting().scrubbed == 1


def test_deleting_and_retrying_are_audited_and_keep_the_receipt(cast: Cast, monkeypatch: Any) -> None:
    monkeypatch.setattr(scrub, "mask_turn", fail)
    post(cast, turn_item())
    scrub_waiting()
    held = Quarantine.objects.get()
    assert delete_held(assistant=cast.other, items=[held.pk], actor=cast.carol) == 0
    assert delete_held(assistant=cast.bot, items=[held.pk], actor=cast.dana, reason="spam") == 1
    event = AuditEvent.objects.get(action="quarantine.deleted")
    assert (event.actor, event.reason, event.details) == (cast.dana, "spam", {"items": [held.pk]})
    repeat = receive_turns(assistant=cast.bot, api_key=cast.key, items=[turn_item()])
    assert repeat[0].status == "duplicate"


# --- Who works on what ------------------------------------------------------------------------------------


def test_a_conversation_is_one_workers_at_a_time_and_in_order(cast: Cast) -> None:
    post(cast, *(turn_item(id=f"{c}{n}", conversation=c) for n in range(2) for c in "ab"))
    first = claim(limit=1)
    assert [row.receipt.client_id for row in first.rows] == ["a0"]
    second = claim()
    assert [row.receipt.client_id for row in second.rows] == ["b0", "b1"]
    assert claim().rows == []
    waiting = Quarantine.objects.get(receipt__client_id="a1")
    assert not scrub_item(waiting.pk)


def test_a_dead_workers_items_come_back_one_by_one_and_are_held_in_the_end(cast: Cast) -> None:
    post(cast, turn_item(id="a"), turn_item(id="b", conversation="c-2"))
    assert len(claim().rows) == 2
    for _ in range(2):
        expire()
        assert len(claim().rows) == 1
    expire()
    assert [row.receipt.client_id for row in claim().rows] == ["b"]
    held = Quarantine.objects.held().get()
    assert "3 times" in held.error


def expire() -> None:
    leased = Quarantine.objects.exclude(claimed_until=None)
    leased.update(claimed_until=timezone.now() - timedelta(seconds=1))


def test_giving_back_one_item_keeps_the_claim_of_the_others(cast: Cast) -> None:
    post(cast, turn_item(id="a"), turn_item(id="b", conversation="c-2"))
    mine = claim()
    claims.give_back(mine.of(mine.rows[:1]))
    assert [row.receipt.client_id for row in claim().rows] == ["a"]
    claims.remove(mine.of(mine.rows[1:]))  # still ours


def test_a_worker_that_lost_its_lease_writes_nothing(cast: Cast) -> None:
    post(cast, turn_item())
    slow = claim()
    expire()
    quick = claim()
    report = scrub.ScrubReport()
    scrub.scrub_claimed(slow, report)
    assert (report.scrubbed, Turn.objects.count()) == (0, 0)
    scrub.scrub_claimed(quick, report)
    assert Turn.objects.count() == 1
    with pytest.raises(LeaseLost):
        claims.remove(slow)


def test_killed_between_writing_and_committing_loses_and_doubles_nothing(cast: Cast, monkeypatch: Any) -> None:
    post(cast, turn_item())

    class Killed(BaseException):
        pass

    def die(*_: Any) -> Any:
        raise Killed

    with monkeypatch.context() as broken:
        broken.setattr(Retrieval.objects, "bulk_create", die)
        broken.setattr(scrub, "release", lambda _: None)  # the dead release nothing
        with pytest.raises(Killed):
            scrub_waiting()
    assert not Turn.objects.exists()
    assert scrub_waiting().scrubbed == 0  # the lease still stands
    expire()
    assert scrub_waiting().scrubbed == 1
    assert (Turn.objects.count(), Quarantine.objects.count()) == (1, 0)


@pytest.mark.django_db(transaction=True)
def test_two_workers_share_the_line(request: pytest.FixtureRequest) -> None:
    cast: Cast = request.getfixturevalue("cast")
    items = [turn_item(id=f"{c}-{n}", conversation=f"c{c}", contexts=[]) for n in range(3) for c in range(6)]
    post(cast, *items)
    reports: list[scrub.ScrubReport] = []

    def work() -> None:
        try:
            reports.append(scrub_waiting(batch=2))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rest = scrub_waiting()
    assert sum(report.scrubbed for report in reports) + rest.scrubbed == 18
    assert (Turn.objects.count(), Quarantine.objects.count(), Conversation.objects.count()) == (18, 0, 6)
    for conversation in Conversation.objects.all():
        stored = conversation.turns.order_by("created_at").values_list("client_id", flat=True)
        assert [name[-1] for name in stored] == ["0", "1", "2"]


@pytest.mark.django_db(transaction=True)
def test_two_clients_posting_the_same_batch_at_once_store_it_once(request: pytest.FixtureRequest) -> None:
    cast: Cast = request.getfixturevalue("cast")
    items = [turn_item(id=f"t-{n}") for n in range(40)]
    statuses: list[str] = []

    def send(batch: list[dict[str, Any]]) -> None:
        try:
            results = receive_turns(assistant=cast.bot, api_key=cast.key, items=batch)
            statuses.extend(result.status for result in results)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send, args=(batch,)) for batch in (items, items[::-1])]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == ["created"] * 40 + ["duplicate"] * 40
    assert Quarantine.objects.count() == 40


# --- Commands and cost -------------------------------------------------------------------------------------


def test_the_command_drains_the_line(cast: Cast, capsys: Any) -> None:
    post(cast, turn_item())
    call_command("scrub", "--once")
    assert "1 scrubbed, 0 held" in capsys.readouterr().out
    assert Turn.objects.count() == 1


def test_a_batch_costs_as_many_queries_as_one_turn(cast: Cast, django_assert_max_num_queries: Any) -> None:
    post(cast, *(turn_item(id=f"t-{n}", conversation=f"c-{n}") for n in range(20)))
    with django_assert_max_num_queries(40):
        scrub_waiting()
    assert Turn.objects.count() == 20


@pytest.mark.django_db(transaction=True)
def test_what_a_killed_worker_had_claimed_is_taken_over_at_once(cast: Cast) -> None:
    """Its session is gone, and its lock with it; nobody waits for the clock. A lease with its lock stands."""
    post(cast, turn_item())
    assert len(claim().rows) == 1
    assert claim().rows == []
    connection.close()
    (row,) = claim().rows
    assert row.attempts == 1  # it counts: the item may be what killed the worker
    assert claim().rows == []


@pytest.mark.django_db(transaction=True)
def test_a_passage_that_goes_while_a_turn_is_stored_is_stored_anew(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    """A review or an erasure deletes one that no turn uses, and just then a turn comes that does."""
    old = make_turn(cast.bot).retrievals.select_related("passage")[0].passage
    text, gone = old.text, old.pk
    Turn.objects.all().delete()
    context = {"text": text, "title": old.title, "source": old.source}
    receive_turns(assistant=cast.bot, api_key=None, items=[turn_item(contexts=[context])])
    real, deleted = storing.note, threading.Event()

    def delete() -> None:
        deleted.set()
        Passage.objects.filter(pk=gone).delete()
        connection.close()

    def note(*given: Any, **more: Any) -> int:
        if not deleted.is_set():  # the retrieval is written, and not committed
            thread = threading.Thread(target=delete)
            thread.start()
            thread.join(10)
        return real(*given, **more)

    monkeypatch.setattr(storing, "note", note)
    report = scrub_waiting()
    assert deleted.is_set()
    assert (report.scrubbed, report.held) == (1, 0)
    stored = Turn.objects.get().retrievals.get().passage
    assert (stored.text, stored.pk != gone) == (text, True)
    assert stored.sentence_embeddings
