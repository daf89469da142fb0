"""What waits is packed before it is encrypted, each payload by itself, and comes out as it went in."""

from __future__ import annotations

import json
import threading

import pytest
import zstandard

from assistants.vault import PayloadUnreadable, encrypt, encrypt_all
from capture.models import Quarantine, Turn
from capture.receiving import receive_turns
from capture.scrub import scrub_waiting
from capture.sealing import content_of, packed_all
from tests.capture.conftest import Cast, turn_item

pytestmark = pytest.mark.django_db
PAGE = "A fixed plan has an exit fee of £35, unless it ends within 49 days. " * 40


def test_contents_come_out_as_they_went_in() -> None:
    contents = [b"{}", json.dumps({"text": PAGE}).encode(), bytes(range(256)) * 500, b"x"]
    sealed = encrypt_all(packed_all(contents))
    assert [content_of(payload) for payload in sealed] == contents
    assert content_of(memoryview(sealed[1])) == contents[1]


def test_a_payload_says_nothing_of_another_in_its_batch() -> None:
    contents = [json.dumps({"n": n, "text": PAGE}).encode() for n in range(5)]
    assert packed_all(contents) == [packed_all([content])[0] for content in contents]


def test_threads_pack_and_open_at_once() -> None:
    contents = [[json.dumps({"thread": t, "n": n, "text": PAGE}).encode() for n in range(20)] for t in range(6)]
    wrong: list[int] = []

    def work(own: int) -> None:
        for _ in range(10):
            if [content_of(payload) for payload in encrypt_all(packed_all(contents[own]))] != contents[own]:
                wrong.append(own)

    threads = [threading.Thread(target=work, args=(own,)) for own in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_is_not_packed_opens_too() -> None:
    content = json.dumps(turn_item()).encode()
    assert content_of(encrypt(content)) == content


def test_a_waiting_turn_takes_less_room_than_its_text(cast: Cast) -> None:
    receive_turns(assistant=cast.bot, api_key=cast.key, items=[turn_item(response=PAGE)])
    payload = bytes(Quarantine.objects.get().payload)
    assert b"exit fee" not in payload
    assert len(payload) < len(PAGE) / 2


@pytest.mark.parametrize("content", [zstandard.FRAME_HEADER, zstandard.FRAME_HEADER + b"\x20\x01nothing", b""])
def test_what_is_no_whole_payload_is_held(cast: Cast, content: bytes) -> None:
    received = receive_turns(assistant=cast.bot, api_key=cast.key, items=[turn_item()])
    assert [one.status for one in received] == ["created"]
    Quarantine.objects.update(payload=encrypt(content))
    if content:
        with pytest.raises(PayloadUnreadable):
            content_of(Quarantine.objects.get().payload)
    scrub_waiting()
    assert Quarantine.objects.get().state == Quarantine.State.HELD
    assert not Turn.objects.exists()
