"""Runs for programs: start, list, look, cancel. Another scope than logging and asking: a run costs a machine's time."""

from __future__ import annotations

from typing import Any, ClassVar

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from assistants.auth import ApiKeyAuthentication, HasScope, require_scope
from assistants.errors import ApiError
from assistants.limits import KeyThrottle
from assistants.models import ApiKey, Assistant, Scope
from capture.bodies import read_json
from capture.describing import problems
from capture.negotiation import OneKind
from generation.engines import EngineError
from training.finetune.config import ConfigError, FinetuneConfig
from training.finetune.methods import METHODS
from training.finetune.preflight import as_json, preflight
from training.models import Adapter, DatasetVersion, Run, TrainingProvider
from training.services import NotPossible, cancel, start_run

MAX_LIMIT = 100
ASKED = ("dataset", "method", "continues", "provider", "seed", "settings", "check")


class RunShape(serializers.Serializer[Run]):
    id = serializers.IntegerField()
    state = serializers.ChoiceField(choices=Run.State.values)
    method = serializers.ChoiceField(choices=METHODS)
    dataset = serializers.IntegerField(help_text="Number of the dataset version.")
    continues = serializers.IntegerField(allow_null=True, help_text="Number of the adapter that it continues.")
    provider = serializers.CharField(allow_null=True, help_text="Name of the provider that trains it; null: here.")
    seed = serializers.IntegerField()
    settings = serializers.DictField()
    done = serializers.IntegerField(help_text="Steps.")
    total = serializers.IntegerField()
    loss = serializers.FloatField(allow_null=True)
    validation_loss = serializers.FloatField(allow_null=True)
    tokens_per_second = serializers.FloatField(allow_null=True)
    eta_seconds = serializers.FloatField(allow_null=True)
    error = serializers.CharField(allow_blank=True, help_text="One sentence with what to do.")
    adapter = serializers.IntegerField(allow_null=True, help_text="Number of the adapter that came of it.")
    created_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)


class RunPage(serializers.Serializer[Any]):
    runs = RunShape(many=True)
    next = serializers.IntegerField(allow_null=True, help_text="`before` of the next page.")


class RunAsked(serializers.Serializer[Any]):
    dataset = serializers.IntegerField(help_text="Number of a frozen dataset version.")
    method = serializers.ChoiceField(choices=("auto", *METHODS), required=False, help_text="Default: auto.")
    continues = serializers.IntegerField(required=False, allow_null=True, help_text="Number of an adapter.")
    provider = serializers.CharField(
        required=False,
        allow_null=True,
        help_text="Name of a provider of the assistant, with the scope `providers`: the rows leave this platform.",
    )
    seed = serializers.IntegerField(required=False, min_value=0, max_value=2**31 - 1, help_text="Default: 1.")
    settings = serializers.DictField(required=False, help_text="As in docs/training.md; what is left out is chosen.")
    check = serializers.BooleanField(required=False, help_text="Starts nothing: says what the run would do.")


class _RunsView(APIView):
    authentication_classes = (ApiKeyAuthentication,)
    permission_classes = (HasScope,)
    throttle_classes = (KeyThrottle,)
    content_negotiation_class = OneKind
    scopes: ClassVar[dict[str, str]] = {"GET": Scope.TRAIN, "POST": Scope.TRAIN}


class RunsView(_RunsView):
    """``/api/v1/runs``."""

    @extend_schema(
        operation_id="runs_list",
        tags=["Train"],
        summary="List runs, newest first",
        parameters=[
            OpenApiParameter("state", str, enum=Run.State.values),
            OpenApiParameter("before", {"type": "integer", "minimum": 1}, description="`next` of the page before."),
            OpenApiParameter(
                "limit", {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT}, description="Default: 50."
            ),
        ],
        responses={200: RunPage, **problems(422)},
    )
    def get(self, request: Request) -> Response:
        limit = _whole(request, "limit", 50, MAX_LIMIT)
        before = _whole(request, "before", 2**31 - 1, 2**31 - 1)
        rows = _rows(_assistant(request)).filter(pk__lt=before).order_by("-pk")
        state = request.query_params.get("state")
        if state is not None:
            if state not in Run.State.values:
                raise _bad("state", f"must be one of {', '.join(Run.State.values)}")
            rows = rows.filter(state=state)
        found = list(rows[: limit + 1])
        page = found[:limit]
        return Response({"runs": [_shape(run) for run in page], "next": page[-1].pk if len(found) > limit else None})

    @extend_schema(
        operation_id="runs_create",
        tags=["Train"],
        summary="Start a run, or ask what it would do",
        description="What is wrong with the data or the settings is one sentence, before anything starts (422). With "
        "`check` the answer is 200 with rows, lengths, memory and time.",
        request={"application/json": RunAsked},
        responses={201: RunShape, 200: serializers.DictField(), **problems(404, 413, 415, 422)},
    )
    def post(self, request: Request) -> Response:
        key = request.auth
        assert isinstance(key, ApiKey)
        assistant = key.assistant
        body = read_json(request._request)
        asked = _asked(body)
        dataset = DatasetVersion.objects.filter(assistant=assistant, number=asked["dataset"]).first()
        if dataset is None:
            raise ApiError(404, detail="There is no such dataset.", errors=[_wrong("dataset", "no such dataset")])
        parent = None
        if asked["continues"] is not None:
            parent = Adapter.objects.filter(assistant=assistant, number=asked["continues"]).first()
            if parent is None:
                raise ApiError(404, detail="There is no such adapter.", errors=[_wrong("continues", "no such adapter")])
        provider = None
        if asked["provider"] is not None:
            # A key for this machine's time is no key for sending what people wrote to somebody else's.
            require_scope(key, Scope.PROVIDERS)
            # By its name: numbers of providers are shown nowhere.
            provider = TrainingProvider.objects.filter(assistant=assistant, name=asked["provider"]).first()
            if provider is None:
                wrong = [_wrong("provider", "no such provider")]
                raise ApiError(404, detail="There is no such provider.", errors=wrong)
        try:
            settings = FinetuneConfig.from_dict(asked["settings"])
            if asked["check"]:
                found = preflight(
                    dataset=dataset, settings=settings, method=asked["method"], parent=parent, provider=provider
                )
                return Response(as_json(found))
            run = start_run(
                assistant=assistant,
                dataset=dataset,
                settings=settings,
                seed=asked["seed"],
                method=asked["method"],
                parent=parent,
                provider=provider,
                key=key,
            )
        except ConfigError as error:
            raise _bad("settings", str(error)) from error
        except (NotPossible, EngineError) as error:
            raise ApiError(422, detail=str(error)) from error
        return Response(_shape(run), status=201)


