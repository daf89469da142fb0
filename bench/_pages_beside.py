"""What stands beside a log of N turns, for the bench of pages: labels, marks, scores, what was masked and held,
documents, written questions, datasets with runs, adapters and evaluations, reports of drift, alerts, the audit trail.

One statement each, made by the database from the turns that are there. What a row does not name has the default of its
model.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

PEOPLE = 12
QUEUES = 8
VERSIONS = 20
"""Dataset versions, each with a run, an adapter and an evaluation."""
DOCUMENTS = 2_000
CHUNKS = 10
"""Of each document."""
SOME = 1_000
LABELLED = 20
"""Every how many turns are in a queue; four fifths of those have a label, a fifth two."""

# The n-th of some turns, newest last; $every of them one.
_EVERY = """(SELECT id, conversation_id, asked_at, declined, response, substr(client_id, 8)::int AS n FROM capture_turn
WHERE assistant_id = {assistant} AND substr(client_id, 8)::int %% {every} = 0) AS t"""

Timed = Callable[[str, Callable[[], object]], object]


def fill(raw: Any, assistant: int, turns: int, timed: Timed) -> None:
    """``raw``: a psycopg connection. About a twentieth of the turns is in queues."""
    from annotations import models as a
    from assistants.models import AuditEvent
    from capture import models as c
    from knowledge import models as k
    from serving import models as s

    def put(model: Any, source: str, /, **given: str) -> None:
        timed(model._meta.db_table, lambda: insert(raw, model, source, given))

    def every(number: int) -> str:
        return _EVERY.format(assistant=assistant, every=number)

    own = str(assistant)
    people = [key for (key,) in raw.execute("SELECT id FROM auth_user WHERE username LIKE 'person-%' ORDER BY id")]
    one = f"(ARRAY{people})[1 + n %% {len(people)}]"

    put(c.Quarantine, f"generate_series(1, {turns // SOME}) n", assistant_id=own, conversation_key="md5(n::text)",
        payload="decode(repeat('ab', 900), 'hex')", state="CASE WHEN n %% 5 = 0 THEN 'held' ELSE 'waiting' END",
        error="CASE WHEN n %% 5 = 0 THEN 'ValueError in a recogniser' ELSE '' END",
        received_at="now() - n * interval '9 minutes'")  # fmt: skip
    put(c.IntakeCount, f"generate_series(1, {turns // 50}) n", assistant_id=own,
        minute="date_trunc('minute', now()) - n / 3 * interval '1 minute'",
        event="(ARRAY['received', 'scrubbed', 'refused'])[1 + n %% 3]", count="1 + n %% 40")  # fmt: skip
    put(c.UncertainMask, every(50), assistant_id=own, conversation_id="conversation_id", turn_id="id",
        placeholder="'[PERSON_' || n || ']'", entity_type="'PERSON'", field="'question'", recognizer="'names'",
        score=".4", state="CASE WHEN n %% 100 = 0 THEN 'open' ELSE 'accepted' END", found_at="asked_at",
        expires_at="now() + interval '20 days'")  # fmt: skip
    put(a.Queue, f"generate_series(1, {QUEUES}) n", assistant_id=own, name="'Queue ' || n", labels_needed="2")
    first = raw.execute("SELECT min(id) FROM annotations_queue WHERE assistant_id = %s", [assistant]).fetchone()[0]
    # `m` counts what is in queues. Of five one waits, and one has two labels: of everybody with everybody, and not
    # always the same.
    m, bad, other = f"(n / {LABELLED})", f"n / {LABELLED} %% 3 = 0", f"n / {LABELLED} %% 7 = 0"
    waiting, again = f"{m} %% 5 = 0", f"{m} %% 5 = 1"
    queue, listed = f"{first} + {m} %% {QUEUES}", every(LABELLED)
    put(a.QueueItem, listed, queue_id=queue, turn_id="id", labels_needed="1", labels_done=f"({m} %% 5 <> 0)::int",
        done=f"{m} %% 5 <> 0", added_at="asked_at")  # fmt: skip

    def labels(source: str, person: str, bad: str, reasons: str) -> None:
        put(a.Annotation, source, turn_id="id", queue_id=queue, annotator_id=one.replace("n", person, 1),
            verdict=f"CASE WHEN {bad} THEN 'bad' ELSE 'good' END",
            reasons=f"CASE WHEN {bad} THEN ARRAY[{reasons}] ELSE '{{}}' END",
            correction=f"CASE WHEN {bad} THEN response ELSE '' END", seconds="10 + n %% 90",
            created_at="least(now(), asked_at + interval '1 day')")  # fmt: skip

    labels(f"{listed} WHERE NOT {waiting}", m, bad, "'wrong'")
    labels(f"{listed} WHERE {again}", f"({m} + 1 + {m} / 12 %% 11)", other, "'wrong', 'tone'")
    put(a.Resolution, f"{listed} WHERE NOT {waiting} AND NOT ({again} AND ({bad}) <> ({other}))", turn_id="id",
        verdict=f"CASE WHEN {bad} THEN 'bad' ELSE 'good' END", response="response",
        relevant_ranks="ARRAY[1, 2]", how="'single'",
        resolved_at="least(now(), asked_at + interval '1 day')")  # fmt: skip
    put(a.ContextMark, "annotations_annotation l JOIN capture_retrieval r ON r.turn_id = l.turn_id AND r.rank <= 3",
        annotation_id="l.id", retrieval_id="r.id",
        relevance="CASE WHEN r.rank = 3 OR l.id %% 13 = 0 THEN 'not_relevant' ELSE 'relevant' END")  # fmt: skip
    put(a.MachineLabel, every(4), assistant_id=own, turn_id="id", client_id="'score-' || n", kind="'CODE'",
        name="'groundedness'", score="(n %% 100) / 100.0", created_at="asked_at")  # fmt: skip
    put(a.MachineLabel, every(2 * LABELLED), assistant_id=own, turn_id="id", client_id="'judged-' || n", kind="'LLM'",
        name="'judge'", verdict="CASE WHEN n %% 7 = 0 THEN 'bad' ELSE 'good' END", created_at="asked_at")  # fmt: skip
    put(AuditEvent, f"generate_series(1, {turns // 10}) n", assistant_id=own, actor_name=f"'person-' || n %% {PEOPLE}",
        actor_id=one, action="(ARRAY['turn.viewed', 'label.given', 'review.released', 'turns.exported'])[1 + n %% 4]",
        target="md5(n::text)", at="now() - n * interval '2 minutes'")  # fmt: skip
    put(s.Alert, f"generate_series(1, {turns // SOME}) n", assistant_id=own, kind="'experiment_ended'",
        key="n::text", level="'news'", sentence="'Something ended.'", raised_at="now() - n * interval '3 hours'",
        cleared_at="now()")  # fmt: skip
    put(k.Document, f"generate_series(1, {DOCUMENTS}) n", assistant_id=own, source_key="md5(n::text)",
        path="'folder-' || n %% 40 || '/page-' || n || '.md'", title="'Page ' || n", media_type="'text/markdown'",
        text="repeat('words of a page ', 200)", state="'ready'", size="3200",
        updated_at="now() - n * interval '1 hour'")  # fmt: skip
    put(k.Chunk, f"""(SELECT d.id AS document, p, w.question || ' ' || w.response AS text, w.embedding, d.n
        FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM knowledge_document) d
        CROSS JOIN generate_series(1, {CHUNKS}) p
        JOIN written w ON w.number = (d.n * {CHUNKS} + p) %% (SELECT count(*) FROM written)) AS c""",
        assistant_id=own, document_id="document", position="p", text="text", digest="md5(n::text || '-' || p)",
        tokens="90", embedding="embedding", sentence_embeddings="decode(repeat('00', 768), 'hex')")  # fmt: skip
    _learnt(put, own)
    put(s.DriftReport, f"generate_series(1, {VERSIONS}) n", assistant_id=own, state="'succeeded'",
        since="now() - (n + 1) * interval '7 days'", until="now() - n * interval '7 days'", verdict="'too_few'",
        sentence="'Too few questions.'")  # fmt: skip


def _learnt(put: Callable[..., None], own: str) -> None:
    """Written questions, benchmark, datasets, runs, adapters and evaluations, under the numbers that they get first."""
    from training import models as t
    from training.synthesis.models import Synthesis, SyntheticItem

    many, done = f"generate_series(1, {VERSIONS}) n", "'succeeded'"
    rows = f"generate_series(1, {VERSIONS}) v CROSS JOIN generate_series(1, {{}}) n"
    put(Synthesis, many, id="n", assistant_id=own, state=done)
    put(SyntheticItem, rows.format(2 * SOME), synthesis_id="v", source="'folder/page.md'", sentence="0",
        question="'What is ' || n || '?'", response="'It is ' || n", answer="'[]'",
        dropped_by="CASE WHEN n %% 3 = 0 THEN 'round_trip' ELSE '' END")  # fmt: skip
    put(t.Benchmark, "generate_series(1, 1) n", id="1", assistant_id=own, name="'Held out'", content_hash="md5('1')")
    put(t.BenchmarkItem, f"generate_series(1, {SOME}) n", id="n", benchmark_id="1", key="md5(n::text)",
        question="'What is ' || n || '?'", kind="'answer'")  # fmt: skip
    put(t.DatasetVersion, many, id="n", assistant_id=own, number="n", state=done, prompt_digest="repeat('0', 16)",
        content_hash="md5(n::text)", mix="""'{"good": {"answer": 3000}, "synthetic": {"answer": 2000}}'""",
        rows=str(5 * SOME), benchmark_id="1")  # fmt: skip
    put(t.Example, rows.format(5 * SOME), dataset_id="v", position="n", split="'train'", origin="'good'",
        kind="'answer'", group="'talk-' || n", question="'What is ' || n || '?'", digest="md5(v || '-' || n)",
        documents="ARRAY['folder/page.md']")  # fmt: skip
    put(t.Run, many, id="n", assistant_id=own, dataset_id="n", state=done, base_model="'models/base'",
        base_digest="repeat('0', 64)", prompt_digest="repeat('0', 16)")  # fmt: skip
    put(t.RunMetric, rows.format(2 * SOME), run_id="v", step="n", loss="1.0 / n", learning_rate="1e-4")
    put(t.Adapter, many, id="n", assistant_id=own, number="n", run_id="n", folder="'bench/' || n",
        base_digest="repeat('0', 64)", prompt_digest="repeat('0', 16)")  # fmt: skip
    put(t.Evaluation, many, id="n", assistant_id=own, adapter_id="n", benchmark_id="1", state=done,
        verdict="'not_proven'", sentence="'Not proven.'")  # fmt: skip
    put(t.EvaluationAnswer, f"generate_series(1, {VERSIONS}) v CROSS JOIN generate_series(1, {SOME}) n CROSS JOIN "
        "unnest(ARRAY['base', 'base_rag', 'adapter', 'adapter_rag']) arm", evaluation_id="v", item_id="n", arm="arm",
        condition="'clean'", completion="'[1] It is.'", text="'It is [1].'",
        measures="""'{"grounded_correct": 1}'""")  # fmt: skip


def insert(raw: Any, model: Any, source: str, given: dict[str, str]) -> None:
    """Rows of a model for a FROM clause: ``given`` expressions by column, defaults of the model for the rest."""
    columns = dict(given)
    for field in model._meta.concrete_fields:
        if field.column in columns or field.generated or field.null:
            continue
        if field.primary_key:
            if field.get_internal_type() == "UUIDField":
                columns[field.column] = "gen_random_uuid()"
            continue
        columns[field.column] = _default(raw, field)
    names = ", ".join(f'"{name}"' for name in columns)
    raw.execute(f"INSERT INTO {model._meta.db_table} ({names}) SELECT {', '.join(columns.values())} FROM {source}"
                .replace("%%", "%"))  # fmt: skip
    if "id" in given:
        raw.execute(f"SELECT setval(pg_get_serial_sequence('{model._meta.db_table}', 'id'), (SELECT max(id) FROM "
                    f"{model._meta.db_table}))")  # fmt: skip


def _default(raw: Any, field: Any) -> str:
    kind = field.get_internal_type()
    if getattr(field, "auto_now_add", False) or getattr(field, "auto_now", False):
        return "now()"
    value = field.get_default()
    if isinstance(value, datetime):
        return "now()"
    if kind == "JSONField":
        value = Jsonb(value)
    elif value is None:
        value = "" if kind in ("CharField", "TextField") else 0
    return sql.Literal(value).as_string(raw)
