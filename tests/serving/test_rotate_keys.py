"""Another data key: everything that waits is closed with it, in batches, and the old one can be forgotten."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.management import CommandError, call_command
from django.db.models import BinaryField

from assistants.background import launch
from assistants.models import AuditEvent
from assistants.vault import PayloadUnreadable, decrypt, encrypt
from capture import rotation
from capture.models import Quarantine, Turn, WaitingSpans
from capture.otlp.closing import close_traces
from capture.otlp.decoding import decode
from capture.otlp.receiving import receive_spans
from capture.otlp.wire import Encoding
from capture.services import receive_turns, scrub_waiting
from knowledge.models import Document, Upload, UploadedFile
from knowledge.uploads import IncomingFile, start_upload
from serving import spool
from serving.management.commands.rotate_keys import SEALED
from tests.capture.conftest import turn_item
from tests.capture.otlp_samples import Bot, body_of
from tests.factories import make_assistant
from training.models import CuratedSet, TrainingProvider

pytestmark = pytest.mark.django_db
PAGE = b"# Leaving\n\nA fixed plan has an exit fee.\n" * 20


@pytest.fixture
def key_file(tmp_path: Path, settings: Any) -> Path:
    """One key in a file, and a state folder for the spool."""
    path = tmp_path / "ratchet_data_key"
    path.write_text(base64.urlsafe_b64encode(bytes(range(32))).decode())
    settings.SECRETS_DIR, settings.VAR_DIR, settings.RATCHET_DATA_KEY = tmp_path, tmp_path, path.read_text()
    settings.RATCHET_TRACE_SETTLE_SECONDS = 0
    return path


@pytest.fixture
def restart(key_file: Path, settings: Any) -> Callable[[], None]:
    def read_again() -> None:
        settings.RATCHET_DATA_KEY = key_file.read_text()

    return read_again


def run(*options: str) -> str:
    out = io.StringIO()
    call_command("rotate_keys", *options, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def fill() -> None:
    bot = make_assistant("bot")
    receive_turns(assistant=bot, api_key=None, items=[turn_item(id=f"t-{n}", conversation=f"c-{n}") for n in range(7)])
    decoded = decode(body_of(Bot().openinference()), Encoding.PROTOBUF)
    receive_spans(assistant=bot, api_key=None, decoded=decoded)
    assert spool.keep(bot, None, turn_item(id="spooled"))
    files = [IncomingFile(f"{n}.md", len(PAGE), PAGE) for n in range(2)]
    start_upload(assistant=bot, files=[*files, IncomingFile("logo.png", 3, b"PNG")])


def test_everything_that_waits_is_opened_by_the_new_key_alone(key_file: Path, restart: Callable[[], None]) -> None:
    fill()
    assert "Restart" in run("--new")
    restart()
    with pytest.raises(CommandError, match="11 payloads are still closed"):
        run("--drop-old")
    assert "11 payloads" in run()
    assert "0 payloads" in run()
    assert "1 old keys" in run("--drop-old")
    restart()
    assert "," not in key_file.read_text()
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert scrub_waiting().scrubbed == 7
    assert (close_traces().turns, spool.drain()) == (1, 1)
    assert scrub_waiting().held == 0
    assert Turn.objects.count() == 9
    launch(Upload.objects.get(), foreground=True)
    assert set(UploadedFile.objects.values_list("outcome", flat=True)) == {"loaded", "failed"}
    assert Document.objects.ready().count() == 2
    actions = set(AuditEvent.objects.values_list("action", flat=True))
    assert {"key.added", "key.rotated", "key.dropped"} <= actions


def test_no_encrypted_column_is_forgotten() -> None:
    """Dropping the old key would destroy it. A column that is not encrypted is named here."""
    plain = {
        "assistants.KeyCheck.hash_key",
        "capture.Passage.sentence_embeddings",
        "knowledge.Chunk.sentence_embeddings",
        "knowledge.QueryMap.down",
        "knowledge.QueryMap.up",
        "training.CuratedRow.vector",
        "training.FrozenWords.hashes",
        "training.SyntheticItem.vector",
    }
    found = {
        f"{model._meta.label}.{field.name}"
        for model in apps.get_models()
        for field in model._meta.concrete_fields
        if isinstance(field, BinaryField)
    }
    assert found - plain == {f"{model._meta.label}.{name}" for model, name in SEALED}


def test_providers_keys_and_waiting_files_outlive_the_old_key(key_file: Path, restart: Callable[[], None]) -> None:
    bot = make_assistant("bot")
    provider = TrainingProvider(assistant=bot, name="There", base_url="https://there.example.org/v1", model="m")
    provider.api_key = "sk-1"
    provider.save()
    row = {"question": "When is a fee due?", "contexts": [], "sentences": [{"text": "In May.", "refs": []}]}
    curated = CuratedSet.objects.create(assistant=bot, name="Ours", sealed=encrypt(json.dumps(row).encode()))
    CuratedSet.objects.create(assistant=bot, name="Read already", sealed=None)
    before = bytes(curated.sealed or b"")
    run("--new")
    restart()
    with pytest.raises(CommandError, match="2 payloads are still closed"):
        run("--drop-old")
    assert "2 payloads" in run()
    run("--drop-old")
    restart()
    assert "," not in key_file.read_text()
    with pytest.raises(PayloadUnreadable):
        decrypt(before)
    provider = TrainingProvider.objects.get()
    assert provider.api_key == "sk-1"
    curated.refresh_from_db()
    launch(curated, foreground=True)
    curated.refresh_from_db()
    assert (curated.rows, curated.sealed, curated.error) == (1, None, "")


def test_it_goes_on_where_it_was_stopped(key_file: Path, restart: Callable[[], None]) -> None:
    fill()
    rotation.add_key(key_file)
    restart()
    next(iter(rotation.rotate(batch=3)))
    assert rotation.remaining() == 8 - 3
    assert Quarantine.objects.count() + WaitingSpans.objects.count() == 8
    *_, report = rotation.rotate(batch=3)
    assert (report.done, rotation.remaining()) == (5, 0)


def test_large_payloads_go_a_few_at_a_time(
    key_file: Path, restart: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill()
    monkeypatch.setattr("capture.rotation.BATCH_BYTES", len(PAGE))
    rotation.add_key(key_file)
    restart()
    files = ((UploadedFile, "data"),)
    assert rotation.remaining(files) == 2
    assert len(list(rotation.rotate(files))) == 3, "one in each batch, and the end"
    assert rotation.remaining(files) == 0


def test_an_upload_that_no_key_opens_says_so(key_file: Path, settings: Any) -> None:
    fill()
    settings.RATCHET_DATA_KEY = base64.urlsafe_b64encode(bytes(32)).decode()
    launch(Upload.objects.get(), foreground=True)
    file = UploadedFile.objects.get(path="0.md")
    assert (file.outcome, bytes(file.data)) == ("failed", b"")
    assert "Upload it again" in file.sentence


def test_what_no_key_opens_is_named_and_left(key_file: Path, settings: Any) -> None:
    fill()
    settings.RATCHET_DATA_KEY = base64.urlsafe_b64encode(bytes(32)).decode()
    key_file.write_text(settings.RATCHET_DATA_KEY)
    with pytest.raises(CommandError, match="No key opens 10 payloads"):
        run()
    with pytest.raises(CommandError, match="still closed"):
        run("--drop-old")


def test_keys_of_the_environment_are_changed_there(key_file: Path, settings: Any) -> None:
    settings.RATCHET_DATA_KEY = base64.urlsafe_b64encode(bytes(32)).decode()
    before = key_file.read_text()
    for step in ("--new", "--drop-old"):
        with pytest.raises(CommandError, match="from the environment"):
            run(step)
    assert key_file.read_text() == before


def test_a_sealed_payload_shows_any_change(key_file: Path) -> None:
    content = json.dumps(turn_item()).encode()
    sealed = encrypt(content)
    assert decrypt(memoryview(sealed)) == content
    assert encrypt(content) != sealed
    for place in range(len(sealed)):
        damaged = bytearray(sealed)
        damaged[place] ^= 1
        with pytest.raises(PayloadUnreadable):
            decrypt(bytes(damaged))
    for length in (0, 4, 5, 28, 29, 44):
        with pytest.raises(PayloadUnreadable):
            decrypt(sealed[:length])
