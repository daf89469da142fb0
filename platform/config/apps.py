from __future__ import annotations

from django.apps import AppConfig


class ConfigConfig(AppConfig):
    """The project as an app: it brings the commands `up` and `dbserver` and the system checks."""

    name = "config"
    verbose_name = "Platform"

    def ready(self) -> None:
        from config import checks  # noqa: F401
