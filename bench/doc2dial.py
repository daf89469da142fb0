"""Real input through every door: Doc2Dial documents loaded, its turns posted, scrubbed, retrieved for and answered.

    RATCHET_SHARED_DATA=<folder with doc2dial/> make bench-doc2dial ARGS='--turns 600 --chats 500'

The platform is started (or a running one is used) and asked over HTTP with a key, as a frontend would. Documents and
questions are those of the DialDoc 2021 shared task's validation set; they are read from the folder and not part of the
project. Retrieval is measured on whole documents, as the published baselines are.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "platform"), str(ROOT / "bench")]
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

SLUG = "doc2dial"
BATCH = 100


def read(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def messages(question: str) -> list[dict[str, str]]:
    """The turns of a question (latest first, tab between) as chat messages, oldest first."""
    said = []
    for part in reversed([part.strip() for part in question.split("\t") if part.strip()]):
        role = "assistant" if part.startswith("agent:") else "user"
        said.append({"role": role, "content": part.removeprefix("agent:").removeprefix("user:").strip() or "-"})
    return said


def answer_text(row: dict[str, Any]) -> str:
    """The first gold answer; the file holds its structures as Python literals."""
    return str(ast.literal_eval(row["answers"])["text"][0]).strip() or "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=600, help="Turns to post through the log API (%(default)s).")
    parser.add_argument("--chats", type=int, default=500, help="Questions to ask the chat endpoint (%(default)s).")
    options = parser.parse_args()
    folder = Path(os.environ.get("RATCHET_SHARED_DATA", "")) / "doc2dial"
    if not folder.is_dir():
        sys.exit("Set RATCHET_SHARED_DATA to a folder that holds doc2dial/ (see the head of this file).")
    import django

    django.setup()
    from _report import report

    from serving.demo.platform_process import Platform

    with Platform() as platform:
        platform.start()
        report("doc2dial", run(platform.url, folder, options.turns, options.chats))


def run(url: str, folder: Path, turns: int, chats: int) -> dict[str, Any]:
    import httpx

    from assistants.models import Assistant, Scope
    from assistants.services import create_assistant, issue_key

    assistant = Assistant.objects.filter(slug=SLUG).first() or create_assistant(slug=SLUG, name="Doc2Dial")
    _, secret = issue_key(assistant=assistant, name="bench", scopes=[Scope.LOG, Scope.CHAT])
    metrics: dict[str, Any] = load(assistant, folder)
    questions = list(read(folder / "rc_val_questions.jsonl.gz"))
    metrics |= retrieval(assistant, questions)
    headers = {"Authorization": f"Bearer {secret}"}
    with httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False) as http:
        metrics |= post(http, assistant, questions[:turns])
        metrics |= ask(http, questions[-chats:])
    metrics |= captured(assistant)
    for name, value in metrics.items():
        print(f"{name:32} {value}")
    return metrics


def load(assistant: Any, folder: Path) -> dict[str, Any]:
    from knowledge.models import Chunk
    from knowledge.services import load_document

    started = time.perf_counter()
    failed = 0
    for number, row in enumerate(read(folder / "rc_val_documents.jsonl.gz")):
        text = f"# {row['title']}\n\n{row['context']}"
        document = load_document(assistant=assistant, path=f"{number:03}.md", data=text.encode())
        failed += document.state != "ready"
    seconds = time.perf_counter() - started
    chunks = Chunk.objects.filter(assistant=assistant).count()
    return {"documents": number + 1, "documents_failed": failed, "chunks": chunks, "load_s": round(seconds, 1)}


def retrieval(assistant: Any, questions: list[dict[str, Any]], sample: int = 1000) -> dict[str, Any]:
    """Recall of the right document among the first k distinct documents, with history and with the last turn alone."""
    from knowledge.models import Document
    from knowledge.retrieval import retrieve

    titles = dict(Document.objects.filter(assistant=assistant).values_list("path", "title"))
    out: dict[str, Any] = {}
    chosen = questions[:: max(1, len(questions) // sample)][:sample]
    for name, aware in (("history", True), ("last_turn", False)):
        hits, times = {1: 0, 5: 0, 10: 0}, []
        for row in chosen:
            said = messages(row["question"])
            found = retrieve(
                assistant=assistant, question=said[-1]["content"], history=said[:-1] if aware else [], k=24
            )
            times.append(found.seconds)
            documents = list(dict.fromkeys(titles[p.source] for p in found.passages))
            for k in hits:
                hits[k] += row["title"] in documents[:k]
        out |= {f"recall_at_{k}_{name}": round(count / len(chosen), 3) for k, count in hits.items()}
        out[f"retrieve_p50_ms_{name}"] = round(statistics.median(times) * 1000, 1)
    return out


def post(http: Any, assistant: Any, questions: list[dict[str, Any]]) -> dict[str, Any]:
    from capture.models import Quarantine
    from knowledge.retrieval import retrieve

    items = []
    for row in questions:
        said = messages(row["question"])
        found = retrieve(assistant=assistant, question=said[-1]["content"], history=said[:-1]).passages
        items.append({
            "id": row["id"], "conversation": row["id"].rsplit("_", 1)[0], "question": said[-1]["content"],
            "history": said[:-1], "response": answer_text(row), "model": "doc2dial-agent",
            "contexts": [{"text": p.text, "title": p.title, "source": p.source, "score": p.score} for p in found],
        })  # fmt: skip
    started = time.perf_counter()
    statuses: dict[str, int] = {}
    for start in range(0, len(items), BATCH):
        answer = http.post("/api/v1/turns/batch", json=items[start : start + BATCH])
        for result in answer.json()["results"]:
            statuses[result["status"]] = statuses.get(result["status"], 0) + 1
    posted = time.perf_counter() - started
    waiting = Quarantine.objects.waiting().filter(assistant=assistant)
    while waiting.exists():
        time.sleep(0.3)
    scrubbed = time.perf_counter() - started
    return {
        "posted": statuses, "post_per_s": round(len(items) / posted, 1), "scrubbed_after_s": round(scrubbed, 1),
        "held": Quarantine.objects.held().filter(assistant=assistant).count(),
    }  # fmt: skip


def ask(http: Any, questions: list[dict[str, Any]]) -> dict[str, Any]:
    from generation.overlap import coverage

    times, declined, overlap, failed = [], 0, [], 0
    for row in questions:
        started = time.perf_counter()
        answer = http.post("/v1/chat/completions", json={"model": SLUG, "messages": messages(row["question"])[-20:]})
        times.append(time.perf_counter() - started)
        if answer.status_code != 200:
            failed += 1
            continue
        message = answer.json()["choices"][0]["message"]
        declined += message["context"]["declined"]
        overlap.append(coverage(answer_text(row), message["content"]))
    return {
        "chats": len(questions), "chats_failed": failed, "chats_declined": declined,
        "gold_words_in_answer": round(statistics.fmean(overlap), 3) if overlap else 0.0,
        "chat_p50_ms": round(statistics.median(times) * 1000),
        "chat_p95_ms": round(sorted(times)[int(len(times) * 0.95)] * 1000),
    }  # fmt: skip


def captured(assistant: Any) -> dict[str, Any]:
    from capture.models import Turn

    turns = Turn.objects.of(assistant)
    masked = [entry["type"] for pii in turns.values_list("pii", flat=True) for entry in pii]
    kinds = {kind: masked.count(kind) for kind in sorted(set(masked))}
    return {"turns_stored": turns.count(), "values_masked": kinds}


if __name__ == "__main__":
    main()
