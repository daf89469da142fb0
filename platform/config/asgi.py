"""The web process: `uvicorn config.asgi:application`."""

from __future__ import annotations

import gc
import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("RATCHET_PROCESS", "web")

from django.core.asgi import get_asgi_application

_django = get_asgi_application()

from django.urls import get_resolver  # noqa: E402 - as the next

from config.intake import dispatching  # noqa: E402 - middleware can be loaded once Django is set up

application = dispatching(_django)

get_resolver().url_patterns  # noqa: B018 - imports all views now, not in the first request
# What was loaded stays for good. Looking through it again and again took three quarters of the time in which a batch is
# validated: every batch makes enough objects for several full collections (docs/log.md).
gc.collect()
gc.freeze()
# What one batch makes is gone by its count, and is not looked through several times while it is made.
gc.set_threshold(20_000, 10, 10)
