from __future__ import annotations

import base64
import json
import time
from datetime import timedelta
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.management import CommandError, call_command
from django.core.management.base import SystemCheckError
from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from django.test import override_settings
from django.utils import timezone

from assistants.vault import encrypt
from capture.models import Quarantine, Receipt
from config import doctor
from config.management.commands import up
from config.schema import schema_problem
from serving.models import Deployment
from tests.factories import make_adapter, make_assistant

pytestmark = pytest.mark.django_db


def said(found: list[doctor.Finding], level: str) -> str:
    return "\n".join(f"{finding.about}: {finding.text}" for finding in found if finding.level == level)


def test_every_group_is_looked_at_and_an_engine_that_is_off_is_no_error_while_nothing_runs() -> None:
    make_assistant("helpdesk")
    found = doctor.examine()
    groups = ("Installation", "Machine", "Settings", "Database", "Processes", "Capture", "Work", "Search", "Live")
    assert list(dict.fromkeys(finding.about for finding in found)) == list(groups)
    assert said(found, "error") == ""
    assert "No engine answers" in said(found, "note")
    assert "pgvector" in said(found, "ok")


def test_what_is_held_in_quarantine_is_a_warning_with_what_to_do() -> None:
    assistant = make_assistant("helpdesk")
    receipt = Receipt.objects.create(assistant=assistant, client_id="t1", payload_digest="0")
    Quarantine.objects.create(
        assistant=assistant, receipt=receipt, payload=b"x", state="held", conversation_key="c", kind="turn"
    )
    found = [finding for finding in doctor.examine() if finding.level == "warning" and finding.about == "Capture"]
    assert [finding.text for finding in found] == ["helpdesk: 1 captured items are held."]
    assert "Quarantine" in found[0].hint


def test_a_damaged_live_adapter_is_an_error_and_the_command_ends_with_1(tmp_path: Path) -> None:
    assistant = make_assistant("helpdesk")
    Deployment.objects.create(assistant=assistant, adapter=make_adapter(assistant, folder=str(tmp_path / "gone")))
    out = StringIO()
    with pytest.raises(SystemExit) as ended:
        call_command("doctor", "--json", stdout=out)
    assert ended.value.code == 1
    answer = json.loads(out.getvalue())
    assert answer["worst"] == "error"
    (live,) = [f["text"] for f in answer["findings"] if f["about"] == "Live"]
    assert "is damaged" in live


def test_a_look_that_breaks_is_a_finding_that_tells_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(doctor, "_machine", broken)
    found = doctor.examine()
    assert "Machine: This could not be looked at (RuntimeError)." in said(found, "error")
    assert "hunter2" not in str(found)
    assert "Live" in {finding.about for finding in found}


def test_a_system_check_that_fails_stands_in_the_list() -> None:
    with override_settings(DEBUG=True, ALLOWED_HOSTS=["*"]):
        found = doctor.examine()
    assert "W004" in said(found, "warning")


def test_stale_work_is_an_error() -> None:
    from training.models import Synthesis

    assistant = make_assistant("helpdesk")
    old = timezone.now() - timedelta(minutes=5)
    Synthesis.objects.create(assistant=assistant, state="running", heartbeat_at=old)
    assert "show no life" in said(doctor.examine(), "error")


def test_a_database_of_another_version_is_named_before_anything_asks_it() -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE capture_turn RENAME COLUMN withheld TO held_back")
    found = doctor.examine()
    assert "capture_turn has no column withheld. (ratchet.E011)" in said(found, "error")
    assert {finding.about for finding in found if finding.level == "error"} == {"Settings"}
    assert "Live" not in {finding.about for finding in found}
    with pytest.raises(CommandError, match=r"no column withheld.*Check out the version"):
        up._migrate()
    with pytest.raises(SystemCheckError, match="E011"):
        call_command("migrate", skip_checks=False, verbosity=0)


def test_a_column_that_nothing_fills_and_a_table_that_is_missing_are_named_too() -> None:
    assert schema_problem() is None
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE capture_passage ADD COLUMN spare int")
        assert schema_problem() is None  # somebody's own, and empty: no insert fails
        cursor.execute("ALTER TABLE capture_passage ALTER COLUMN spare SET NOT NULL")
        assert "capture_passage has a column spare that nothing fills" in (schema_problem() or "")
        cursor.execute("DROP TABLE capture_intakecount")
        assert "no table capture_intakecount" in (schema_problem() or "")


def test_a_database_that_a_later_version_has_migrated_is_an_error() -> None:
    MigrationRecorder(connection).record_applied("capture", "0002_later")
    MigrationRecorder(connection).record_applied("gone", "0001_initial")  # of an app that was uninstalled: no harm
    assert "does not know capture.0002_later." in said(doctor.examine(), "error")
    assert "gone" not in said(doctor.examine(), "error")


def test_payloads_of_a_key_that_is_lost_are_an_error() -> None:
    """After a restore without the secrets, say."""
    receipt = Receipt.objects.create(assistant=make_assistant("helpdesk"), client_id="t1", payload_digest="0")
    with override_settings(RATCHET_DATA_KEY=base64.urlsafe_b64encode(b"o" * 32).decode()):
        payload = encrypt(b"{}")
        Quarantine.objects.create(assistant=receipt.assistant, receipt=receipt, payload=payload, conversation_key="c")
        assert "closed with a key" not in said(doctor.examine(), "error")
    assert "1 encrypted payloads were closed with a key that is not in RATCHET_DATA_KEY" in said(
        doctor.examine(), "error"
    )


def test_a_clock_that_differs_from_the_database_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "time", SimpleNamespace(time=lambda: time.time() + 90))
    assert "Its clock differs from ours by 90 s." in said(doctor.examine(), "warning").replace("89 s", "90 s")


def test_people_read_signs_and_counts() -> None:
    out = StringIO()
    call_command("doctor", stdout=out)
    text = out.getvalue()
    assert "Database\n  ✓ PostgreSQL" in text
    assert text.strip().endswith("warnings.")
