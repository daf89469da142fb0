"""Who may call an API view that does not say so."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.request import Request


class Nobody(BasePermission):
    """The default: a view must name its own permission; forgetting it locks the view instead of opening it."""

    def has_permission(self, request: Request, view: Any) -> bool:
        return False
