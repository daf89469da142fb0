"""The OpenAI-compatible addresses."""

from __future__ import annotations

from django.urls import path

from serving import api

urlpatterns = [
    path("chat/completions", api.chat_completions, name="chat-completions"),
    path("models", api.models, name="models"),
    path("models/<path:name>", api.models, name="model"),
]