class RunView(_RunsView):
    """``/api/v1/runs/{id}``."""

    @extend_schema(
        operation_id="runs_get", tags=["Train"], summary="One run", responses={200: RunShape, **problems(404)}
    )
    def get(self, request: Request, pk: int) -> Response:
        return Response(_shape(_one(request, pk)))


class RunCancelView(_RunsView):
    """``/api/v1/runs/{id}/cancel``."""

    scopes: ClassVar[dict[str, str]] = {"POST": Scope.TRAIN}

    @extend_schema(
        operation_id="runs_cancel",
        tags=["Train"],
        summary="Stop a run",
        description="A queued run is cancelled at once, a running one at its next step, with a checkpoint. Cancelling "
        "what has ended changes nothing.",
        request=None,
        responses={200: RunShape, **problems(404)},
    )
    def post(self, request: Request, pk: int) -> Response:
        run = _one(request, pk)
        assert isinstance(request.auth, ApiKey)
        cancel(work=run, actor=None, key=request.auth)
        return Response(_shape(_one(request, pk)))


def _assistant(request: Request) -> Assistant:
    assert isinstance(request.auth, ApiKey)
    return request.auth.assistant


def _rows(assistant: Assistant) -> Any:
    return Run.objects.filter(assistant=assistant).select_related("dataset", "parent", "adapter", "provider")


def _one(request: Request, pk: int) -> Run:
    run: Run | None = _rows(_assistant(request)).filter(pk=pk).first() if pk < 2**31 else None
    if run is None:
        raise ApiError(404, detail="There is no such run.")
    return run


def _shape(run: Run) -> dict[str, Any]:
    progress = run.progress
    adapter = getattr(run, "adapter", None)
    return {
        "id": run.pk,
        "state": run.state,
        "method": run.method,
        "dataset": run.dataset.number,
        "continues": run.parent.number if run.parent else None,
        "provider": run.provider.name if run.provider else None,
        "seed": run.seed,
        "settings": {**run.settings, **progress.get("start", {}).get("settings", {})},
        "done": progress.get("done") or 0,
        "total": progress.get("total") or 0,
        "loss": progress.get("loss"),
        "validation_loss": progress.get("validation_loss"),
        "tokens_per_second": progress.get("tokens_per_second"),
        "eta_seconds": progress.get("eta_seconds"),
        "error": run.error,
        "adapter": adapter.number if adapter is not None else None,
        "created_at": run.created_at.isoformat(),
        "finished_at": run.finished_at.isoformat() if run.finished_at else None,
    }


def _asked(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ApiError(422, detail="Send one JSON object.")
    unknown = sorted(set(body) - set(ASKED))
    if unknown:
        raise _bad(str(unknown[0])[:60], f"is not known; there are {', '.join(ASKED)}")
    asked = {
        "method": "auto", "continues": None, "provider": None, "seed": 1, "settings": {}, "check": False, **body
    }  # fmt: skip
    numbers = {"dataset": asked.get("dataset"), "continues": asked["continues"], "seed": asked["seed"]}
    for name, value in numbers.items():
        if name == "continues" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**31:
            raise _bad(name, "must be a whole number")
    if asked["method"] not in ("auto", *METHODS):
        raise _bad("method", f"must be auto or one of {', '.join(METHODS)}")
    named = asked["provider"]
    if named is not None and not (isinstance(named, str) and 1 <= len(named) <= 80 and "\x00" not in named):
        raise _bad("provider", "must be the name of a provider")
    if not isinstance(asked["settings"], dict) or not all(isinstance(name, str) for name in asked["settings"]):
        raise _bad("settings", "must be an object")
    if not isinstance(asked["check"], bool):
        raise _bad("check", "must be true or false")
    return asked


def _whole(request: Request, name: str, default: int, maximum: int) -> int:
    value = request.query_params.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdecimal() and len(value) < 11 and 1 <= int(value) <= maximum):
        raise _bad(name, f"must be a whole number of 1 to {maximum}")
    return int(value)


def _wrong(field: str, message: str) -> dict[str, Any]:
    return {"field": field, "message": message}


def _bad(field: str, message: str) -> ApiError:
    return ApiError(422, detail=f"{field}: {message}", errors=[_wrong(field, message)])
