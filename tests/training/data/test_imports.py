"""Files of examples: every format, what is refused by line, and that nothing is readable before it is scrubbed."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from assistants.models import Assistant
from assistants.performing import perform_here
from tests.factories import CONTEXTS, make_assistant, make_turn
from tests.training.data.test_build import ANSWERS, HANDOFF, build, resolved
from training.data import import_files
from training.data.exports import openai_lines, own_lines, parquet_pieces, trl_lines
from training.data.import_files import ImportFailed, lines_of
from training.data.services import delete_set, import_set
from training.models import CuratedRow, CuratedSet
from training.services import NotPossible

DECLINE = "I can't find that in the documents."


@pytest.fixture
def assistant(db: None) -> Assistant:
    return make_assistant(decline_sentence=DECLINE, handoff_sentence=HANDOFF)


def take_in(assistant: Assistant, lines: Any, name: str = "Ours") -> CuratedSet:
    return take_file(
        assistant, "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines).encode(), name
    )


def take_file(assistant: Assistant, content: bytes, name: str) -> CuratedSet:
    curated = import_set(assistant=assistant, name=name, content=content)
    assert b"question" not in bytes(curated.sealed or b"")
    perform_here(curated)
    curated.refresh_from_db()
    return curated


def test_what_was_exported_comes_back_as_it_was(assistant: Assistant) -> None:
    for question, answer in ANSWERS.items():
        resolved(assistant, question, answer, verdict="bad", logged="Tell us 10 days before you move. [2]")
    dataset = build(assistant, missing_oracle_share=0, validation_share=0)
    for name, made in (
        ("own", own_lines(dataset, "train", "sft")),
        ("sft", trl_lines(dataset, "train", "sft")),
        ("dpo", trl_lines(dataset, "train", "dpo")),
        ("dpo of OpenAI", openai_lines(dataset, "train", "dpo")),
        ("sft in Parquet", parquet_pieces(dataset, "train", "sft")),
        ("dpo in Parquet", parquet_pieces(dataset, "train", "dpo")),
    ):
        curated = take_file(assistant, b"".join(made), name)
        assert (curated.state, curated.refused, curated.error) == ("succeeded", 0, ""), curated.problems
        again = build(
            assistant, turns=False, curated_sets=(name,), missing_oracle_share=0, validation_share=0,
            weight_imported=2, per_sentence_cap=20,
        )  # fmt: skip
        assert again.state == "succeeded", again.error
        method: Any = "dpo" if name.startswith("dpo") else "sft"

        def rows(version: Any, method: Any = method) -> set[str]:
            found = b"".join(trl_lines(version, "train", method)).decode().splitlines()
            return {json.dumps({k: v for k, v in json.loads(line).items() if k != "weight"}) for line in found}

        assert rows(again) == rows(dataset) or (method == "dpo" and rows(again) <= rows(dataset))


def test_other_peoples_chats_are_questions_with_their_history(assistant: Assistant) -> None:
    curated = take_in(
        assistant,
        [
            {"messages": [
                {"role": "system", "content": "Be nice."}, {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "Can you cook?"},
                {"role": "assistant", "content": DECLINE},
            ]},
            {"prompt": "What is 2 + 2?", "completion": "It is 5.", "label": False},
            {"prompt": "Who are you?", "chosen": "A helper.", "rejected": "Nobody."},
        ],
    )  # fmt: skip
    assert (curated.rows, curated.refused) == (3, 0), curated.problems
    chat, wrong, pair = curated.examples.order_by("position")
    assert (chat.question, chat.kind, chat.history[0]) == (
        "Can you cook?",
        "decline",
        {"role": "user", "content": "Hi"},
    )
    assert (wrong.sentences, wrong.rejected) == ([], "It is 5.")
    assert (pair.sentences[0]["text"], pair.rejected) == ("A helper.", "Nobody.")


def test_personal_data_is_masked_before_anything_is_stored(assistant: Assistant) -> None:
    text = "Write to jane.roe@example.com please."
    curated = take_in(assistant, [{"prompt": f"My mail is jane.roe@example.com. {text}", "completion": text}])
    assert curated.masked >= 2
    row = CuratedRow.objects.get()
    assert "jane.roe" not in json.dumps([row.question, row.sentences])
    assert "[EMAIL_1]" in row.question
    assert "[EMAIL_1]" in row.sentences[0]["text"]
    assert curated.sealed is None


def test_sources_of_passages_are_masked_too(assistant: Assistant) -> None:
    passage = {"rank": 1, "title": "Fees", "source": "letters/jane.roe@example.com.md", "text": "It costs £35."}
    row = {"question": "What?", "contexts": [passage], "sentences": [{"text": "It costs £35.", "refs": [[1, 0]]}]}
    take_in(assistant, [row])
    (context,) = CuratedRow.objects.get().contexts
    assert "jane.roe" not in context["source"]
    assert (context["title"], context["text"]) == ("Fees", "It costs £35.")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "not JSON"),
        ("[]", "a JSON object"),
        ({"text": "x"}, "none of: question, messages, prompt"),
        ({"prompt": "x"}, "needs a completion"),
        ({"prompt": "x", "completion": "y", "label": "no"}, "label must be"),
        ({"prompt": [{"role": "tool", "content": "x"}], "completion": "y"}, "role (system, user or assistant)"),
        ({"prompt": [{"role": "assistant", "content": "x"}], "completion": "y"}, "ends with a question"),
        ({"prompt": "x", "completion": "  "}, "between 1 and"),
        ({"prompt": "Passages:\n# A\n[1] One.\n\nQuestion: ?", "completion": "[1] One.", "x": 1}, ""),
        ({"prompt": "Passages:\nfoo\n\nQuestion: ?", "completion": "y"}, "another prompt format"),
        ({"messages": [{"role": "user", "content": "x"}]}, "end with the assistant"),
        ({"question": "x"}, "neither an answer"),
        ({"question": "x", "sentences": [{"text": "a", "refs": [[1, 0]]}]}, "outside its contexts"),
        ({"question": "x", "sentences": [{"text": "a", "refs": "b"}]}, "sentences are"),
        ({"question": "x", "rejected": "y", "contexts": [{"rank": 0, "text": "t"}]}, "contexts are"),
        ({"question": "x", "rejected": "y", "evidence": [[1, 0, True]]}, "evidence is"),
        ('{"prompt": "a\\u0000b", "completion": "c"}', "NUL"),
        ('{"prompt": "a\\ud800b", "completion": "c"}', "half of a character"),
        ('{"prompt": "a\\ud83d\\ude00b", "completion": "c"}', ""),
        ({"prompt": "x" * 500_000, "completion": "y"}, "longer than"),
    ],
)  # fmt: skip
def test_a_refused_line_is_named_and_the_others_come_in(assistant: Assistant, line: Any, why: str) -> None:
    curated = take_in(assistant, [line, {"prompt": "Fine?", "completion": "Yes."}])
    if not why:
        assert curated.refused == 0, curated.problems
        return
    assert (curated.rows, curated.refused) == (1, 1)
    assert curated.problems[0]["line"] == 1
    assert why in curated.problems[0]["why"]


def parquet(rows: list[dict[str, Any]]) -> bytes:
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return bytes(buffer.getvalue())


def test_rows_of_parquet_are_lines(assistant: Assistant, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several methods in one table each row has what is its own; the others' columns are empty there."""
    rows = [
        {"prompt": "A fee?", "completion": "Yes.", "label": None, "chosen": None, "rejected": None},
        {"prompt": "No fee?", "completion": None, "label": None, "chosen": "No.", "rejected": "Yes."},
        {"prompt": None, "completion": None, "label": True, "chosen": None, "rejected": None},
    ]
    curated = take_file(assistant, parquet(rows), "Mixed")
    assert (curated.rows, [problem["line"] for problem in curated.problems]) == (2, [3])
    whole = parquet([{"prompt": "x" * 1000, "completion": "y"}] * 50)
    for name, value, said in (("MAX_ROWS", 49, "50 rows"), ("MAX_EXPANDED", 40_000, "Unpacked")):
        with monkeypatch.context() as patch:
            patch.setattr(import_files, name, value)
            with pytest.raises(ImportFailed, match=said):
                lines_of(whole)
    assert len(lines_of(whole)) == 50


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PAR1 and no more", "cannot be read"), (b"PAR1" + b"\x00" * 100 + b"PAR1", "cannot be read"),
        (parquet([{"prompt": "x", "completion": "y"}])[:-20], "cannot be read"),
        (b"PK\x03\x04rest", "an archive"), (gzip.compress(b"{}", mtime=0), "gzip"),
        ("{}".encode("utf-16"), "not UTF-8"),
    ],
)  # fmt: skip
def test_files_that_are_no_rows_say_what_to_do(content: bytes, said: str) -> None:
    with pytest.raises(ImportFailed, match=said):
        lines_of(content)


