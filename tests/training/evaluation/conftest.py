"""A small house with a benchmark, a tiny base and an adapter, for all tests of evaluations."""

from __future__ import annotations

from typing import Any

import pytest

from assistants.background import launch
from assistants.models import Assistant
from knowledge.services import load_document
from tests.factories import make_adapter, make_assistant
from tests.tiny_model import shared_base
from training.data.benchmark import freeze_benchmark, read_items
from training.evaluation import asking
from training.evaluation.gate import GateRule
from training.evaluation.plan import Plan
from training.models import Adapter, Benchmark, Evaluation

DOCUMENTS = {
    "leaving.md": "# Leaving early\n\nA fixed plan has an exit fee of £35. No fee is due in its last 49 days.",
    "meters.md": "# Meter readings\n\nRead the meter on the first day of the month. Send the figures before the dot.",
    "moving.md": "# Moving house\n\nTell us 10 days before you move. Your plan can move with you to the new address.",
    "paying.md": "# Paying\n\nBills come on Monday. You may pay by direct debit. A late bill costs £12 extra.",
}
ITEMS = """
{"id": "a1", "question": "What does it cost to leave a fixed plan early?", "kind": "answer", "answers": ["The exit fee is £35."], "must_contain": [["£35"]], "must_not_contain": ["£40"], "gold": [{"path": "leaving.md", "sentence": "A fixed plan has an exit fee of £35."}], "slice": "plain", "topic": "fees"}
{"id": "a2", "question": "When do I read the meter?", "kind": "answer", "answers": ["On the first day of the month."], "gold": [{"path": "meters.md", "sentence": "Read the meter on the first day of the month."}], "slice": "plain"}
{"id": "a3", "question": "When do bills come?", "kind": "answer", "answers": ["Bills come on Monday."], "must_contain": [["Monday"]], "gold": [{"path": "paying.md", "sentence": "Bills come on Monday."}], "history": [{"role": "user", "content": "I want to pay."}]}
{"id": "d1", "question": "Who won the cup final?", "kind": "decline"}
"""  # noqa: E501 - one item a line, as in a file


@pytest.fixture
def house(db: None, settings: Any, monkeypatch: pytest.MonkeyPatch) -> Assistant:
    monkeypatch.setattr(asking, "MAX_ANSWER_TOKENS", 8)  # a random model never ends by itself
    settings.RATCHET_BASE_MODEL_PATH = settings.RATCHET_BASE_MODEL = str(shared_base())
    assistant = make_assistant(retrieval_k=2, evidence_sentences=3)
    for path, text in DOCUMENTS.items():
        load_document(assistant=assistant, path=path, data=text.encode())
    return assistant


@pytest.fixture
def frozen(house: Assistant) -> Benchmark:
    return freeze_benchmark(assistant=house, name="b", items=read_items(ITEMS.splitlines()))


@pytest.fixture
def tuned(house: Assistant) -> Adapter:
    return make_adapter(house, seed=1)


def evaluate(adapter: Adapter, benchmark: Benchmark, *, rule: GateRule | None = None, **fields: Any) -> Evaluation:
    rule = rule or GateRule()
    plan = fields.pop("plan", Plan())
    evaluation = Evaluation.objects.create(
        assistant=adapter.assistant, adapter=adapter, benchmark=benchmark, gate_rule=rule.as_dict(),
        plan=plan.complete(rule).as_dict(), prompt_digest=adapter.prompt_digest, base_digest=adapter.base_digest,
        **fields,
    )  # fmt: skip
    launch(evaluation, foreground=True)
    evaluation.refresh_from_db()
    return evaluation
