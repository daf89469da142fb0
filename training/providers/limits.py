"""What a provider elsewhere can be asked for."""

from __future__ import annotations

from training.models import Adapter, TrainingProvider


def why_not_there(provider: TrainingProvider, method: str, parent: Adapter | None) -> str:
    """Why a provider cannot train this, in one sentence; empty when it can. A Ray cluster runs our own recipe."""
    if provider.kind == TrainingProvider.Kind.RAY:
        return ""
    if method not in ("sft", "dpo"):
        return (
            f"The fine-tuning API that providers speak knows supervised training and pairs, not {method}. Choose one "
            "of those, or train on this platform."
        )
    if parent is not None:
        return "A provider begins with its own base model and cannot continue an adapter of this platform."
    return ""
