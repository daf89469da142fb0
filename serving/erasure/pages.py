"""Pages of erasures: ask, look at the dry run, confirm with a reason, keep the receipt."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.template.response import TemplateResponse
from django.urls import reverse

from assistants.access import assistants_of, has_role
from assistants.models import Assistant, Role
from assistants.vault import PayloadUnreadable
from serving.erasure.receipt import is_genuine
from serving.erasure.record import Erasure
from serving.erasure.scope import SEARCH_FIELDS, Scope, ScopeError, unseal
from serving.erasure.services import ErasureRefused, confirm, go_on, look
from training.erasing import holding_erased

PRIVACY = (Role.PRIVACY.value,)
SHOWN = 50
_WIDE = forms.Textarea(attrs={"rows": 3, "cols": 30})


class LookForm(forms.Form):
    """What to erase. Only what belongs to the chosen kind is read."""

    assistant = forms.ModelChoiceField(Assistant.objects.none(), empty_label=None)
    kind = forms.ChoiceField(label="Erase", choices=Erasure.Kind.choices)
    value = forms.CharField(
        label="User or conversation", required=False, max_length=500,
        help_text="As your chatbot names them: what it sends as metadata.user (of a mapping its id, else its e-mail "
        "address, else its name) or as conversation. A user_key from the page of a turn works too.",
    )  # fmt: skip
    turns = forms.CharField(
        label="Turns", required=False, max_length=60_000, widget=_WIDE, help_text="Ids, ours or the chatbot's."
    )  # fmt: skip
    q = forms.CharField(label="Words", required=False, max_length=500, help_text="As in the list of turns.")
    since = forms.CharField(label="Asked since", required=False, max_length=40, help_text="2026-01-31 or with a time.")
    until = forms.CharField(label="Asked before", required=False, max_length=40)
    adapter = forms.CharField(required=False, max_length=120)
    model = forms.CharField(required=False, max_length=200)
    tag = forms.CharField(required=False, max_length=60)
    declined = forms.ChoiceField(required=False, choices=[("", "Either"), ("true", "Declined"), ("false", "Answered")])
    feedback = forms.ChoiceField(
        required=False,
        choices=[("", "Any or none"), ("up", "▲ Good"), ("down", "▼ Bad"), ("any", "Some"), ("none", "None")],
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["assistant"].queryset = assistants_of(user, *PRIVACY)  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        kind = cleaned.get("kind", "")
        named = kind in (Erasure.Kind.USER, Erasure.Kind.CONVERSATION)
        search = {name: cleaned.get(name, "") for name in SEARCH_FIELDS}
        scope = Scope(
            kind=kind,
            value=cleaned.get("value", "") if named else "",
            turns=tuple(cleaned.get("turns", "").split()) if kind == Erasure.Kind.TURN else (),
            search=search if kind == Erasure.Kind.SEARCH else {},
        )
        try:
            cleaned["scope"] = scope.check()
        except ScopeError as error:
            field = "value" if named else "turns" if kind == Erasure.Kind.TURN else "q"
            self.add_error(field if kind else "kind", str(error))
        return cleaned

    @property
    def what(self) -> list[Any]:
        return [self[name] for name in ("assistant", "kind", "value", "turns")]

    @property
    def search(self) -> list[Any]:
        return [self[name] for name in SEARCH_FIELDS]


def ask_page(request: HttpRequest) -> HttpResponse:
    user: Any = request.user
    form = LookForm(request.POST or None, user=user, initial=request.GET.dict())
    if request.method == "POST" and form.is_valid():
        values = form.cleaned_data
        erasure = look(assistant=values["assistant"], scope=values["scope"], actor=user)
        return HttpResponseRedirect(reverse("admin:serving_erasure_change", args=[erasure.pk]))
    return _page(request, "serving/erasure_ask.html", {"title": "Erase", "form": form})


def erasure_page(request: HttpRequest, erasure: Erasure, panel: dict[str, Any]) -> HttpResponse:
    officer = has_role(request.user, erasure.assistant, *PRIVACY)
    told = erasure.plan if erasure.is_dry else {**erasure.plan, **erasure.affected}
    downloads = told.get("downloads", [])
    context = {
        "title": str(erasure),
        "erasure": erasure,
        "panel": panel,
        "officer": officer,
        "scope": _scope_lines(erasure) if officer else [],
        "told": told,
        "counts": sorted((erasure.plan.get("counts", {}) if erasure.is_dry else erasure.counts).items()),
        "downloads": downloads[:SHOWN],
        "more_downloads": max(0, len(downloads) - SHOWN),
        "genuine": is_genuine(erasure.receipt) if erasure.is_done else None,
        "to_retrain": list(holding_erased(erasure.assistant).only("number")[:SHOWN]) if erasure.is_done else [],
    }
    return _page(request, "serving/erasure.html", context)


def confirm_from_page(request: HttpRequest, erasure: Erasure) -> HttpResponse:
    """The number of turns is typed again: a click alone must not erase a thousand conversations."""
    user: Any = request.user
    if request.POST.get("turns", "").strip() != str(erasure.plan.get("turns", "")):
        messages.error(request, "Type the number of turns that the dry run found, to show that you have read it.")
    else:
        try:
            confirm(erasure=erasure, actor=user, reason=request.POST.get("reason", ""))
            messages.success(request, "It is being erased. This cannot be taken back.")
        except ErasureRefused as refused:
            messages.error(request, str(refused))
    return HttpResponseRedirect(reverse("admin:serving_erasure_change", args=[erasure.pk]))


def go_on_from_page(request: HttpRequest, erasure: Erasure) -> HttpResponse:
    user: Any = request.user
    try:
        go_on(erasure=erasure, actor=user)
        messages.success(request, "It goes on where it stopped.")
    except ErasureRefused as refused:
        messages.error(request, str(refused))
    return HttpResponseRedirect(reverse("admin:serving_erasure_change", args=[erasure.pk]))


def receipt_download(erasure: Erasure) -> HttpResponse:
    response = JsonResponse(erasure.receipt, json_dumps_params={"indent": 2, "ensure_ascii": False})
    response.headers["Content-Disposition"] = f'attachment; filename="erasure-{erasure.pk}.json"'
    return response


def _scope_lines(erasure: Erasure) -> list[tuple[str, str]]:
    """What was asked, for the officer, as long as it is needed."""
    try:
        scope, _ = unseal(erasure)
    except (ScopeError, PayloadUnreadable):
        return []
    plain = scope.plain()
    turns = plain["turns"][:SHOWN]
    lines = [("Named", plain["value"]), ("Turns", ", ".join(turns)), *plain["search"].items()]
    return [(name, value) for name, value in lines if value]


def _page(request: HttpRequest, template: str, context: dict[str, Any]) -> TemplateResponse:
    return TemplateResponse(request, template, {**admin.site.each_context(request), **context})
