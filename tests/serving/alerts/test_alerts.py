"""What is raised, cleared, sent and by whom it may be read."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any

import pytest
from django.conf import settings
from django.core import mail
from django.core.exceptions import ValidationError
from django.test import Client, override_settings
from django.utils import timezone

from assistants.models import Assistant, AuditEvent
from capture.models import Quarantine, Receipt
from serving.alerts import sending, watching, webhooks
from serving.models import Alert, AlertChannel, AlertDelivery
from tests.factories import add_member, make_adapter, make_assistant, make_evaluation, make_user


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant("helpdesk")


def hold(assistant: Assistant, name: str = "t1") -> Quarantine:
    receipt = Receipt.objects.create(assistant=assistant, client_id=name, payload_digest="0")
    return Quarantine.objects.create(
        assistant=assistant, receipt=receipt, payload=b"x", state="held", conversation_key="c", kind="turn"
    )


class Receiver(BaseHTTPRequestHandler):
    got: list[tuple[dict[str, str], bytes]]
    status = 204

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((dict(self.headers), body))  # type: ignore[attr-defined]
        self.send_response(self.server.status)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Any]:
    server: Any = HTTPServer(("127.0.0.1", 0), Receiver)
    server.got, server.status = [], 204
    server.address = f"http://127.0.0.1:{server.server_port}/hook"
    Thread(target=server.serve_forever, daemon=True).start()
    with override_settings(RATCHET_WEBHOOK_PRIVATE=True):
        yield server
    server.shutdown()
    server.server_close()


class MailServer(StreamRequestHandler):
    """As much SMTP as a mail needs."""

    def handle(self) -> None:
        server: Any = self.server
        self.wfile.write(b"220 sink\r\n")
        while line := self.rfile.readline().strip():
            verb, answer = line[:4].upper(), b"250 sink"
            if verb == b"RCPT" and server.refuse:
                answer = b"550 no such box: hunter2"
            elif verb == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                server.got.append(b"".join(iter(self.rfile.readline, b".\r\n")))
            self.wfile.write((b"221 bye" if verb == b"QUIT" else answer) + b"\r\n")


@pytest.fixture
def mail_server() -> Iterator[Any]:
    server: Any = ThreadingTCPServer(("127.0.0.1", 0), MailServer)
    server.got, server.refuse = [], False
    Thread(target=server.serve_forever, daemon=True).start()
    with override_settings(
        EMAIL_BACKEND="django.core.mail.backends.smtp.EmailBackend", EMAIL_HOST="127.0.0.1",
        EMAIL_PORT=server.server_address[1], EMAIL_USE_TLS=False,
    ):  # fmt: skip
        yield server
    server.shutdown()
    server.server_close()


def signature(key: str, body: bytes) -> str:
    """As a receiver computes it."""
    return f"sha256={hmac.new(key.encode(), body, hashlib.sha256).hexdigest()}"


def pass_time() -> None:
    """Longer than a condition must have been over."""
    Alert.objects.update(seen_at=timezone.now() - watching.QUIET - timedelta(minutes=1))


def test_a_value_around_its_limit_is_told_once(assistant: Assistant) -> None:
    held = hold(assistant)
    watching.look()
    held.delete()
    watching.look()
    assert Alert.objects.get().cleared_at is None
    hold(assistant, "t2")
    watching.look()
    assert Alert.objects.count() == 1


def test_what_is_true_is_raised_once_and_cleared_when_it_is_over(assistant: Assistant) -> None:
    other = make_assistant("other")
    held = hold(assistant)
    assert watching.look() == 1
    assert watching.look() == 1
    alert = Alert.objects.get()
    assert (alert.assistant, alert.kind, alert.level) == (assistant, "held", "warning")
    assert alert.link.endswith("?state__exact=held")
    hold(other, "t2")
    held.delete()
    pass_time()
    assert watching.look() == 1
    alert.refresh_from_db()
    assert alert.cleared_at is not None
    hold(assistant, "t3")
    watching.look()
    assert Alert.objects.filter(assistant=assistant).count() == 2


def test_a_gate_that_was_passed_is_news_until_somebody_acts(assistant: Assistant) -> None:
    from serving.services import promote

    evaluation = make_evaluation(make_adapter(assistant), verdict="passed", finished_at=timezone.now())
    watching.look()
    assert Alert.objects.get().kind == "gate_passed"
    promote(assistant=assistant, adapter=evaluation.adapter, evaluation=evaluation, actor=None)
    watching.look()
    assert not Alert.objects.open().filter(kind="gate_passed").exists()


def test_failed_work_is_named_and_is_no_news_after_a_day(assistant: Assistant) -> None:
    from training.models import Synthesis

    now = timezone.now()
    row = Synthesis.objects.create(assistant=assistant, state="failed", finished_at=now, error="secret text")
    Synthesis.objects.create(assistant=assistant, state="failed", finished_at=now - timedelta(days=2))
    watching.look()
    alert = Alert.objects.get()
    assert alert.sentence == f"Synthesis {row.pk} failed."


def test_looking_costs_the_same_for_many_assistants(assistant: Assistant, django_assert_max_num_queries: Any) -> None:
    from serving.alerts.conditions import conditions

    with django_assert_max_num_queries(40) as few:
        conditions([assistant])
    many = [assistant, *(make_assistant(f"a{n}") for n in range(4))]
    for one in many:
        hold(one, f"x{one.pk}")
    with django_assert_max_num_queries(len(few.captured_queries)):
        conditions(many)


def test_a_webhook_is_told_of_beginning_and_end_with_a_signature(assistant: Assistant, receiver: Any) -> None:
    channel = AlertChannel.objects.create(assistant=assistant, kind="webhook", address=receiver.address)
    AlertChannel.objects.create(assistant=assistant, kind="webhook", address=receiver.address + "2", level="urgent")
    held = hold(assistant)
    watching.look()
    assert sending.send_due() == 1
    assert sending.send_due() == 0
    headers, body = receiver.got[0]
    assert headers["X-Ratchet-Signature"] == signature(webhooks.key_of(channel), body)
    told = json.loads(body)
    assert (told["event"], told["assistant"], told["kind"], told["level"]) == (
        "alert.raised", "helpdesk", "held", "warning",
    )  # fmt: skip
    assert told["link"].startswith(settings.RATCHET_PUBLIC_URL)
    held.delete()
    pass_time()
    watching.look()
    assert sending.send_due() == 1
    assert json.loads(receiver.got[1][1])["event"] == "alert.cleared"


def test_who_does_not_take_it_is_asked_again_later_and_not_for_ever(assistant: Assistant, receiver: Any) -> None:
    receiver.status = 500
    AlertChannel.objects.create(assistant=assistant, kind="webhook", address=receiver.address)
    hold(assistant)
    watching.look()
    assert sending.send_due() == 0
    delivery = AlertDelivery.objects.get()
    assert (delivery.attempts, delivery.error) == (1, "It answered 500.")
    assert delivery.due_at > timezone.now() + timedelta(seconds=30)
    assert sending.send_due() == 0  # not due
    assert delivery.attempts == 1
    AlertDelivery.objects.update(due_at=timezone.now(), attempts=AlertDelivery.MOST_ATTEMPTS)
    sending.send_due()
    assert len(receiver.got) == 1
    receiver.status = 200
    AlertDelivery.objects.update(attempts=3)
    assert sending.send_due() == 1
    delivery.refresh_from_db()
    assert delivery.sent_at is not None


def test_a_redirect_is_not_followed(assistant: Assistant, receiver: Any) -> None:
    receiver.status = 302
    assert webhooks.post(receiver.address, {}, key="k") == "It answered 302."


@override_settings(EMAIL_HOST="mail.example.org")
def test_an_e_mail_says_it_in_one_line(assistant: Assistant) -> None:
    AlertChannel.objects.create(assistant=assistant, kind="email", address="ops@example.org")
    hold(assistant)
    watching.look()
    assert sending.send_due() == 1
    (letter,) = mail.outbox
    assert letter.to == ["ops@example.org"]
    assert letter.subject == "[helpdesk] warning: 1 captured items are held: they could not be scrubbed."
    assert settings.RATCHET_PUBLIC_URL in str(letter.body)


@override_settings(EMAIL_HOST="mail.example.org")
def test_a_reason_of_several_lines_does_not_break_the_mail(assistant: Assistant) -> None:
    channel = AlertChannel.objects.create(assistant=assistant, kind="email", address="ops@example.org")
    alert = Alert(assistant=assistant, kind="x", level="urgent", sentence="Taken back:\r\nit was worse.")
    assert sending.deliver(alert, channel, cleared=False) == ""
    assert mail.outbox[0].subject == "[helpdesk] urgent: Taken back: it was worse."


def test_without_a_mail_server_the_channel_says_so(assistant: Assistant) -> None:
    AlertChannel.objects.create(assistant=assistant, kind="email", address="ops@example.org")
    hold(assistant)
    watching.look()
    with override_settings(EMAIL_HOST=""):
        assert sending.send_due() == 0
    assert AlertDelivery.objects.get().error == "No mail server is set (EMAIL_HOST)."


@pytest.mark.parametrize(
    "address", ["ftp://x.org", "http://x.org", "https://", "https://u:p@x.org", "https://x.org:99999", "nonsense", ""]
)
def test_addresses_that_cannot_be_meant_are_refused(assistant: Assistant, address: str) -> None:
    with pytest.raises(ValidationError):
        AlertChannel(assistant=assistant, kind="webhook", address=address).full_clean()


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1", "[::1]", "[::ffff:10.0.0.1]", "[64:ff9b::10.0.0.1]",
        "[2002:a00:1::1]", "[fec0::1]", "[::10.0.0.1]", "224.0.0.1", "0.0.0.0", "100.64.0.1", "2130706433",
    ],
)  # fmt: skip
def test_private_networks_are_closed_unless_opened(db: None, host: str) -> None:
    assert "private network" in webhooks.post(f"https://{host}:1/", {}, key="k")


def test_public_addresses_are_no_private_network() -> None:
    assert all(map(webhooks.is_public, ["8.8.8.8", "2606:4700::1", "64:ff9b::8.8.8.8", "2002:808:808::1"]))


def test_a_channel_that_fails_holds_up_nobody_else(assistant: Assistant, receiver: Any) -> None:
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        AlertChannel.objects.create(assistant=assistant, kind="webhook", address=address, level="news")
        AlertChannel.objects.create(assistant=assistant, kind="webhook", address=receiver.address, level="news")
        for number in range(3):
            Alert.objects.create(
                assistant=assistant, kind="held", key=str(number), level="warning", sentence="!",
                raised_at=timezone.now(), seen_at=timezone.now(),
            )  # fmt: skip
        for alert in Alert.objects.all():
            watching._note(alert, cleared=False)
        assert sending.send_due() == 3
    tried = AlertDelivery.objects.filter(attempts__gt=0, sent_at=None)
    assert tried.count() == 1  # the others for it are left to the next look
    assert tried.get().error == "No answer (ConnectError)."


def test_what_waits_for_a_channel_that_failed_is_tried_behind_all_others(
    assistant: Assistant, receiver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a look would end with the first that does not answer, minute after minute."""
    monkeypatch.setattr(sending, "AT_ONCE", 1)
    with socket.socket() as closed:  # bound, and nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/"
        AlertChannel.objects.create(assistant=assistant, kind="webhook", address=address, level="news")
        for number in range(3):
            alert = Alert.objects.create(
                assistant=assistant, kind="held", key=str(number), level="warning", sentence="!",
                raised_at=timezone.now(), seen_at=timezone.now(),
            )  # fmt: skip
            if number == 2:
                AlertChannel.objects.create(assistant=assistant, kind="webhook", address=receiver.address, level="news")
            watching._note(alert, cleared=False)
        assert AlertDelivery.objects.count() == 4
        assert [sending.send_due(), sending.send_due(), sending.send_due()] == [0, 1, 0]
    assert AlertDelivery.objects.filter(attempts=1, sent_at=None).count() == 2


