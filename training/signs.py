"""How a change is written, in sentences as on pages: one minus sign everywhere."""

from __future__ import annotations


def signed(value: float, digits: int = 1) -> str:
    """−1.84 → “−1.8”, 0.016 with three digits → “+0.016”."""
    return f"{value:+.{digits}f}".replace("-", "−")
