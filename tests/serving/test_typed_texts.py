"""Reasons and notes that people type are masked before they are stored, whichever page or service they come through."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from django.contrib.auth.models import User

from assistants.models import Assistant, AuditEvent
from assistants.policies import change_policy, policy_of, restore_policy, rules_of
from assistants.prose import WITHHELD, masked_prose
from assistants.services import audit, issue_key, revoke_key
from capture.canaries import check
from capture.leak_reports import LeakReport
from capture.leaks import canaries_of, override
from knowledge.configuration import RetrievalSettings
from knowledge.configuring import save_configuration
from privacy.findings import ScrubError
from privacy.scrubber import Scrubber
from serving.experiments.plan import Plan
from serving.experiments.services import set_share, start, step, take_back
from serving.models import Promotion
from serving.services import promote, roll_back
from tests.factories import make_adapter, make_assistant, make_evaluation, make_user
from training.evaluation.declaring import declare_gate
from training.evaluation.gate import GateRule


@pytest.fixture
def bot(db: None) -> Assistant:
    return make_assistant("bot")


@pytest.fixture
def dana(bot: Assistant) -> User:
    return make_user("dana")


def test_no_canary_survives_what_people_type_as_reasons(bot: Assistant, dana: User) -> None:
    (person,) = canaries_of(bot, 1)
    why = f"{person.name} phoned from {person.phone}, mail {person.mail}, card {person.card}: it was wrong."
    who: dict[str, Any] = {"assistant": bot, "actor": dana}

    rules = rules_of(bot)
    first = change_policy(rules=replace(rules, review_days=rules.review_days + 1), reason=why, **who)
    change_policy(rules=replace(rules_of(bot), review_days=9), reason="Shorter", **who)
    restore_policy(version=first, actor=dana, reason=why)

    adapter, second = make_adapter(bot), make_adapter(bot, number=2)
    promote(adapter=adapter, evaluation=make_evaluation(adapter, verdict="worse"), reason=why, override=True, **who)
    roll_back(reason=why, **who)
    evaluation = make_evaluation(second, verdict="worse")
    experiment = start(adapter=second, plan=Plan(), evaluation=evaluation, reason=why, **who)
    experiment = step(experiment=experiment, actor=dana, reason=why, override=True)
    experiment = set_share(experiment=experiment, share=0.3, actor=dana, reason=why)
    take_back(experiment=experiment, actor=dana, reason=why)

    declare_gate(rule=GateRule(minimum_gain=0.01), reason=why, read_version=0, **who)
    save_configuration(name="Wider", settings=RetrievalSettings(k=9), note=why, **who)
    report = LeakReport.objects.create(
        assistant=bot, subject="Export", verdict="blocked", rows=1, counts={"PERSON": 1},
        findings=[{"row": "0", "field": "question", "type": "PERSON", "by": "strict", "turn": ""}],
    )  # fmt: skip
    override(report=report, actor=dana, reason=why)
    key, _ = issue_key(assistant=bot, name="theirs", scopes=["log"])
    revoke_key(key=key, actor=dana, reason=why)

    assert check([person], folders=[]).places == {}
    reasons = set(AuditEvent.objects.exclude(reason="").values_list("reason", flat=True))
    assert {reason.split(" phoned")[0] for reason in reasons} == {"[PERSON_1]", "Shorter"}
    assert Promotion.objects.filter(reason__contains="[CREDIT_CARD_1]").count() >= 2


def test_sentences_of_our_own_stay_word_for_word(bot: Assistant) -> None:
    assert masked_prose(" Anna Keller ", assistant=bot, typed_by=None) == "Anna Keller"
    assert audit(assistant=bot, actor=None, action="x", reason="Down 5.2 % by Mark").reason == "Down 5.2 % by Mark"


def test_the_policy_of_the_assistant_decides(bot: Assistant, dana: User) -> None:
    rules = rules_of(bot)
    policy = replace(policy_of(bot), allow=("Anna Keller",))
    change_policy(assistant=bot, rules=replace(rules, policy=policy), actor=dana, reason="Staff")
    assert masked_prose("Anna Keller asked", assistant=bot, typed_by=dana) == "Anna Keller asked"
    assert masked_prose("Anna Keller asked", assistant=None, typed_by=dana) == "[PERSON_1] asked"


def test_what_cannot_be_checked_is_not_kept_and_nothing_waits_for_it(
    bot: Assistant, dana: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ScrubError("Anna Keller")

    monkeypatch.setattr(Scrubber, "scrub_text", broken)
    adapter = make_adapter(bot)
    done = promote(
        assistant=bot, adapter=adapter, evaluation=make_evaluation(adapter, verdict="passed"), actor=dana,
        reason="Anna Keller said so",
    )  # fmt: skip
    assert done.reason == WITHHELD == AuditEvent.objects.get(action="adapter.promote").reason
    assert "Anna" not in caplog.text
