"""What a candidate must show, who declares it, and what becomes of what cannot be shown."""

from __future__ import annotations

from typing import Any

import pytest

from assistants.models import AuditEvent
from tests.factories import make_assistant, make_user
from training.evaluation.declaring import GateConflict, changes, declaration_of, declare_gate, rule_of
from training.evaluation.gate import GUARDRAILS, GateRule, GateRuleError, judge, standard_margins
from training.evaluation.plan import Plan, PlanError
from training.evaluation.statistics import Estimate, PairedTest, paired_test
from training.models import Condition, GateVerdict


def of(gain: int, loss: int, n: int = 200) -> PairedTest:
    candidate = [1.0] * gain + [0.0] * loss + [1.0] * (n - gain - loss)
    today = [0.0] * gain + [1.0] * loss + [1.0] * (n - gain - loss)
    return paired_test(candidate, today, [str(i) for i in range(n)])


def test_what_cannot_be_shown_does_not_pass() -> None:
    """A guardrail that found no pairs was once left out of the table, and a clear gain passed without it."""
    rule = GateRule(margins={"over_refusal": 0.03, "missing_oracle": 0.02})
    verdict, table = judge(rule, of(40, 5), {"over_refusal": of(2, 1).difference, "missing_oracle": None})
    assert verdict is GateVerdict.NOT_PROVEN
    missing = table[2]
    assert (missing.name, missing.passed, missing.value, missing.n) == ("missing_oracle", False, None, 0)
    assert missing.reason.startswith("not shown. Add questions to answer")
    assert judge(rule, of(40, 5), {"over_refusal": of(2, 1).difference})[0] is GateVerdict.NOT_PROVEN
    shown = {name: of(2, 1).difference for name in rule.margins}
    assert judge(rule, of(40, 5), shown)[0] is GateVerdict.PASSED


def test_a_gain_on_a_few_documents_is_not_proved() -> None:
    """All resamples of one cluster are the same, so its interval has no width whatever the gain."""
    candidate, today = [1.0] * 200, [0.0] * 150 + [1.0] * 50
    for documents in (1, 4, 5):
        gain = paired_test(candidate, today, [str(i % documents) for i in range(200)])
        verdict, table = judge(GateRule(margins={"over_refusal": 0.03}), gain, {"over_refusal": of(2, 1).difference})
        assert (verdict is GateVerdict.PASSED) == (documents == 5)
        assert ("fewer than 5 says nothing" in table[0].reason) == (documents < 5)


def test_a_guardrail_on_a_few_questions_is_not_shown() -> None:
    rule = GateRule(margins={"over_refusal": 0.03})
    three = of(3, 0, n=3).difference
    verdict, table = judge(rule, of(40, 5), {"over_refusal": three})
    assert (verdict, table[1].passed, table[1].n) == (GateVerdict.NOT_PROVEN, False, 3)
    assert table[1].reason == (
        "not shown. It rests on 3 questions, and the gate asks for at least 20. Add questions whose answer retrieval "
        "offers."
    )
    assert judge(GateRule(margins={"over_refusal": 0.03}, least_questions=3), of(40, 5), {"over_refusal": three})[
        0
    ] is (GateVerdict.PASSED)


def test_every_line_says_why_it_fails() -> None:
    rule = GateRule(margins={"over_refusal": 0.03})
    _, table = judge(rule, of(12, 9), {"over_refusal": of(0, 20).difference})
    assert table[0].reason.startswith("the interval of its gain begins at ")
    assert table[1].reason == "it is −10.0, and may lose at most 3.0"
    _, table = judge(GateRule(margins={}, alpha=0.0001), of(40, 20), {})
    assert table[0].reason.startswith("McNemar's p is ")
    assert judge(rule, of(40, 5), {"over_refusal": of(0, 0).difference})[1][1].reason == ""


def test_strict_holds_the_worse_end_of_the_interval() -> None:
    found = {"over_refusal": Estimate(-0.01, -0.05, 0.02, 200, 200)}
    margins = {"over_refusal": 0.03}
    assert judge(GateRule(margins=margins), of(40, 5), found)[0] is GateVerdict.PASSED
    verdict, table = judge(GateRule(margins=margins, strict=True), of(40, 5), found)
    assert verdict is GateVerdict.NOT_PROVEN
    assert "−5.0" in table[1].reason


