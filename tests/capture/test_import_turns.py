"""`manage.py import_turns`: files in, turns with contexts and feedback out; broken and wrong ones refused."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError

from assistants.models import AuditEvent
from capture.exporting import Export, pieces_of
from capture.models import Feedback, Quarantine, Receipt, Turn
from capture.services import receive_turns, scrub_waiting
from tests.capture.conftest import Cast, turn_item
from tests.capture.import_samples import BLOB, SPANS, lines, own_state, run, states, turns, written

__all__ = ["own_state"]
pytestmark = pytest.mark.usefixtures("own_state")


def test_own_lines_go_through_quarantine_and_a_second_time_change_nothing(
    cast: Cast, tmp_path: Path, settings: Any
) -> None:
    records: list[Any] = turns(5)
    records[0] |= {
        "feedback": [{"kind": "thumb", "value": -1}, {"kind": "comment", "text": "Ask Zebulon Quarrington."}]
    }
    path = written(tmp_path, [*records, {"turn": "i-1", "kind": "rating", "value": 4, "id": "f"}])
    done = run(path)
    assert (done.code, Turn.objects.count()) == (0, 0)
    assert done.out.startswith(
        "6 records: 5 turns new, 0 known already; 3 pieces of feedback new, 0 known already; 0 ref"
    )
    assert all(b"Zebulon" not in bytes(row.payload) for row in Quarantine.objects.all())  # encrypted, not readable
    scrub_waiting()
    turn = Turn.objects.get(client_id="i-0")
    assert turn.asked_at.isoformat() == "2026-03-01T10:00:00+00:00"
    assert [r.passage.source for r in turn.retrievals.order_by("rank")] == ["tariffs/leaving.md", "moving.md"]
    assert Feedback.objects.get(kind="comment").text == "Ask [PERSON_1]."
    again = run(path)
    assert again.out.startswith(
        "6 records: 0 turns new, 5 known already; 0 pieces of feedback new, 3 known already; 0 ref"
    )
    assert (Turn.objects.count(), Feedback.objects.count(), Quarantine.objects.count()) == (5, 3, 0)
    assert states(settings) == []
    event = AuditEvent.objects.filter(action="turns.imported").earliest("pk")
    assert (event.assistant, event.details["turns_new"], event.details["format"]) == (cast.bot, 5, "ratchet")


def test_one_object_of_turns_says_where_something_is_wrong(cast: Cast, tmp_path: Path) -> None:
    """As somebody keeps what went to the log API, or what came from it."""
    path = tmp_path / "batch.json"
    path.write_text(json.dumps({"turns": [*turns(2), {"id": "x", "question": "", "response": "r"}, 7]}, indent=1))
    report = tmp_path / "refused.jsonl"
    done = run(path, "--report", str(report))
    assert (done.code, Quarantine.objects.count()) == (3, 2), done.out
    refused = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(row["line"], row["reason"]) for row in refused] == [
        (3, "question: must not be blank"), (4, "not an object"),
    ]  # fmt: skip


def test_our_export_goes_into_another_assistant(cast: Cast, tmp_path: Path) -> None:
    receive_turns(assistant=cast.bot, api_key=None, items=turns(3, question="I am Ada Lovelace. What is the fee?"))
    scrub_waiting()
    path = tmp_path / "export.jsonl.gz"
    lines = pieces_of(Export(turns=Turn.objects.of(cast.bot), format="jsonl"))
    path.write_bytes(gzip.compress(b"".join(lines)))
    assert run(path, assistant="other").code == 0
    scrub_waiting()
    (copy,) = Turn.objects.filter(assistant=cast.other, client_id="i-1")
    assert copy.question == "I am [PERSON_1]. What is the fee?"
    assert copy.retrievals.count() == 2
    assert run(path).out.count("the id was used before with other content") == 1  # what is stored is not what is masked


@pytest.mark.parametrize("name", ["langfuse", "phoenix"])
@pytest.mark.parametrize("container", ["jsonl", "json", "csv", "parquet"])
def test_exports_of_traces_in_every_container(cast: Cast, tmp_path: Path, name: str, container: str) -> None:
    rows: list[dict[str, Any]] = BLOB[:3] if name == "langfuse" else SPANS
    path = tmp_path / f"export.{container}"
    columns = list(dict.fromkeys(key for row in rows for key in row))
    if container == "csv":
        out = io.StringIO()
        writer = csv.writer(out)
        writer.writerow(columns)
        for row in rows:
            writer.writerow(["" if row.get(c) is None else _cell(row[c], name) for c in columns])
        path.write_text(out.getvalue(), encoding="utf-8")
    elif container == "parquet":
        arrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        values = {c: [_arrow(row.get(c)) for row in rows] for c in columns}
        parquet.write_table(arrow.table(values), path)
    else:
        path.write_bytes(lines(rows) if container == "jsonl" else json.dumps(rows, indent=1).encode())
    done = run(path)
    assert (done.code, f"{name} into bot" in done.err) == (0, True), done.err + done.out
    scrub_waiting()
    turn = Turn.objects.get()
    assert (turn.question, turn.response) == ("What does leaving early cost?", "The exit fee is £35. [1]")
    assert turn.retrievals.get(rank=1).passage.source == "leaving.md"
    assert (turn.conversation.external_id, turn.prompt_tokens, turn.model) == ("s-1", 210, "gpt-4o")
    assert turn.asked_at.isoformat() == "2026-03-01T10:00:00+00:00"
    assert "user_key" in turn.metadata
    assert "known already" in run(path).out
    assert Turn.objects.count() == 1


def _cell(value: Any, name: str) -> str:
    """Langfuse writes JSON into cells, pandas (Phoenix) what Python shows."""
    return value if isinstance(value, str) else json.dumps(value) if name == "langfuse" else repr(value)


def _arrow(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, dict) else value


def test_traces_observations_and_scores_in_files_of_their_own(cast: Cast, tmp_path: Path) -> None:
    files = [written(tmp_path, [row], f"{n}.jsonl") for n, row in enumerate([BLOB[1], BLOB[2], BLOB[0]])]
    scores = written(tmp_path, BLOB[3:], "scores.jsonl")
    done = run(*files, scores, report=str(tmp_path / "report.jsonl"))
    assert done.code == 0
    assert "1  scores of a judge model or a program were left out" in done.out
    scrub_waiting()
    assert Turn.objects.get().retrievals.count() == 2
    assert sorted(Feedback.objects.values_list("kind", flat=True)) == ["comment", "correction", "thumb"]
    late = written(tmp_path, [{**BLOB[3], "id": "s9", "value": 1, "comment": None}], "late.jsonl")
    assert run(late, format="langfuse").code == 0
    scrub_waiting()
    assert Feedback.objects.filter(kind="thumb").count() == 2


def test_a_table_with_a_mapping(cast: Cast, tmp_path: Path) -> None:
    path = tmp_path / "chats.csv"
    path.write_text(
        "Nr;Frage;Antwort;Gut\n1;Was kostet das?;35 Pfund.;ja\n2;Und dann?;Nichts.;no\n3;;x;\n", encoding="utf-8"
    )
    done = run(path, map="id=Nr,question=Frage,response=Antwort,thumb=Gut")
    assert done.code == 3
    assert "2 turns new" in done.out
    assert "1  no question" in done.out
    (tmp_path / "map.json").write_text('{"id": "Nr", "question": "Frage", "response": "Antwort"}', encoding="utf-8")
    again = run(path, map_file=str(tmp_path / "map.json"))
    assert "0 turns new, 2 known already" in again.out


HOSTILE: list[Any] = [
    turn_item(id="ok-1"),
    b'{"id": "x", "question": \n',
    b"\xff\xfe\n",
    turn_item(id="bad", question="  "),
    turn_item(id="bad-2", contexts=[{"text": "a", "rank": 1}, {"text": "b", "rank": 1}]),
    turn_item(id="ada@example.org", surprise=1),
    turn_item(id=["a"], response="x"),
    turn_item(id="old", time="1970-01-01T00:00:00Z"),
    {"turn": "nobody", "kind": "thumb", "value": 1},
    {"turn": ["x"], "kind": "thumb", "value": 1},
    b"[" * 100_000 + b"\n",
    "just text",
    turn_item(id="ok-2", question="<script>alert(1)</script>\x00\ud800"),
]


def test_hostile_lines_are_reported_by_line_and_reason_and_nothing_of_them(cast: Cast, tmp_path: Path) -> None:
    report = tmp_path / "refused.jsonl"
    done = run(written(tmp_path, HOSTILE), report=str(report))
    assert done.code == 3
    assert "2 turns new" in done.out
    found = [json.loads(line) for line in report.read_text().splitlines()]
    assert {row["line"] for row in found} == set(range(2, 13))
    by_line = {row["line"]: row for row in found}
    assert [by_line[n]["reason"] for n in (2, 3, 11, 12)] == [
        "not JSON",
        "not UTF-8",
        "nested too deeply",
        "not an object",
    ]
    assert by_line[4] == {"file": "log.jsonl", "line": 4, "reason": "question: must not be blank", "id": "bad"}
    assert "same rank" in by_line[5]["reason"]
    assert "id" not in by_line[6]  # it is somebody's address
    assert by_line[8]["reason"] == "time: must lie between the year 2000 and tomorrow"
    assert by_line[9]["reason"] == "turn: There is no such turn"
    assert oct(report.stat().st_mode & 0o777) == "0o600"
    assert done.out.count("\n") == 1 + 1 + len({row["reason"] for row in found})


def test_a_dry_run_counts_and_writes_nothing(cast: Cast, tmp_path: Path, settings: Any) -> None:
    receive_turns(assistant=cast.bot, api_key=None, items=[turn_item(id="ok-1")])
    receipts, waiting = Receipt.objects.count(), Quarantine.objects.count()
    done = run(written(tmp_path, HOSTILE), dry_run=True)
    assert done.code == 3
    assert done.out.startswith("13 records: 1 turn would be new, 1 known already;")
    assert "line 2: not JSON" in done.err
    assert (Receipt.objects.count(), Quarantine.objects.count()) == (receipts, waiting)
    assert not AuditEvent.objects.filter(action="turns.imported").exists()
    assert states(settings) == []


def test_a_dry_run_says_what_the_import_then_does(cast: Cast, tmp_path: Path) -> None:
    """Ids that stand there twice, other content under a known id, feedback on turns that nobody has posted."""
    receive_turns(assistant=cast.bot, api_key=None, items=[turn_item(id="here")])
    path = written(tmp_path, [
        turn_item(id="here"), turn_item(id="here", question="Another?"), turn_item(id="a"), turn_item(id="a"),
        turn_item(id="a", question="Another?"), {"turn": "a", "kind": "thumb", "value": 1},
        {"turn": "here", "kind": "thumb", "value": 1}, {"turn": "nobody", "kind": "thumb", "value": 1},
        {"turn": "4c5fd2ae-9f4e-4a9f-8a59-0d9a8a3b2c11", "kind": "thumb", "value": 1},
    ])  # fmt: skip
    dry = run(path, dry_run=True).out.splitlines()
    done = run(path).out.splitlines()
    assert dry[0].startswith("9 records: 1 turn would be new, 2 known already; 2 pieces of feedback would be new")
    assert [line for line in dry if line.startswith("  ")] == [line for line in done if line.startswith("  ")]
    assert "4 refused" in dry[0]
    assert "4 refused" in done[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"assistant": "nobody"}, "no assistant 'nobody' (known: bot, other)"),
        ({"batch": 0}, "--batch must be from 1 to 1000"),
        ({"batch": 1001}, "--batch must be from 1 to 1000"),
        ({"max_waiting": 0}, "--max-waiting must be at least 1"),
        ({"map": "question"}, "The mapping does not work"),
        ({"map": "question=q,response=r", "format": "openai"}, "for --format csv"),
        ({"map_file": "none.json"}, "cannot be read"),
        ({"report": "no/such/folder/report.jsonl"}, "report"),
    ],
)
def test_what_cannot_work_says_so_in_one_line(cast: Cast, tmp_path: Path, options: dict[str, Any], said: str) -> None:
    path = written(tmp_path, turns(1))
    with pytest.raises(CommandError) as caught:
        run(path, **options)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not Receipt.objects.exists()


def test_a_report_never_writes_over_what_is_imported(cast: Cast, tmp_path: Path) -> None:
    path = written(tmp_path, turns(1))
    before = Path(path).read_bytes()
    with pytest.raises(CommandError, match="would write over"):
        run(path, report=path)
    assert Path(path).read_bytes() == before


def test_another_assistants_turns_stay_its_own(cast: Cast, tmp_path: Path) -> None:
    receive_turns(assistant=cast.other, api_key=None, items=turns(1))
    path = written(tmp_path, [{"turn": "i-0", "kind": "thumb", "value": 1}])
    done = run(path)
    assert (done.code, "There is no such turn" in done.out) == (3, True)
    assert run(path, assistant="other").code == 0


def test_a_file_that_is_cut_off_keeps_what_came_before(cast: Cast, tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl.gz"
    whole = gzip.compress(lines(turns(400)), 1)
    path.write_bytes(whole[: len(whole) - 200])
    with pytest.raises(
        CommandError, match=r"cut off or damaged after record \d+\. What came before was taken\. Export"
    ):
        run(path, batch=10)
    assert 300 < Receipt.objects.count() < 400
    with pytest.raises(CommandError, match=r"record \d+\. Export it again"):
        run(path, batch=10, dry_run=True)
