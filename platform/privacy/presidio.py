"""The one place that imports Presidio, and without torch.

Presidio brings spaCy, and both load torch and transformers where they find them: seconds and some 200 MB in every
process that scrubs, the web's among them, for patterns and a word tokenizer that compute with neither. Both libraries
do without where the import fails, so it fails here, once, and for them alone: who imports torch afterwards gets it, and
scipy, which only looks whether it is there, sees no trace.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_UNUSED = ("torch", "transformers")
_LOCK = threading.Lock()


@contextmanager
def _absent(*names: str) -> Iterator[None]:
    """Imports of these fail meanwhile, in all threads. What is loaded already stays."""
    modules: dict[str, Any] = sys.modules
    with _LOCK:
        hidden = [name for name in names if name not in modules]
        modules.update(dict.fromkeys(hidden))
        try:
            yield
        finally:
            for name in hidden:
                if modules.get(name, ...) is None:
                    del modules[name]


with _absent(*_UNUSED):
    from presidio_analyzer import (
        AnalysisExplanation,
        AnalyzerEngine,
        EntityRecognizer,
        LocalRecognizer,
        Pattern,
        PatternRecognizer,
        RecognizerRegistry,
        RecognizerResult,
        predefined_recognizers,
    )
    from presidio_analyzer.context_aware_enhancers import LemmaContextAwareEnhancer
    from presidio_analyzer.nlp_engine import NlpArtifacts, NlpEngine
    from spacy.lang.en import English

__all__ = [
    "AnalysisExplanation",
    "AnalyzerEngine",
    "English",
    "EntityRecognizer",
    "LemmaContextAwareEnhancer",
    "LocalRecognizer",
    "NlpArtifacts",
    "NlpEngine",
    "Pattern",
    "PatternRecognizer",
    "RecognizerRegistry",
    "RecognizerResult",
    "predefined_recognizers",
]
