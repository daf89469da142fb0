"""Who meets which arm: by keyed hash, kept, in the declared share; noted in bulk beside the answers."""

from __future__ import annotations

from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from serving.experiments import exposures
from serving.experiments.models import Experiment, Exposure
from serving.experiments.services import set_share, step
from serving.models import Deployment
from tests.serving.experiments.conftest import Bot


def arms(bot: Bot, number: int, kind: str = "conversation") -> dict[str, str]:
    found = {}
    for i in range(number):
        _, exposed = bot.choose(**{kind: f"{kind}-{i}"})
        assert exposed is not None
        found[f"{kind}-{i}"] = exposed.arm
    return found


def test_without_an_experiment_and_in_shadow_everybody_meets_what_is_live(bot: Bot) -> None:
    assert bot.choose(conversation="a") == (bot.live, None)
    bot.start()
    assert bot.choose(conversation="a") == (bot.live, None)
    Deployment.objects.all().delete()


def test_arms_are_drawn_in_their_shares_and_kept(bot: Bot) -> None:
    bot.in_ab(ab_share=0.3)
    first = arms(bot, 600)
    assert arms(bot, 600) == first
    candidates = sum(arm == "candidate" for arm in first.values())
    assert 130 <= candidates <= 230  # 180 ± 4.5 standard deviations
    for name, arm in list(first.items())[:20]:
        adapter, _ = bot.choose(conversation=name)
        assert adapter == (bot.candidate if arm == "candidate" else bot.live)


def test_the_draw_is_another_one_in_the_next_experiment(bot: Bot) -> None:
    experiment = bot.in_ab()
    first = arms(bot, 200)
    Deployment.objects.update(experiment=None)
    Experiment.objects.filter(pk=experiment.pk).delete()
    bot.in_ab()
    second = arms(bot, 200)
    same = sum(first[name] == second[name] for name in first)
    assert 65 <= same <= 135


def test_a_conversation_that_has_begun_stays_where_it_is(bot: Bot) -> None:
    experiment = bot.start(canary_share=0.05, ab_share=0.8)
    experiment = step(experiment=experiment, actor=bot.ada)
    for name in arms(bot, 60):
        bot.ask(name)
    exposures.flush()
    before = {name: bot.choose(conversation=name)[1] for name in arms(bot, 60)}
    experiment = step(experiment=experiment, actor=bot.ada)
    after = {name: bot.choose(conversation=name)[1] for name in before}
    assert {n: e.arm for n, e in after.items() if e} == {n: e.arm for n, e in before.items() if e}
    assert {e.epoch for e in after.values() if e} == {1}  # and counts where it began
    _, fresh = bot.choose(conversation="somebody new")
    assert fresh is not None
    assert fresh.epoch == 2


def test_users_are_drawn_anew_only_towards_the_candidate(bot: Bot) -> None:
    experiment = bot.start(unit="user", canary_share=0.1)
    experiment = step(experiment=experiment, actor=bot.ada)
    canary = arms(bot, 300, "user")
    experiment = step(experiment=experiment, actor=bot.ada)
    both = arms(bot, 300, "user")
    assert all(both[name] == "candidate" for name, arm in canary.items() if arm == "candidate")
    assert sum(both[n] != canary[n] for n in canary) > 60


def test_a_question_of_nobody_known_meets_what_is_live_and_does_not_count(bot: Bot) -> None:
    bot.in_ab()
    assert bot.choose() == (bot.live, None)
    _, by_user = bot.choose(user="u")  # the other id, where the wished one is missing
    assert by_user is not None


def test_ids_are_not_stored_as_they_came(bot: Bot) -> None:
    bot.in_ab()
    bot.ask("anna.smith@example.org")
    exposures.flush()
    row = Exposure.objects.get()
    assert "anna" not in f"{row.unit}{row.arm}"
    assert len(row.unit) == 32


def test_choosing_costs_one_query_at_most(bot: Bot) -> None:
    bot.in_ab()
    deployment = Deployment.objects.select_related("adapter", "experiment__candidate").get()
    from serving.experiments.assignment import Unit, choose_arm

    with CaptureQueriesContext(connection) as captured:
        choose_arm(deployment, Unit("a"))
    assert len(captured) == 1


def test_exposures_are_written_once_and_in_bulk(bot: Bot) -> None:
    experiment = bot.in_ab()
    now = timezone.now()
    for i in range(50):
        _, exposed = bot.choose(conversation=f"c{i}")
        assert exposed is not None
        exposures.note(exposed, f"answer-{i}", at=now)
        exposures.note(exposed, f"answer-{i}", at=now)
    with CaptureQueriesContext(connection) as captured:
        exposures.flush()
    assert len(captured) == 1
    assert experiment.exposures.count() == 50
    assert exposures.flush() == 0


def test_rows_of_an_experiment_that_is_gone_are_dropped(bot: Bot) -> None:
    experiment = bot.in_ab()
    _, exposed = bot.choose(conversation="c")
    assert exposed is not None
    exposures.note(exposed, "answer")
    Deployment.objects.update(experiment=None)
    Experiment.objects.filter(pk=experiment.pk).delete()
    exposures.flush()
    assert not Exposure.objects.exists()


def test_a_new_share_counts_anew(bot: Bot) -> None:
    experiment = bot.in_ab()
    changed = set_share(experiment=experiment, share=0.3, actor=bot.ada, reason="gently")
    assert (changed.share, changed.epoch) == (0.3, 3)
