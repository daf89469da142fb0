"""The web process: `uvicorn config.asgi:application`."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("RATCHET_PROCESS", "web")

from django.core.asgi import get_asgi_application

application = get_asgi_application()