def test_a_date_that_python_cannot_hold_is_said_with_its_place() -> None:
    buffer = pa.BufferOutputStream()
    when = pa.array([0, 2**62], pa.timestamp("us"))
    pq.write_table(pa.table({"prompt": ["a", "b"], "completion": ["c", "d"], "when": when}), buffer)
    with pytest.raises(ImportFailed, match="from 1 to 2 holds a date"):
        lines_of(bytes(buffer.getvalue()))


def test_a_file_of_nothing_is_said(assistant: Assistant) -> None:
    curated = take_in(assistant, ["{", "{"])
    assert (curated.state, curated.rows) == ("failed", 0)
    assert curated.error == "None of the 2 rows could be taken. The first: line 1, it is not JSON."
    binary = import_set(assistant=assistant, name="Binary", content=b"\xff\xfe\x00x")
    perform_here(binary)
    binary.refresh_from_db()
    assert "not UTF-8" in binary.error
    blank = import_set(assistant=assistant, name="Blank", content=b"\xef\xbb\xbf\n\n")
    perform_here(blank)
    blank.refresh_from_db()
    assert (blank.state, blank.error) == ("failed", "The file has no rows.")
    for name, content in (("Ours", b"{}"), ("", b"{}"), ("Empty", b" \n")):
        with pytest.raises(NotPossible):
            import_set(assistant=assistant, name=name, content=content)
    delete_set(curated=curated, actor=None)
    assert not CuratedSet.objects.filter(name="Ours").exists()


def test_started_again_it_holds_every_row_once(assistant: Assistant) -> None:
    make_turn(assistant, contexts=CONTEXTS)
    curated = import_set(assistant=assistant, name="Twice", content=b'{"prompt": "A?", "completion": "B."}')
    sealed = curated.sealed
    perform_here(curated)
    CuratedSet.objects.filter(pk=curated.pk).update(state="queued", sealed=sealed)
    curated.refresh_from_db()
    perform_here(curated)
    curated.refresh_from_db()
    assert (curated.rows, curated.examples.count()) == (1, 1)
