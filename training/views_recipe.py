"""Pages of recipes: choose one or read it from a file, count what it would give, and build it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from annotations.models import Resolution
from assistants.models import Assistant, Rendering
from assistants.policies import rules_of
from training.data.recipe import GROUPS, Recipe, RecipeError
from training.data.recipe_file import MAX_FILE, read_recipe, write_recipe
from training.data.services import start_preview
from training.models import Benchmark, DatasetPreview, DatasetVersion, Kind, Origin, Synthesis
from training.pages import ADMINS, AssistantForm, readable, render_page, require_admin_somewhere
from training.services import NotPossible, build_dataset
from training.views_dataset import funnel_lines, recipe_lines

NAMES_HELP = "One a line, or with commas."


class BuildForm(AssistantForm):
    """The recipe's fields come from the recipe itself, with its defaults."""

    benchmark = forms.ModelChoiceField(
        Benchmark.objects.none(),
        required=False,
        empty_label="none: nothing guards against leakage",
        help_text="Its questions, and what is nearly the same, are kept out of the dataset.",
    )
    synthesis = forms.ModelChoiceField(
        Synthesis.objects.none(),
        required=False,
        empty_label="none: labelled turns only",
        help_text="Its kept questions are offered beside the labelled turns.",
    )

    def __init__(self, *args: Any, user: Any, **kwargs: Any) -> None:
        super().__init__(*args, user=user, **kwargs)
        benchmark, synthesis = self.fields["benchmark"], self.fields["synthesis"]
        benchmark.queryset = Benchmark.objects.filter(assistant__in=self.own).select_related("assistant")  # type: ignore[attr-defined]
        benchmark.label_from_instance = lambda b: f"{b.name} ({b.assistant})"  # type: ignore[attr-defined]
        ended = Synthesis.objects.filter(assistant__in=self.own).exclude(pk__in=Synthesis.objects.active())
        synthesis.queryset = ended.select_related("assistant")  # type: ignore[attr-defined]
        synthesis.label_from_instance = (  # type: ignore[attr-defined]
            lambda s: f"{s}: {s.funnel.get('kept', 0)} kept ({s.assistant})"
        )
        for choice in fields(Recipe):
            self.fields[choice.name] = field_of(choice)
        if not self.is_bound:
            self.initial.setdefault("surrogates", self._policy_says())
            self.initial.setdefault("benchmark", benchmark.queryset.first())  # type: ignore[attr-defined]
            self.initial.setdefault("synthesis", synthesis.queryset.first())  # type: ignore[attr-defined]

    def _policy_says(self) -> bool:
        """What the privacy policy of the first assistant offered says about invented values."""
        first = self.own.first()
        return first is not None and rules_of(first).rendering == Rendering.SURROGATES

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean() or {}
        names = [choice.name for choice in fields(Recipe)]
        if all(name in cleaned for name in names):
            try:
                cleaned["recipe"] = Recipe.from_dict({name: cleaned[name] for name in names})
            except RecipeError as error:
                for sentence in str(error).split(". "):
                    name, _, rest = sentence.partition(" ")
                    known = name in names
                    self.add_error(name if known else None, f"This {rest.rstrip('.')}." if known else sentence)
        return cleaned

    @property
    def choices(self) -> list[Any]:
        return [self[name] for name in ("assistant", "benchmark", "synthesis")]

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The recipe's fields under their headings; open where something is wrong or not as by default."""
        made = []
        for group in GROUPS:
            bound = [self[choice.name] for choice in fields(Recipe) if choice.metadata["group"] == group]
            wrong = any(field.errors for field in bound)
            made.append({"name": group, "fields": bound, "open": wrong or any(map(self._changed, bound))})
        return made

    def _changed(self, field: Any) -> bool:
        return not self.is_bound and field.name in self.initial and field.name != "surrogates"


class NamesField(forms.CharField):
    """Names in one text."""

    widget = forms.Textarea(attrs={"rows": 2})

    def prepare_value(self, value: Any) -> Any:
        return "\n".join(value) if isinstance(value, (list, tuple)) else value

    def clean(self, value: Any) -> Any:
        text: str = super().clean(value)
        return [name for part in text.replace(",", "\n").split("\n") if (name := part.strip())]


