#!/usr/bin/env python
"""Puts the checkout and its source root `platform/` on the path, then runs Django."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    root = Path(__file__).resolve().parent
    for folder in (root / "platform", root):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

    from config.cli import run

    run(sys.argv)


if __name__ == "__main__":
    main()
