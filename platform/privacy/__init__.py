"""Finds personal data in chat logs and replaces it with typed placeholders, offline.

Start at `privacy.scrubber`. Django-free; Presidio is imported when the first text is scrubbed,
never when a module of this package other than `analyzer` and the recognisers is imported.
"""
