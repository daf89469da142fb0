"""Files as records, mappings, and the spool: hostile bytes cost a record and never the file or the memory."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capture.imports import grouping, jsonarray, mapped, sources
from capture.imports.formats import format_of
from capture.imports.grouping import Spool, parts_for
from capture.imports.jsonarray import TextBehind, elements
from capture.imports.mapped import TARGETS, ColumnMap, map_of_header, merged, parse_map, read_map
from capture.imports.opening import open_source
from capture.imports.progress import Display, duration
from capture.imports.units import ImportProblem
from capture.payloads import FeedbackItem, TurnItem

GOOD = json.dumps({"id": "a", "question": "Hi?", "response": "Hello."}).encode()


def rows(path: Path, skip: int = 0) -> list[tuple[int, str | None]]:
    """(line, problem or None) of each."""
    return [(row.line, row.problem or None) for row in open_source(path, 0).rows(skip)]


def written(folder: Path, content: bytes, name: str = "log.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def test_broken_lines_cost_themselves_only(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sources, "MAX_RECORD", 10_000)
    lines = [GOOD, b"", b'{"id": "b", "question": ', b"\xff\xfe caf\xe9", b"[" * 5_000, b'"' + b"x" * 20_000 + b'"',
             b'{"n": ' + b"9" * 5_000 + b"}", b'{"a": "\\ud800"}', b'{"a": NaN}', GOOD]  # fmt: skip
    found = rows(written(tmp_path, b"\n".join(lines)))
    assert found == [
        (1, None), (3, "not JSON"), (4, "not UTF-8"), (5, "nested too deeply"), (6, "longer than 32 MB"),
        (7, "not JSON"), (8, None), (9, None), (10, None),
    ]  # fmt: skip
    assert rows(written(tmp_path, b"\n".join(lines)), skip=6) == found[6:]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 20])
def test_an_array_is_cut_at_its_elements_wherever_the_chunks_end(size: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(jsonarray, "_CHUNK", size)
    values = [{"a": 'x"]},{\\', "b": [1, [2]]}, [], "a,b", 1.5, {"c": {"d": "é\n"}}]
    for text in (json.dumps(values), json.dumps(values, indent=2)):
        assert [json.loads(part or b"") for part in elements(io.BytesIO(text.encode()), 1000)] == values
    assert list(elements(io.BytesIO(b" [ ] "), 1000)) == []
    assert list(elements(io.BytesIO(b'["' + b"x" * 50 + b'", 1]'), 20)) == [None, b" 1"]
    for tail in (b"]", b" \n\n[3]", b"x"):  # two arrays in one file, say: the second is not passed over in silence
        found = elements(io.BytesIO(b"[1, [2]]" + tail), 1000)
        assert [next(found), next(found)] == [b"1", b" [2]"]
        with pytest.raises(TextBehind):
            next(found)
    with pytest.raises(EOFError):
        list(elements(io.BytesIO(b'[1, {"a": "]'), 1000))


@given(st.binary(max_size=200))
def test_no_bytes_break_the_cutter(data: bytes) -> None:
    with contextlib.suppress(EOFError, TextBehind):
        list(elements(io.BytesIO(b"[" + data), 50))


def test_containers_are_told_by_their_bytes(tmp_path: Path) -> None:
    spread = json.dumps({"data": [1]}, indent=2).encode()
    cases = {
        b"\xef\xbb\xbf" + GOOD + b"\n" + GOOD: "lines", b'{"broken": }\n' + GOOD: "lines", b"\n\n" + GOOD: "lines",
        spread: "object", b"  [\n" + GOOD + b"]": "array", b"question,response\na,b\n": "table",
        GOOD + b"\n" * 3: "lines", b"a;b\n1;2\n": "table",
    }  # fmt: skip
    for content, container in cases.items():
        for zipped in (False, True):
            path = written(tmp_path, gzip.compress(content) if zipped else content)
            source = open_source(path, 0)
            assert (source.container, source.zipped) == (container, zipped), content
            assert all(row.problem in ("", "not JSON") for row in source.rows())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "There is no file"), (b"", "empty"), (b"  \n", "empty"), ("id\n".encode("utf-16"), "UTF-16"),
        (b"\x7fELF\x00\x00", "not text"), (b"\x1f\x8bnot gzip", "damaged"), (b"PAR1 and no more", "Parquet"),
        (b"caf\xe9,b\n", "not UTF-8"), ("{}".encode("utf-16-le"), "UTF-16"), ("[1]".encode("utf-16-be"), "UTF-16"),
        ("a,b".encode("utf-32"), "UTF-32"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_read_say_so_in_one_line(tmp_path: Path, content: bytes | None, said: str) -> None:
    path = tmp_path / "log.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImportProblem, match=said) as caught:
        open_source(path, 0)
    assert "\n" not in str(caught.value)


def test_text_behind_an_array_is_a_refused_record(tmp_path: Path) -> None:
    assert rows(written(tmp_path, b"[" + GOOD + b"]\n[" + GOOD + b"]")) == [
        (1, None), (2, "text behind the end of the array: one array a file"),
    ]  # fmt: skip
    assert rows(written(tmp_path, b"[" + GOOD + b"]\n\n")) == [(1, None)]


@pytest.mark.parametrize("size", [3, 1 << 20])
@pytest.mark.parametrize("indent", [None, 2])
def test_turns_within_an_object_are_read_one_after_the_other(
    tmp_path: Path, monkeypatch: Any, indent: int | None, size: int
) -> None:
    monkeypatch.setattr(jsonarray, "_CHUNK", size if indent is None else 1 << 20)
    turns = [json.loads(GOOD) | {"id": str(n), "metadata": {"said": '"turns": [', "n": [n]}} for n in range(3)]
    page = json.dumps({"count": 3, "note": 'a "turns" b', "turns": turns, "next": None}, indent=indent).encode()
    for content in (page, b"\xef\xbb\xbf" + page + b"\n", gzip.compress(page)):
        source = open_source(written(tmp_path, content), 0)
        assert source.container == "within"
        found = list(source.rows())
        assert [row.line for row in found] == [1, 2, 3]
        assert [row.data for row in found] == turns
        assert [row.data for row in source.rows(skip=2)] == turns[2:]
        assert format_of([source], None, None).name == "ratchet"
    with pytest.raises(ImportProblem, match="cut off or damaged after record 2"):
        rows(written(tmp_path, page[: page.index(b'"id": "2"') + 20]))


def test_what_stands_around_the_turns_of_an_object_is_not_passed_over(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(sources, "MAX_RECORD", 2_000)
    behind = "no end of the object, or another list, behind the list: one list a file"
    inner = b'{"turns": [' + GOOD + b", nonsense, {" + b'"x": "' + b"y" * 3_000 + b'"}, ' + GOOD + b"]"
    read = [(1, None), (2, "not JSON"), (3, "longer than 32 MB"), (4, None)]
    assert rows(written(tmp_path, inner + b"}")) == read
    for tail in (b"", b"} more", b', "feedback": [{"turn": "a", "kind": "thumb"}]}', b"}" + inner + b"}"):
        assert rows(written(tmp_path, inner + tail)) == [*read, (5, behind)]


def test_lists_of_turns_of_other_people_stay_what_they_were(tmp_path: Path) -> None:
    said = b'{"turns": [{"role": "user", "content": "Hi?"}]}'
    own = b'{"question": "q", "response": "r", "feedback": [{"kind": "thumb", "value": 1}]}'
    lines = b'{"turns": [' + GOOD + b"]}"
    spread = json.dumps(json.loads(own), indent=1).encode()
    for content, container in {said: "lines", own + b"\n" + own: "lines", lines + b"\n" + lines: "lines",
                               spread: "object", b'{"a": {"turns": [' + GOOD + b"]}}": "lines"}.items():  # fmt: skip
        assert open_source(written(tmp_path, content), 0).container == container, content


@given(st.binary(max_size=200))
def test_no_bytes_break_the_search_for_a_list(data: bytes) -> None:
    place = jsonarray.list_within(b'{"a": ' + data, frozenset({b"turns"}))
    assert place is None or (b'{"a": ' + data)[place : place + 1] == b"["


def test_a_file_that_is_cut_off_gives_what_came_before(tmp_path: Path) -> None:
    whole = gzip.compress(b"\n".join([GOOD] * 20_000), 1)
    source = open_source(written(tmp_path, whole[: len(whole) // 2]), 0)
    with pytest.raises(ImportProblem, match="cut off or damaged after record"):
        list(source.rows())
    assert 0 < source.records < 20_000


def test_tables_with_quotes_other_marks_and_bad_rows(tmp_path: Path) -> None:
    content = b'question;response\n"What; \n""then""?";Yes\nonly one\n\ncaf\xe9;x\nlast;row\n'
    source = open_source(written(tmp_path, content, "log.csv"), 0)
    assert source.columns == ("question", "response")
    found = list(source.rows())
    assert [row.problem for row in found] == ["", "other columns than the header", "not UTF-8", ""]
    assert found[0].data == {"question": 'What; \n"then"?', "response": "Yes"}
    assert found[3].line == 7


def test_parquet_rows_come_batch_by_batch(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "log.parquet"
    table = arrow.table({"question": [f"q{n}" for n in range(600)], "contexts": [[{"text": "a"}]] * 600})
    parquet.write_table(table, path)
    source = open_source(path, 0)
    assert source.columns == ("question", "contexts")
    found = list(source.rows(skip=599))
    assert [(row.line, row.data) for row in found] == [(600, {"question": "q599", "contexts": [{"text": "a"}]})]
    assert source.records == 600


def test_a_date_that_python_cannot_hold_costs_its_row_only(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "log.parquet"
    times = arrow.array([0, 2**62, 1, 2], arrow.timestamp("us"))
    parquet.write_table(arrow.table({"question": ["a", "b", "c", "d"], "time": times}), path)
    found = list(open_source(path, 0).rows())
    assert [row.problem for row in found] == ["", "a date or number that cannot be read", "", ""]
    assert [row.data["question"] for row in found if row.data] == ["a", "c", "d"]


# --- Mappings ---------------------------------------------------------------------------------------------------------

COLUMN = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\x00"), min_size=1, max_size=12
).filter(lambda name: bool(name.strip()))
OTHERS = [target for target in TARGETS if target not in ("question", "response")]
MAPS = st.builds(
    lambda base, rest: ColumnMap({**base, **rest}),
    st.fixed_dictionaries({"question": st.tuples(COLUMN), "response": st.tuples(COLUMN)}),
    st.dictionaries(st.sampled_from([*OTHERS, "metadata.a", "metadata.b c"]), st.tuples(COLUMN), max_size=6),
)


@given(MAPS, st.lists(COLUMN, min_size=1, max_size=4))
def test_a_mapping_reads_back_what_it_writes(mapping: ColumnMap, contexts: list[str]) -> None:
    several = ColumnMap({**mapping.columns, "contexts": tuple(contexts)})
    assert parse_map(several.text()) == several


@given(st.text(max_size=60) | st.text(alphabet='question=,"response', max_size=60))
def test_no_text_breaks_the_mapping_parser(given_text: str) -> None:
    said = ""
    try:
        mapping = parse_map(given_text)
    except ImportProblem as error:
        said = str(error)
    assert "\n" not in said
    assert said.startswith("The mapping does not work") or {"question", "response"} <= mapping.columns.keys()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "must name"), ("question=q", "must name the columns of question and response"), ("question", "no pair"),
        ("question=q,response=", "response names no column"), ("question=a,question=b,response=c", "given twice"),
        ("question=a,response=b,colour=c", "no 'colour'"), ('question=a,response="b', "quotes"),
        ("question=a,response=b,metadata.=c", "metadata"), ('question="a"b,response=c', "quotes"),
        ("=a,question=q,response=r", "no pair"), ("question=q,,response=r", "no pair"),
    ],
)  # fmt: skip
def test_bad_mappings_say_what_is_wrong(text: str, said: str) -> None:
    with pytest.raises(ImportProblem, match=said):
        parse_map(text)


def test_columns_with_commas_and_quotes_are_written_in_quotes() -> None:
    mapping = parse_map('question="What, ""then""?" , response = The answer,contexts=5" pipe')
    assert mapping.columns == {"question": ('What, "then"?',), "response": ("The answer",), "contexts": ('5" pipe',)}
    assert parse_map(mapping.text()) == mapping


def test_mapping_files_and_headers(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text(json.dumps({"question": "Q", "response": "A", "contexts": ["c1", "c2"]}), encoding="utf-8")
    assert read_map(path).columns["contexts"] == ("c1", "c2")
    over = merged(read_map(path), parse_map("question=Other,response=A"))
    assert over is not None
    assert over.columns["question"] == ("Other",)
    for content in (b"[]", b"{", b"\xff", b'{"question": 1}', b'{"question": "Q"}'):
        path.write_bytes(content)
        with pytest.raises(ImportProblem):
            read_map(path)
    with pytest.raises(ImportProblem, match="cannot be read"):
        read_map(tmp_path / "none.json")
    assert map_of_header(["question", "answer"]) is None
    assert map_of_header(["question", "response", "metadata.site", "x"]) == ColumnMap(
        {name: (name,) for name in ("question", "response", "metadata.site")}
    )


def test_a_row_with_everything_is_a_turn_with_feedback() -> None:
    mapping = parse_map(
        "id=nr,question=Frage,response=Antwort,contexts=p1,contexts=p2,time=when,conversation=chat,latency_ms=ms,"
        "user=mail,thumb=ok,comment=note,tags=tags,metadata.site=site,rating=stars,model=m,history=before"
    )
    row = {
        "nr": "4711", "Frage": " What? ", "Antwort": "That.", "p1": "First.",
        "p2": '[{"text": "Second.", "score": 0.5}]', "when": "2026-03-01 10:00", "chat": "c", "ms": "12.5",
        "mail": "ada@example.org", "ok": "👍", "note": "Fine.",
        "tags": "web", "site": "north", "stars": "4", "m": "gpt 4o!",
        "before": '[{"role": "user", "content": "Hi"}]',
    }  # fmt: skip
    converted = mapped.convert(row, mapping)
    turn = TurnItem.model_validate(converted.turns[0])
    assert (turn.id, turn.question, turn.latency_ms, turn.model) == ("4711", "What?", 12.5, "gpt 4o_")
    assert [c.text for c in turn.contexts] == ["First.", "Second."]
    assert turn.metadata == {"site": "north", "user": "ada@example.org"}
    assert [m.content for m in turn.history] == ["Hi"]
    feedback = [FeedbackItem.model_validate(payload) for payload in converted.feedback]
    assert [(f.kind, f.value, f.text) for f in feedback] == [
        ("thumb", 1, ""), ("rating", 4, ""), ("comment", None, "Fine."),
    ]  # fmt: skip
    for missing, reason in (("Frage", "no question"), ("Antwort", "no response"), ("when", "a time")):
        with pytest.raises(mapped.Refused, match=reason):
            mapped.convert({**row, missing: "soon" if missing == "when" else " "}, mapping)


def test_what_a_file_is_and_what_it_is_not(tmp_path: Path) -> None:
    own = open_source(written(tmp_path, GOOD, "own.jsonl"), 0)
    chat = open_source(written(tmp_path, b'{"messages": [{"role": "user", "content": "Hi"}]}', "chat.jsonl"), 1)
    odd = open_source(written(tmp_path, b'{"a": 1}', "odd.jsonl"), 2)
    table = open_source(written(tmp_path, b"q,a\nHi?,Hello.\n", "log.csv"), 3)
    same = open_source(written(tmp_path, b"question,response\nHi?,Hello.\n", "same.csv"), 4)
    assert [format_of([s], None, None).name for s in (own, chat, same)] == ["ratchet", "openai", "csv"]
    assert format_of([table], None, parse_map("question=q,response=a")).name == "csv"
    for files, name, mapping, said in (
        ([odd], None, None, "Cannot tell what odd.jsonl is"),
        ([own, chat], None, None, "own.jsonl is ratchet and chat.jsonl is openai"),
        ([table], "csv", None, "Say which columns"),
        ([table], None, parse_map("question=q,response=b"), "no column 'b'; the file has q, a"),
        ([own], "openai", parse_map("question=q,response=a"), "for --format csv"),
    ):
        with pytest.raises(ImportProblem, match=said):
            format_of(files, name, mapping)


# --- The spool, the line of progress ----------------------------------------------------------------------------------


def test_the_spool_groups_in_the_same_order_each_time_and_leaves_nothing(tmp_path: Path, monkeypatch: Any) -> None:
    def grouped(parts: int) -> list[tuple[str, tuple[int, int], list[int]]]:
        with Spool(tmp_path, parts) as spool:
            for n in range(300):
                spool.add(f"trace {n % 70} \ud800", (0, n), {"what": "step", "n": n, "text": "secret canary"})
            assert list(tmp_path.iterdir()) == []  # unlinked: a kill leaves nothing
            assert spool.count == 300
            return [(trace, place, [p["n"] for p in pieces]) for trace, place, _, _, pieces in spool.traces()]

    found = grouped(4)
    assert found == grouped(4)
    assert sorted(n for _, _, numbers in found for n in numbers) == list(range(300))
    assert all(numbers == sorted(numbers) and place == (0, numbers[0]) for _, place, numbers in found)
    monkeypatch.setattr(grouping, "PART_BYTES", 500)  # parts that are too large are cut again
    assert sorted(map(repr, grouped(2))) == sorted(map(repr, found))
    assert parts_for(0) == 1
    assert parts_for(10**15) == grouping.MAX_PARTS


def test_the_spool_is_encrypted(tmp_path: Path) -> None:
    with Spool(tmp_path, 1) as spool:
        spool.add("t", (0, 1), {"what": "step", "text": "secret canary"})
        spool._files[0].seek(0)
        assert b"canary" not in spool._files[0].read()


def test_progress_says_rate_share_and_what_is_left() -> None:
    out = io.StringIO()
    times = iter([0.0, 0.0, 11.0, 22.0, 22.5])
    display = Display(out, live=False, clock=lambda: next(times))
    display.show("records", 0, 0.0)
    for count, share in ((1100, 0.25), (2200, 0.5), (2210, 0.51)):
        display.show("records", count, share)
    assert out.getvalue().splitlines() == [
        "1,100 records · 100/s · 25% · 33 s left",
        "2,200 records · 100/s · 50% · 22 s left",
    ]
    assert [duration(s) for s in (8, 200, 7500)] == ["8 s", "3 min", "2 h 5 min"]


def test_csv_cells_larger_than_pythons_own_limit_are_read(tmp_path: Path) -> None:
    out = io.StringIO()
    csv.writer(out).writerows([["question", "response"], ["Hi?", "x" * 200_000]])
    (row,) = open_source(written(tmp_path, out.getvalue().encode(), "big.csv"), 0).rows()
    assert len(row.data["response"]) == 200_000
