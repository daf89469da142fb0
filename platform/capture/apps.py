from __future__ import annotations

from django.apps import AppConfig


class CaptureConfig(AppConfig):
    name = "capture"
    verbose_name = "Capture"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from capture import export_guard
        from capture.leaks import guard_export

        export_guard.register(guard_export)
