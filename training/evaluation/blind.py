"""Who must not see answers by arm yet: whoever still has such answers to judge blind."""

from __future__ import annotations

from django.contrib.auth.models import User

from annotations.comparing.blindness import still_judging
from annotations.comparing.models import ComparisonRound
from training.comparing import SOURCE
from training.models import Evaluation

HIDDEN = (
    "You still have answers on these questions to judge blind, so they are not shown by arm here. They show when you "
    "have judged all your pairs, or when the round is closed."
)


def must_stay_blind(viewer: User, evaluation: Evaluation) -> bool:
    """Whether this person still has pairs to judge on the benchmark, of whatever evaluation: today's answers are the
    same in all of them. At most four queries."""
    same = Evaluation.objects.filter(benchmark=evaluation.benchmark_id, assistant=evaluation.assistant_id)
    rounds = ComparisonRound.objects.filter(
        source=SOURCE, source_id__in=same.values("pk"), assistant=evaluation.assistant_id, closed=False
    ).select_related("assistant")
    return bool(still_judging(viewer, list(rounds)))