def test_an_answer_without_an_end_is_not_waited_for(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(self: Any) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(OSError):
            while True:
                self.wfile.write(b"x" * 65536)

    monkeypatch.setattr(Receiver, "do_POST", endless)
    assert webhooks.post(receiver.address, {}, key="k") == ""


def test_a_head_that_drips_is_not_waited_for(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read is answered in time, the whole never."""

    def dripping(self: Any) -> None:
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            for number in range(200):
                self.wfile.write(b"X-%d: still here\r\n" % number)
                self.wfile.flush()
                time.sleep(0.1)

    monkeypatch.setattr(Receiver, "do_POST", dripping)
    monkeypatch.setattr(webhooks, "SECONDS", 0.5)
    began = time.monotonic()
    assert webhooks.post(receiver.address, {}, key="k") == "No answer (TimeoutError)."
    assert time.monotonic() - began < 15  # the drip would take twenty


def test_a_real_mail_server_gets_what_was_said_and_one_that_refuses_is_asked_again(
    assistant: Assistant, mail_server: Any
) -> None:
    AlertChannel.objects.create(assistant=assistant, kind="email", address="ops@example.org", level="news")
    hold(assistant)
    watching.look()
    mail_server.refuse = True
    assert sending.send_due() == 0
    delivery = AlertDelivery.objects.get()
    assert delivery.error.startswith("The mail server did not take it (SMTP")
    assert "hunter2" not in delivery.error
    mail_server.refuse = False
    AlertDelivery.objects.update(due_at=timezone.now())
    assert sending.send_due() == 1
    (message,) = mail_server.got
    assert b"Subject: [helpdesk] warning: 1 captured items are held" in message
    assert b"To: ops@example.org" in message


def test_what_was_looked_at_is_what_is_sent_to(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that leads elsewhere when it is looked up again would get round the check."""
    asked: list[Any] = []
    real = socket.getaddrinfo

    def noted(host: Any, *more: Any, **named: Any) -> Any:
        asked.append(host)
        return real(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", noted)
    address = receiver.address.replace("127.0.0.1", "localhost")
    assert webhooks.post(address, {}, key="k") == ""
    assert asked.count("localhost") == 1
    assert receiver.got[0][0]["Host"] == f"localhost:{receiver.server_port}"


@pytest.mark.parametrize("host", ["a" * 70 + ".example", "..example", "exa mple", "xn--\u00fc.example"])
def test_a_host_that_cannot_be_looked_up_is_an_error_of_its_channel(db: None, host: str) -> None:
    assert webhooks.post(f"https://{host}/", {}, key="k")


def test_the_pages_show_ones_own_and_let_readers_say_that_they_saw_it(assistant: Assistant) -> None:
    hold(assistant)
    hold(make_assistant("other"), "t2")
    watching.look()
    admin, annotator = make_user("admin"), make_user("annotator")
    add_member(assistant, admin, "admin")
    add_member(assistant, annotator, "annotator")
    client = Client()
    client.force_login(admin)
    page = client.get("/admin/serving/alert/").content.decode()
    assert page.count("1 captured items are held") == 1
    mine = Alert.objects.get(assistant=assistant)
    foreign = Alert.objects.exclude(assistant=assistant).get()
    form = {"action": "acknowledge_chosen", "_selected_action": [mine.pk, foreign.pk]}
    assert client.post("/admin/serving/alert/", form).status_code == 302
    mine.refresh_from_db()
    foreign.refresh_from_db()
    assert (mine.acknowledged_by, foreign.acknowledged_by) == (admin, None)
    assert AuditEvent.objects.filter(action="alert.acknowledged").count() == 1
    client.force_login(annotator)
    assert client.get("/admin/serving/alert/").status_code == 403
    assert client.get("/admin/serving/alertchannel/").status_code == 403


def test_an_admin_adds_a_channel_for_ones_own_assistant_only(assistant: Assistant, receiver: Any) -> None:
    other = make_assistant("other")
    admin = make_user("admin")
    add_member(assistant, admin, "admin")
    client = Client()
    client.force_login(admin)
    form = {"assistant": other.pk, "kind": "webhook", "address": receiver.address, "level": "news", "enabled": "on"}
    client.post("/admin/serving/alertchannel/add/", form)
    assert not AlertChannel.objects.exists()
    client.post("/admin/serving/alertchannel/add/", {**form, "assistant": assistant.pk})
    channel = AlertChannel.objects.get()
    assert AuditEvent.objects.filter(action="alert_channel.added").exists()
    answer = client.post(
        "/admin/serving/alertchannel/", {"action": "try_out", "_selected_action": [channel.pk]}, follow=True
    )
    assert "the test alert was taken" in answer.content.decode()
    assert json.loads(receiver.got[0][1])["kind"] == "test"


def test_each_webhook_has_a_key_of_its_own_that_is_shown_once_and_can_be_changed(
    assistant: Assistant, receiver: Any
) -> None:
    admin, reviewer = make_user("admin"), make_user("reviewer")
    add_member(assistant, admin, "admin")
    add_member(assistant, reviewer, "reviewer")
    foreign = AlertChannel.objects.create(assistant=make_assistant("other"), kind="webhook", address=receiver.address)
    client = Client()
    client.force_login(admin)
    place = "/admin/serving/alertchannel/"
    form = {"kind": "webhook", "address": receiver.address, "level": "news", "enabled": "on", "assistant": assistant.pk}
    shown = client.post(f"{place}add/", form, follow=True).content.decode()
    channel = AlertChannel.objects.get(assistant=assistant)
    first = webhooks.key_of(channel)
    assert first in shown
    assert first not in client.get(place).content.decode()
    assert first not in client.get(f"{place}{channel.pk}/change/").content.decode()
    assert first != webhooks.key_of(foreign)

    form["level"] = "urgent"
    client.post(f"{place}{channel.pk}/change/", form)
    channel.refresh_from_db()
    assert webhooks.key_of(channel) == first
    change = {"action": "change_keys", "_selected_action": [channel.pk, foreign.pk]}
    kept = foreign.key_salt
    shown = client.post(place, change, follow=True).content.decode()
    channel.refresh_from_db()
    foreign.refresh_from_db()
    second = webhooks.key_of(channel)
    assert first != second
    assert second in shown
    assert foreign.key_salt == kept
    assert AuditEvent.objects.get(action="alert_channel.key_changed").actor == admin
    client.post(place, {"action": "try_out", "_selected_action": [channel.pk]})
    headers, body = receiver.got[-1]
    assert headers["X-Ratchet-Signature"] == signature(second, body)

    form["address"] = receiver.address + "/elsewhere"
    shown = client.post(f"{place}{channel.pk}/change/", form, follow=True).content.decode()
    channel.refresh_from_db()
    assert webhooks.key_of(channel) not in (first, second)
    assert webhooks.key_of(channel) in shown
    client.force_login(reviewer)
    assert client.post(place, change).status_code == 403


def test_the_home_page_shows_what_nobody_has_seen(assistant: Assistant) -> None:
    hold(assistant)
    watching.look()
    admin = make_user("admin")
    add_member(assistant, admin, "admin")
    client = Client()
    client.force_login(admin)
    assert "1 captured items are held: they could not be scrubbed." in client.get("/admin/").content.decode()
    watching.acknowledge(alerts=Alert.objects.all(), by=admin)
    assert "rt-alerts" not in client.get("/admin/").content.decode()
