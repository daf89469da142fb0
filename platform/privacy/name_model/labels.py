"""What the name model says about a piece."""

from __future__ import annotations

TYPES = ("PERSON", "LOCATION", "ADDRESS")
LABELS = ("O", *(f"{mark}-{name}" for name in TYPES for mark in "BI"))
"""O, then beginning and inside of each type."""
WINDOW = 128
"""Pieces that are read together, without the two special ones."""
OVERLAP = 32
