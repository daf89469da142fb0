"""Finds personal data in chat logs and replaces it with typed placeholders, offline.

Start at `privacy.scrubber`. Django-free, and without torch, spaCy or Presidio, since web processes scrub too: the
modules `presidio_…` are the yardstick of tests and of a benchmark.
"""
