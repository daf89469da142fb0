"""The page **Playground**: ask, see what was retrieved, the prompt and the answer, from one arm or two side by side."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from annotations.models import Queue
from assistants.access import assistants_of, has_role
from assistants.models import Assistant, Role
from generation.engines import EngineError
from serving import chat
from serving.playground.asking import ask_arms
from serving.playground.keeping import NotKept, Shown, seal, send_to_queue, unseal, with_line
from serving.wire import MAX_PASSAGES
from training.data.benchmark import BenchmarkError
from training.models import Kind
from training.services import NotPossible, start_benchmark

READERS = (Role.ADMIN, Role.REVIEWER)
MAX_QUESTION = 4000
MAX_ADAPTERS = 200
SIDES = ("a", "b")


class AskForm(forms.Form):
    """The question, and who answers it."""

    question = forms.CharField(
        max_length=MAX_QUESTION,
        widget=forms.Textarea(
            attrs={"rows": 3, "autofocus": True, "placeholder": "Ask as a customer would. Ctrl-Enter asks."}
        ),
    )
    a = forms.ChoiceField(label="Arm A")
    b = forms.ChoiceField(label="Arm B", required=False)
    k = forms.IntegerField(
        label="Passages", required=False, min_value=0, max_value=MAX_PASSAGES, help_text="0: without retrieval."
    )
    evidence_sentences = forms.IntegerField(label="Evidence sentences", required=False, min_value=1, max_value=40)
    follow = forms.BooleanField(label="A follow-up of answer A", required=False)

    def __init__(self, *args: Any, models: list[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        slug = models[0]
        named = [(name, _arm_label(name, slug)) for name in models]
        a, b = cast("forms.ChoiceField", self.fields["a"]), cast("forms.ChoiceField", self.fields["b"])
        a.choices, b.choices = named, [("", "nobody"), *named]

    def options(self) -> dict[str, Any]:
        names = ("k", "evidence_sentences")
        return {name: self.cleaned_data[name] for name in names if self.cleaned_data[name] is not None}


def _arm_label(name: str, slug: str) -> str:
    version = name.removeprefix(slug).lstrip(":")
    return {"": "what is live", "base": "base model"}.get(version, f"adapter {version}")


@require_http_methods(["GET", "POST"])
def playground(request: HttpRequest) -> HttpResponse:
    """``?assistant=`` its slug; ``?q=`` a question to begin with. What a POST does says ``action``."""
    own = assistants_of(request.user, *READERS)
    wanted = request.POST.get("assistant") or request.GET.get("assistant", "")
    assistant = own.filter(slug=wanted).first() or (None if wanted else own.order_by("pk").first())
    if assistant is None:
        raise PermissionDenied("Only admins and reviewers of an assistant ask here.")
    page = _Page(request, assistant)
    if request.method == "POST":
        # What the page holds of the last answers; a new question replaces it.
        page.shown = page.carried()
        {"ask": page.ask, "add": page.add, "freeze": page.freeze, "send": page.send}.get(
            request.POST.get("action", "ask"), page.ask
        )()
    return page.response(own.order_by("name"))


class _Page:
    """One request, and what it answers with."""

    def __init__(self, request: HttpRequest, assistant: Assistant) -> None:
        self.request, self.assistant = request, assistant
        self.models = chat.models_of(assistant)[: MAX_ADAPTERS + 2]
        start = {"question": request.GET.get("q", "")[:MAX_QUESTION], "a": self.models[0]}
        asked = request.method == "POST"
        self.form = AskForm(request.POST if asked else None, models=self.models, initial=start)
        for name, here in (("k", assistant.retrieval_k), ("evidence_sentences", assistant.evidence_sentences)):
            self.form.fields[name].widget.attrs["placeholder"] = f"as live: {here}"
        self.shown: dict[str, Shown] = {}
        self.problems: list[str] = []
        self.draft = request.POST.get("draft", "").replace("\x00", "")
        self.frozen = ""
        self.may_keep = has_role(request.user, assistant, Role.ADMIN)
        self.queues = list(Queue.objects.filter(assistant=assistant).order_by("-pk")[:100]) if self.may_keep else []

    def carried(self) -> dict[str, Shown]:
        found = {}
        for side in SIDES:
            if sealed := self.request.POST.get(f"sealed_{side}", ""):
                try:
                    found[side] = unseal(self.assistant, sealed)
                except NotKept as lost:
                    if self.request.POST.get("action") in ("add", "send"):
                        self.problems.append(str(lost))
        return found

    def ask(self) -> None:
        before, self.shown = self.shown.get("a"), {}
        if not self.form.is_valid():
            return
        values = self.form.cleaned_data
        sides = dict(zip(SIDES, filter(None, (values["a"], values["b"])), strict=False))
        try:
            answers = ask_arms(
                assistant=self.assistant,
                models=list(sides.values()),
                question=values["question"].replace("\x00", " ").strip(),
                history=before.history if before is not None and values["follow"] else [],
                retrieval_options=self.form.options(),
            )
        except (EngineError, chat.UnknownModel, chat.ForeignPrompt) as error:
            self.problems.append(str(error))
            return
        for side, said in zip(sides, answers, strict=True):
            if said.result is None:
                self.problems.append(f"{_arm_label(said.model, self.assistant.slug)}: {said.problem}")
            else:
                self.shown[side] = unseal(self.assistant, seal(said))

    def add(self) -> None:
        self._require_admin()
        shown = self._chosen()
        if shown is None:
            return
        post = self.request.POST
        kind = post.get("kind", "")
        try:
            self.draft = with_line(
                self.draft, shown, kind=kind, answer=post.get("answer", "")[:MAX_QUESTION], gold=post.getlist("gold")
            )
        except (NotKept, BenchmarkError) as error:
            self.problems.append(str(error))
        else:
            messages.success(self.request, "The question stands in the draft, in this browser only until it is frozen.")

    def freeze(self) -> None:
        self._require_admin()
        try:
            upload = start_benchmark(
                assistant=self.assistant,
                name=self.request.POST.get("name", ""),
                content=self.draft,
                created_by=cast("User", self.request.user),
            )
        except (NotPossible, BenchmarkError) as error:
            self.problems.append(str(error))
        else:
            self.frozen = reverse("admin:training_benchmarkupload_change", args=[upload.pk])

    def send(self) -> None:
        self._require_admin()
        shown = self._chosen()
        queue = next((q for q in self.queues if str(q.pk) == self.request.POST.get("queue", "")), None)
        if queue is None:
            self.problems.append("Choose a queue of this assistant.")
        if shown is None or queue is None:
            return
        try:
            new = send_to_queue(shown=shown, queue=queue, actor=cast("User", self.request.user))
        except NotKept as error:
            self.problems.append(str(error))
        else:
            messages.success(self.request, f"The answer is {'now' if new else 'already'} in the queue “{queue}”.")

    def response(self, assistants: Any) -> HttpResponse:
        if self.frozen:
            return HttpResponseRedirect(f"{self.frozen}")
        wrong = bool(self.problems) or (self.request.method == "POST" and bool(self.form.errors) and not self.shown)
        context = {
            **admin.site.each_context(self.request),
            "title": "Playground",
            "assistant": self.assistant,
            "assistants": assistants,
            "form": self.form,
            "shown": [(side, _arm_label(s.model, self.assistant.slug), s) for side, s in self.shown.items()],
            "first": next(iter(self.shown.values()), None),
            "problems": self.problems,
            "draft": self.draft,
            "drafted": sum(1 for line in self.draft.splitlines() if line.strip()),
            "kinds": Kind.choices,
            # What was typed comes back with a refusal.
            "typed": self.request.POST if self.problems else {},
            "ticked": self.request.POST.getlist("gold") if self.problems else [],
            "queues": self.queues,
            "may_keep": self.may_keep,
        }
        return TemplateResponse(self.request, "serving/playground.html", context, status=422 if wrong else 200)

    def _chosen(self) -> Shown | None:
        shown = self.shown.get(self.request.POST.get("which", "a"))
        if shown is None and not self.problems:
            self.problems.append("Ask something first; then its answer can be kept.")
        return shown

    def _require_admin(self) -> None:
        if not self.may_keep:
            raise PermissionDenied("Only admins of the assistant keep what was asked here.")