def test_a_level_looks_at_the_candidate_alone() -> None:
    leaks = Estimate(-0.01, -0.02, 0.0, 200, 200)
    verdict, table = judge(GateRule(margins={"private": 0.0}), of(40, 5), {"private": leaks})
    assert (verdict, table[1].passed) == (GateVerdict.NOT_PROVEN, False)
    none = Estimate(0.0, 0.0, 0.0, 200, 200)
    assert judge(GateRule(margins={"private": 0.0}), of(40, 5), {"private": none})[0] is GateVerdict.PASSED


@pytest.mark.parametrize(
    "values",
    [
        {"margins": {"over_refusal": -0.1}}, {"margins": {"over_refusal": float("nan")}}, {"alpha": 0.9},
        {"margins": {"over_refusal": "much"}}, {"minimum_gain": 2}, {"primary": "beauty"}, {"judge_agreement": 0.1},
        {"least_questions": 0},
        {"margins": {"over_refusal": True}},
    ],
)  # fmt: skip
def test_rules_that_cannot_be_meant(values: dict[str, Any]) -> None:
    with pytest.raises(GateRuleError):
        GateRule.from_dict(values)


def test_the_plan_holds_what_the_gate_must_be_shown() -> None:
    rule = GateRule(margins={"counterfactual": 0.02, "latency": 0.1, "rival": 0.0})
    plan = Plan(arms=["base"], conditions=["clean"]).complete(rule)
    assert plan.arms == ["extractive", "base", "base_rag", "rival_rag", "adapter_rag"]
    assert plan.conditions == ["clean", "counterfactual"]
    assert plan.timed == 20
    pairs = list(plan.pairs())
    assert ("base", "counterfactual") not in pairs
    assert ("extractive", "counterfactual") in pairs
    assert Plan.from_dict(plan.as_dict()).complete(rule) == plan
    # A guardrail on fewer questions than the rule asks for is not shown: as many are timed.
    assert Plan().complete(GateRule(margins={"latency": 0.1}, least_questions=50)).timed == 50
    for wrong in ({"arms": ["x"]}, {"conditions": ["x"]}, {"timed": 3}, {"size": 1}):
        with pytest.raises(PlanError):
            Plan.from_dict(wrong)


def test_the_standard_gate_costs_no_answers_of_its_own() -> None:
    conditions = {GUARDRAILS[name].condition for name in standard_margins()}
    assert conditions == {Condition.CLEAN, Condition.MISSING_ORACLE}


@pytest.mark.django_db
def test_declaring_is_versioned_and_audited() -> None:
    assistant, ada = make_assistant(), make_user("ada")
    assert rule_of(assistant) == (GateRule(), None)
    rule = GateRule(minimum_gain=0.02, margins={"over_refusal": 0.05})
    first = declare_gate(assistant=assistant, rule=rule, reason="Regulator", actor=ada, read_version=0)
    assert (first.version, rule_of(assistant)) == (1, (rule, 1))
    with pytest.raises(GateConflict, match="Version 1"):
        declare_gate(assistant=assistant, rule=rule, reason="Again", actor=ada, read_version=0)
    with pytest.raises(ValueError, match="Say why"):
        declare_gate(assistant=assistant, rule=rule, reason=" ", actor=ada, read_version=1)
    with pytest.raises(GateRuleError):
        declare_gate(assistant=assistant, rule=GateRule(alpha=5), reason="x", actor=ada, read_version=1)
    stricter = GateRule(minimum_gain=0.02, margins={"over_refusal": 0.01})
    declare_gate(assistant=assistant, rule=stricter, reason="Tighter", actor=ada, read_version=1)
    newest = declaration_of(assistant)
    assert newest is not None
    assert newest.version == 2
    event = AuditEvent.objects.filter(action="gate.declared").latest("pk")
    assert (event.actor, event.reason) == (ada, "Tighter")
    assert event.details == changes(rule, stricter) == {"margin of over_refusal": "0.05 → 0.01"}
    assert rule_of(make_assistant()) == (GateRule(), None)  # nobody else's
