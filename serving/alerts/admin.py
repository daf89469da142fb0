"""The pages of alerts: what is wrong now and was, and whom it is told to."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.db.models import Count, Q, QuerySet
from django.forms import ModelForm
from django.http import HttpRequest
from django.utils.html import format_html

from assistants.models import Role
from assistants.scoped_admin import ScopedAdmin
from assistants.services import audit
from serving.alerts.models import Alert, AlertChannel
from serving.alerts.watching import acknowledge
from serving.alerts.webhooks import change_key, key_of

READERS = (Role.ADMIN.value, Role.REVIEWER.value, Role.PRIVACY.value)
MOST_KEYS = 10
SIGNS = {"urgent": "✗", "warning": "!", "news": "·"}


class OpenFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", "Open"), ("over", "Over")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Alert]) -> QuerySet[Alert]:
        if self.value() in ("open", "over"):
            return queryset.filter(cleared_at__isnull=self.value() == "open")
        return queryset


@admin.register(Alert)
class AlertAdmin(ScopedAdmin):
    when_empty = "Nothing has needed anybody's attention."
    view_roles = READERS
    change_roles = READERS  # to acknowledge; every field is read only
    list_display: ClassVar = ("sign", "what", "assistant", "raised_at", "over", "seen_by", "told")
    list_display_links: ClassVar = None
    list_filter: ClassVar = (OpenFilter, "level", "kind", "assistant")
    list_select_related: ClassVar = ("assistant", "acknowledged_by")
    search_fields: ClassVar = ("sentence",)
    list_per_page = 50
    actions: ClassVar = ("acknowledge_chosen",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        told = Count("deliveries", filter=Q(deliveries__sent_at__isnull=False))
        late = Count("deliveries", filter=Q(deliveries__sent_at=None) & ~Q(deliveries__error=""))
        return super().get_queryset(request).annotate(n_told=told, n_late=late)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> list[str]:
        return [field.name for field in Alert._meta.fields]

    @admin.display(description="", ordering="level")
    def sign(self, obj: Alert) -> str:
        return f"{SIGNS[obj.level]} {obj.get_level_display()}"

    @admin.display(description="What")
    def what(self, obj: Alert) -> str:
        return format_html('<a href="{}">{}</a>', obj.link, obj.sentence) if obj.link else obj.sentence

    @admin.display(description="Over", ordering="cleared_at", empty_value="open")
    def over(self, obj: Alert) -> Any:
        return obj.cleared_at

    @admin.display(description="Seen by")
    def seen_by(self, obj: Alert) -> str:
        return obj.acknowledged_by.get_username() if obj.acknowledged_by else "–"

    @admin.display(description="Told")
    def told(self, obj: Any) -> str:
        return f"{obj.n_told}" + (f", {obj.n_late} did not arrive yet" if obj.n_late else "")

    @admin.action(description="I have seen these")
    def acknowledge_chosen(self, request: HttpRequest, queryset: QuerySet[Alert]) -> None:
        user: Any = request.user
        done = acknowledge(
            alerts=Alert.objects.filter(pk__in=queryset.values("pk")).select_related("assistant"), by=user
        )
        self.message_user(request, f"{done} alerts are marked as seen.", messages.SUCCESS)


@admin.register(AlertChannel)
class AlertChannelAdmin(ScopedAdmin):
    view_roles = add_roles = change_roles = delete_roles = (Role.ADMIN.value,)
    list_display: ClassVar = ("address", "kind", "assistant", "level", "enabled", "state")
    list_filter: ClassVar = ("kind", "level", "enabled", "assistant")
    list_select_related: ClassVar = ("assistant",)
    search_fields: ClassVar = ("address",)
    actions: ClassVar = ("try_out", "change_keys")

    @admin.display(description="Last delivery")
    def state(self, obj: AlertChannel) -> str:
        last = obj.deliveries.first()
        if last is None:
            return "nothing sent yet"
        return f"✗ {last.error}" if last.error else "✓ arrived" if last.sent_at else "waits"

    @admin.action(description="Send a test alert")
    def try_out(self, request: HttpRequest, queryset: QuerySet[AlertChannel]) -> None:
        from serving.alerts.trying import send_test

        for channel in queryset[:10]:
            error = send_test(channel)
            text = f"{channel}: {error or 'the test alert was taken.'}"
            self.message_user(request, text, messages.ERROR if error else messages.SUCCESS)

    @admin.action(description="Make a new signing key")
    def change_keys(self, request: HttpRequest, queryset: QuerySet[AlertChannel]) -> None:
        user: Any = request.user
        hooks = queryset.filter(kind=AlertChannel.Kind.WEBHOOK).select_related("assistant")
        for channel in hooks[:MOST_KEYS]:
            self._show_key(request, channel, change_key(channel=channel, by=user))
        if not hooks:
            self.message_user(request, "Only webhooks have a signing key.", messages.ERROR)

    def save_model(self, request: HttpRequest, obj: AlertChannel, form: ModelForm[AlertChannel], change: bool) -> None:
        super().save_model(request, obj, form, change)
        user: Any = request.user
        action = "alert_channel.changed" if change else "alert_channel.added"
        audit(assistant=obj.assistant, actor=user, action=action, target=f"{obj.kind} {obj.pk}")
        if obj.kind != AlertChannel.Kind.WEBHOOK:
            return
        if not change:
            self._show_key(request, obj, key_of(obj))
        elif {"address", "kind", "assistant"} & set(form.changed_data):
            # Who received before knows the old one, and could write to the new receiver with it.
            self._show_key(request, obj, change_key(channel=obj, by=user))

    def _show_key(self, request: HttpRequest, channel: AlertChannel, key: str) -> None:
        text = "Signing key of {}: {} It is not shown again; a new one can be made at any time."
        self.message_user(request, format_html(text, channel.address, key), messages.SUCCESS)

    def delete_model(self, request: HttpRequest, obj: AlertChannel) -> None:
        user: Any = request.user
        audit(assistant=obj.assistant, actor=user, action="alert_channel.removed", target=f"{obj.kind} {obj.pk}")
        super().delete_model(request, obj)
