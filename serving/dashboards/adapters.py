"""Taking an adapter back: one click, one reason."""

from __future__ import annotations

from typing import cast

from django.contrib import messages
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import get_object_or_404
from django.urls import reverse
from django.views.decorators.http import require_POST

from assistants.access import require_role
from assistants.models import Assistant, Role
from serving.services import PromotionRefused, roll_back


@require_POST
def roll_back_from_page(request: HttpRequest, slug: str) -> HttpResponse:
    assistant = get_object_or_404(Assistant, slug=slug)
    require_role(request.user, assistant, Role.ADMIN)
    try:
        promotion = roll_back(
            assistant=assistant, actor=cast("User", request.user), reason=request.POST.get("reason", "")[:2000]
        )
        messages.success(request, f"Rolled back: {promotion.to_adapter or 'the base model'} is live.")
    except PromotionRefused as refused:
        messages.error(request, str(refused))
    return HttpResponseRedirect(reverse("admin:serving_deployment_changelist"))