def field_of(choice: Any) -> forms.Field:
    """The form field of one of the recipe's choices. What it allows is checked by the recipe."""
    shared: dict[str, Any] = {"label": choice.metadata["label"], "help_text": choice.metadata["help"]}
    default = choice.default
    if isinstance(default, bool):
        return forms.BooleanField(**shared, initial=default, required=False)
    if isinstance(default, tuple):
        shared["help_text"] = f"{shared['help_text']} {NAMES_HELP}".strip()
        return NamesField(**shared, required=False)
    if "choices" in choice.metadata:
        return forms.ChoiceField(
            **shared, initial=default, choices=[(one, one.capitalize()) for one in choice.metadata["choices"]]
        )
    if "day" in choice.metadata:
        return forms.CharField(**shared, required=False, max_length=10)
    kind = forms.IntegerField if isinstance(default, int) else forms.FloatField
    return kind(**shared, initial=default)


class FileForm(forms.Form):
    recipe_file = forms.FileField(label="Recipe file", help_text="YAML, as it is downloaded from here.")


def build_page(request: HttpRequest) -> HttpResponse:
    """Builds, counts first, gives the recipe as a file, or fills the form in from one: by the button's name."""
    require_admin_somewhere(request)
    user: Any = request.user
    asked = next((name for name in ("count", "download", "read") if name in request.POST), "build")
    if request.method == "POST" and asked == "read":
        return _from_file(request, user)
    form = BuildForm(request.POST or None, user=user, initial=_initial(request))
    if request.method == "POST" and form.is_valid():
        done = _act(form, asked, user)
        if done is not None:
            return done
    return _show(request, form)


def _act(form: BuildForm, asked: str, user: Any) -> HttpResponse | None:
    """None when it cannot be done; then the form says why."""
    values = form.cleaned_data
    given = {name: values[name] for name in ("assistant", "benchmark", "synthesis", "recipe")}
    if asked == "download":
        return recipe_response(values["recipe"], "recipe.yaml")
    try:
        if asked == "count":
            preview = start_preview(**given, created_by=user)
            return HttpResponseRedirect(reverse("admin:training_datasetpreview_change", args=[preview.pk]))
        dataset = build_dataset(**given, created_by=user)
    except (NotPossible, RecipeError) as error:
        form.add_error(None, str(error))
        return None
    return HttpResponseRedirect(reverse("admin:training_datasetversion_change", args=[dataset.pk]))


def _from_file(request: HttpRequest, user: Any) -> HttpResponse:
    upload = FileForm(request.POST, request.FILES)
    kept = {name: request.POST.get(name, "") for name in ("assistant", "benchmark", "synthesis")}
    if upload.is_valid():
        file = upload.cleaned_data["recipe_file"]
        try:
            if file.size > MAX_FILE:
                raise RecipeError(f"A recipe has at most {MAX_FILE:,} characters.")
            recipe = read_recipe(file.read().decode("utf-8-sig"))
        except UnicodeDecodeError:
            upload.add_error("recipe_file", "The file is not UTF-8.")
        except RecipeError as error:
            upload.add_error("recipe_file", str(error))
        else:
            form = BuildForm(None, user=user, initial={**changed_from_default(recipe.as_dict()), **kept})
            return _show(request, form, read=True)
    return _show(request, BuildForm(None, user=user, initial=kept), upload=upload)


def _initial(request: HttpRequest) -> dict[str, Any]:
    """``?preview=`` or ``?like=`` (a version): what that one was made with. The person must be able to read it."""
    for name, model in (("preview", DatasetPreview), ("like", DatasetVersion)):
        key = request.GET.get(name, "")
        if key.isdecimal() and len(key) < 18:
            manager: Any = model._default_manager
            found = readable(request, manager.select_related("assistant").filter(pk=key).first())
            return {
                **changed_from_default(found.recipe),
                "assistant": found.assistant_id,
                "benchmark": found.benchmark_id,
                "synthesis": found.synthesis_id,
            }
    return {name: request.GET[name] for name in ("assistant", "benchmark", "synthesis") if name in request.GET}


def changed_from_default(recipe: dict[str, Any]) -> dict[str, Any]:
    default = Recipe().as_dict()
    return {name: value for name, value in recipe.items() if name in default and value != default[name]}


