"""What the worker calls by name."""

from __future__ import annotations


def clean_runs() -> None:
    """Daily: see `training.finetune.cleaning`."""
    from training.finetune.cleaning import clean_old_runs

    clean_old_runs()


def check_rules() -> None:
    """Every quarter of an hour: see `training.rules.firing`."""
    from training.rules.firing import check_all

    check_all()
