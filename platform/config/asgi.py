"""The web process: `uvicorn config.asgi:application`."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("RATCHET_PROCESS", "web")

from django.core.asgi import get_asgi_application

_django = get_asgi_application()

from config.intake import dispatching  # noqa: E402 - middleware can be loaded once Django is set up

application = dispatching(_django)