def _show(request: HttpRequest, form: BuildForm, *, upload: FileForm | None = None, read: bool = False) -> HttpResponse:
    context = {
        "title": "Build a dataset",
        "form": form,
        "upload": upload or FileForm(),
        "read": read,
        "any_assistant": form.own.exists(),
        "resolved": Resolution.objects.filter(turn__assistant__in=form.own).exists(),
    }
    return render_page(request, "training/dataset_build.html", context)


def recipe_response(recipe: Recipe, name: str) -> HttpResponse:
    response = HttpResponse(write_recipe(recipe), content_type="application/yaml; charset=utf-8")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


@require_safe
def recipe_download(request: HttpRequest, pk: int) -> HttpResponse:
    """The recipe of a version as a file."""
    found = DatasetVersion.objects.select_related("assistant").filter(pk=pk).first()
    dataset = readable(request, found)
    try:
        recipe = Recipe.from_dict(dataset.recipe)
    except RecipeError:
        raise Http404("Its recipe has fields that there are no more.") from None
    return recipe_response(recipe, f"recipe-of-dataset-{dataset.number}.yaml")


def preview_page(
    request: HttpRequest, preview: DatasetPreview, panel: dict[str, Any], *, may_build: bool
) -> HttpResponse:
    result = preview.result
    mix: dict[str, dict[str, int]] = result.get("mix", {})
    context = {
        "title": str(preview),
        "preview": preview,
        "panel": panel,
        "result": result,
        "may_build": may_build and bool(result) and not result.get("nothing"),
        "may_manage": may_build,
        "funnel": funnel_lines(preview.funnel),
        "kinds": Kind.labels,
        "mix": [
            (label, [mix[origin].get(kind, 0) for kind in Kind.values], sum(mix[origin].values()))
            for origin, label in Origin.choices
            if origin in mix
        ],
        "samples": samples_of(preview),
        "recipe": [line for line in recipe_lines(preview.recipe) if line[1] != line[2]],
    }
    return render_page(request, "training/dataset_preview.html", context)


@require_POST
def preview_build(request: HttpRequest, pk: int) -> HttpResponse:
    """Builds what was counted: with the same recipe, of what is there by now."""
    rows = DatasetPreview.objects.select_related("assistant", "benchmark", "synthesis")
    preview = readable(request, rows.filter(pk=pk).first(), *ADMINS)
    actor: Any = request.user
    try:
        dataset = build_dataset(
            assistant=preview.assistant,
            benchmark=preview.benchmark,
            synthesis=preview.synthesis,
            recipe=Recipe.from_dict(preview.recipe),
            created_by=actor,
        )
    except (NotPossible, RecipeError) as error:
        messages.error(request, str(error))
        return HttpResponseRedirect(reverse("admin:training_datasetpreview_change", args=[pk]))
    return HttpResponseRedirect(reverse("admin:training_datasetversion_change", args=[dataset.pk]))


def samples_of(preview: DatasetPreview) -> list[dict[str, Any]]:
    """The sample rows with their texts: what users asked is read where it is kept, so that it is gone when it goes."""
    listed: list[dict[str, Any]] = preview.result.get("samples", [])
    keys = [sample["turn"] for sample in listed if "turn" in sample]
    rows = Resolution.objects.filter(turn__in=keys, turn__assistant=preview.assistant).select_related("turn")
    found = {str(row.turn_id): row for row in rows}
    labels = {"origin": dict(Origin.choices), "kind": dict(Kind.choices)}
    made = []
    for sample in listed:
        row = found.get(sample.get("turn", ""))
        told = {**sample, **{f"{name}_label": labels[name].get(sample[name], "") for name in labels}}
        if "turn" in sample:
            told["question"] = row.turn.question if row is not None else ""
            told["response"] = _learnt(sample, row, preview.assistant)
            told["gone"] = row is None
        made.append(told)
    return made


def _learnt(sample: dict[str, Any], row: Resolution | None, assistant: Assistant) -> str:
    if row is None:
        return ""
    if sample["origin"] == Origin.BAD:
        return row.turn.response
    return assistant.decline_sentence if sample["kind"] == Kind.DECLINE else row.response
