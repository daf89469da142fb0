"""Privacy policies in the admin: their history, one version with its differences, the edit page with a text to try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.decorators import method_decorator
from django.utils.safestring import SafeString
from django.views.decorators.debug import sensitive_post_parameters
from unfold.decorators import display

from assistants.access import assistants_of
from assistants.chips import cut, why
from assistants.models import Assistant, PrivacyPolicy, Role
from assistants.policies import (
    Difference,
    PolicyConflict,
    change_policy,
    differences,
    newest,
    restore_policy,
    rules_in,
)
from assistants.policy_form import PolicyForm
from assistants.presenting import moment
from assistants.scoped_admin import ScopedAdmin
from privacy.findings import HARD_TYPES, MaskedText, ScrubError

OFFICERS = (Role.PRIVACY.value, Role.ADMIN.value)
SHOWN_VALUES = 200


@admin.register(PrivacyPolicy)
class PrivacyPolicyAdmin(ScopedAdmin):
    """Only ever added to: a change makes the next version, a step back too."""

    view_roles = OFFICERS
    list_display = ("version", "assistant", "reason", "author", "when")
    list_filter = ("assistant",)
    list_select_related = ("assistant",)
    list_before_template = "assistants/policy_list_top.html"
    search_fields = ("reason", "author")
    show_full_result_count = False
    list_per_page = 50
    ordering = ("-created_at", "-pk")

    @display(description="Version", ordering="number")
    def version(self, row: PrivacyPolicy) -> str:
        return f"Version {row.number}" + (f" (brings back {row.restored_from})" if row.restored_from else "")

    @display(description="Saved", ordering="created_at")
    def when(self, row: PrivacyPolicy) -> SafeString | str:
        return moment(row.created_at)

    def get_urls(self) -> list[URLPattern]:
        staff = self.admin_site.admin_view
        own = [
            path("of/<int:pk>/", staff(self.edit_view), name="assistants_privacypolicy_edit"),
            path("<int:pk>/restore/", staff(self.restore_view), name="assistants_privacypolicy_restore"),
        ]
        return [*own, *super().get_urls()]

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        own = assistants_of(request.user, *OFFICERS).order_by("name")
        numbers: dict[int, int] = {}
        for key, number in PrivacyPolicy.objects.filter(assistant__in=own).values_list("assistant_id", "number"):
            numbers[key] = max(number, numbers.get(key, 0))
        rows = [(assistant, numbers.get(assistant.pk, 0)) for assistant in own[:100]]
        return super().changelist_view(request, {"policies": rows, **(extra_context or {})})

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """One version: what it says, and what it changed."""
        row = self._readable(request, object_id)
        versions = PrivacyPolicy.objects.filter(assistant=row.assistant)
        before = versions.filter(number__lt=row.number).order_by("-number").first()
        rules = rules_in(row)
        current = newest(row.assistant)
        assert current is not None
        return self._page(
            request, "assistants/policy.html", title=str(row), row=row, rules=rules, current=current,
            previous=before, next=versions.filter(number=row.number + 1).first(),
            changes=readable_differences(differences(rules_in(before), rules)),
            allow=rules.policy.allow[:SHOWN_VALUES], deny=rules.policy.deny[:SHOWN_VALUES], shown=SHOWN_VALUES,
            off=sorted(_words(kind) for kind in HARD_TYPES - rules.policy.entity_types),
            types=sorted(_words(kind) for kind in rules.policy.entity_types),
            trusted=sorted(_words(kind) for kind in rules.policy.trusted_types),
            since=readable_differences(differences(rules, rules_in(current))),
        )  # fmt: skip

    @method_decorator(sensitive_post_parameters())
    def edit_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """The form, the same form with a tried text, or the next version."""
        assistant = assistants_of(request.user, *OFFICERS).filter(pk=pk).first()
        if assistant is None:
            raise Http404("There is no such page.")
        rules = rules_in(newest(assistant))
        trying = request.method == "POST" and "try" in request.POST
        form = PolicyForm(request.POST or None, rules=rules, trying=trying)
        tried: Mapping[str, Any] | None = None
        if request.method == "POST" and form.is_valid():
            if trying:
                tried = _tried(form)
            elif saved := self._save(request, assistant, form):
                messages.success(
                    request, f"Version {saved.number} counts from now on. Turns stored earlier keep theirs."
                )
                return HttpResponseRedirect(reverse("admin:assistants_privacypolicy_change", args=[saved.pk]))
        return self._page(
            request, "assistants/policy_edit.html", title=f"Privacy policy of {assistant}", assistant=assistant,
            form=form, rules=rules, tried=tried,
        )  # fmt: skip

    def restore_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        row = self._readable(request, str(pk))
        user: Any = request.user
        try:
            saved = restore_policy(version=row, actor=user, reason=request.POST.get("reason", ""))
        except (ValidationError, PolicyConflict) as error:
            messages.error(request, _sentence(error))
            return HttpResponseRedirect(reverse("admin:assistants_privacypolicy_change", args=[row.pk]))
        messages.success(request, f"Version {saved.number} brings version {row.number} back.")
        return HttpResponseRedirect(reverse("admin:assistants_privacypolicy_change", args=[saved.pk]))

    def _save(self, request: HttpRequest, assistant: Assistant, form: PolicyForm) -> PrivacyPolicy | None:
        user: Any = request.user
        try:
            rules = form.rules()
            return change_policy(assistant=assistant, rules=rules, actor=user, reason=form.cleaned_data["reason"])
        except (ValidationError, PolicyConflict, ValueError) as error:
            form.add_error(None, _sentence(error))
            return None

    def _readable(self, request: HttpRequest, pk: str) -> PrivacyPolicy:
        if not self.has_view_permission(request):
            raise PermissionDenied
        row: PrivacyPolicy | None = self.get_object(request, pk)
        if row is None:
            raise Http404("There is no such page.")
        return row

    def _page(self, request: HttpRequest, template: str, **context: Any) -> HttpResponse:
        response = TemplateResponse(
            request, template, {**self.admin_site.each_context(request), "opts": self.opts, **context}
        )
        response.headers["Cache-Control"] = "no-store"  # its lists are personal data
        return response


def _tried(form: PolicyForm) -> Mapping[str, Any]:
    """What the edited policy does to the sample: pieces to show, and one row for each finding."""
    from privacy.scrubber import Scrubber

    text: str = form.cleaned_data["sample"]
    kind: Any = form.cleaned_data["sample_kind"] or "user"
    try:
        masked = Scrubber(form.rules().policy).scrub_text(text, kind=kind)
    except (ScrubError, ValueError) as error:
        return {"problem": str(error) if isinstance(error, ScrubError) else "These settings cannot be applied."}
    return {"pieces": cut(masked.text, _reasons(masked)), "rows": _rows(masked, text)}


def _reasons(masked: MaskedText) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for span in masked.spans:
        if span.recognizer != "existing":
            found.setdefault(
                masked.text[span.start : span.end],
                {
                    "recognizer": span.recognizer,
                    "score": span.score,
                    "context_word": span.context_word,
                    "uncertain": span.uncertain,
                },
            )
    return found


def _rows(masked: MaskedText, text: str) -> list[dict[str, Any]]:
    return [
        {
            "placeholder": masked.text[span.start : span.end],
            "value": text[span.original_start : span.original_end],
            "why": why({"recognizer": span.recognizer, "score": span.score, "context_word": span.context_word}),
            "uncertain": span.uncertain,
        }
        for span in masked.spans
        if span.recognizer != "existing"
    ]


_LABELS = {
    "entity_types": "types masked",
    "trusted_types": "types masked in own documents",
    "allow": "never masked",
    "deny": "always masked",
    "trust_contexts": "own documents are trusted",
    "review_days": "days that uncertain values wait",
    "rendering": "datasets write",
    "documents": "documents when they are loaded",
    "regions": "countries of telephone formats",
}


def readable_differences(found: list[Difference]) -> list[dict[str, Any]]:
    """Each with its name in words, and at most `SHOWN_VALUES` values of a list."""
    rows = []
    for difference in found:
        name, _, kind = difference.name.partition(" ")
        label = _LABELS.get(difference.name) or f"{name.replace('_', ' ').rstrip('s')} of {_words(kind)}"
        is_list = isinstance(difference.after, list)
        rows.append(
            {
                "label": label,
                "added": difference.added[:SHOWN_VALUES],
                "removed": difference.removed[:SHOWN_VALUES],
                "more": max(0, len(difference.added) + len(difference.removed) - 2 * SHOWN_VALUES),
                "before": None if is_list else _shown(difference.before),
                "after": None if is_list else _shown(difference.after),
                "is_list": is_list,
                "reordered": is_list and not (difference.added or difference.removed),
            }
        )
    return rows


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else str(value)


def _words(kind: str) -> str:
    return kind.replace("_", " ").lower()


def _sentence(error: Exception) -> str:
    return " ".join(error.messages) if isinstance(error, ValidationError) else str(error)
