"""What runs in the process that embeds for a large build (`training.data.embedding`). Nothing of Django is imported
with this module: the process begins with it, before there is a registry of models."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from training.data.audit_helper import end_with_parent

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def begin() -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    import django

    django.setup()


def vectors(asked: Sequence[tuple[str, Sequence[Any]]], glossary: Mapping[str, str] | None) -> NDArray[np.float32]:
    from knowledge.query import question_vectors

    return question_vectors(asked, glossary)
