"""What a database remembers of the hash key that it is filled with."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class KeyCheck(models.Model):
    """One row at most. `assistants.key_check` writes and compares it."""

    ONLY: ClassVar[int] = 1

    id = models.PositiveSmallIntegerField(primary_key=True, default=ONLY, editable=False)
    hash_key = models.BinaryField(max_length=32, help_text="Made with RATCHET_HASH_KEY; the key is not in it.")
    made_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return f"hash key of {self.made_at:%Y-%m-%d}"
