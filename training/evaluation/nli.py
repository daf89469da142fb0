"""Support judged by a model: any classifier of natural language inference, such as those that ALCE or AlignScore use.

Off unless RATCHET_NLI_MODEL names one. Its values stand beside the lexical ones under names of their own, so that a
number never means one thing in one evaluation and another in the next; it is part of no gate.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from django.conf import settings

from generation.embedder import quiet_loading
from generation.engines import EngineUnavailable
from generation.folders import model_folder

if TYPE_CHECKING:
    from training.evaluation.metrics import Entails

MOST_TOKENS = 512
REMEMBERED = 20_000


def entailment() -> Entails | None:
    """The classifier of the settings as a function of (premise, claim); None when none is set.

    Raises:
        EngineUnavailable: no such model here, or none that tells entailment.
    """
    name = settings.RATCHET_NLI_MODEL
    return lru_cache(maxsize=REMEMBERED)(NliModel(name)) if name else None


class NliModel:
    """True where entailment is the likeliest class. Premises beyond the model's length are cut at their end."""

    def __init__(self, name: str) -> None:
        from safetensors import SafetensorError
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        folder = model_folder(name)
        try:
            # Never any code from a model folder, never pickled weights.
            options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
            self._tokenizer = AutoTokenizer.from_pretrained(folder, **options)
            with quiet_loading():
                model = AutoModelForSequenceClassification.from_pretrained(folder, use_safetensors=True, **options)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise EngineUnavailable(
                f"The model {name} for support cannot be loaded: {str(error).splitlines()[0][:200]}",
                "Restore its folder, or leave RATCHET_NLI_MODEL empty.",
            ) from error
        self._model = model.eval()
        labels = {int(i): str(label).casefold() for i, label in model.config.id2label.items()}
        found = [i for i, label in labels.items() if "entail" in label and not label.startswith(("not", "non"))]
        if len(found) != 1:
            raise EngineUnavailable(
                f"The model {name} has no one class of entailment.", "Choose a model of natural language inference."
            )
        self._entailed = found[0]

    def __call__(self, premise: str, claim: str) -> bool:
        import torch

        inputs = self._tokenizer(premise, claim, truncation="only_first", max_length=MOST_TOKENS, return_tensors="pt")
        with torch.inference_mode():
            logits = self._model(**inputs).logits[0]
        return int(logits.argmax()) == self._entailed
