"""How models/names is made: templates and word lists, the generator of labelled texts, trainer, calibration.

Runs on a developer's machine (`make names-data`, `make names-train`); nothing here is imported by web or worker.
"""
