"""A teacher behind a real local HTTP server: what it writes, and what happens when it is slow, busy or babbles."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from assistants.models import Assistant
from generation.prompts import PromptStyle, split_sentences
from tests.servers import serving
from tests.training.synthesis.test_generate import adds_up, run, start, tariffs
from training.models import Synthesis
from training.services import NotPossible, go_on_with_synthesis, start_synthesis
from training.synthesis import generate
from training.synthesis.plan import Plan
from training.synthesis.teacher import Nonsense, read_personas, read_reply

__all__ = ["tariffs"]
Answer = Callable[[str], Response]
PLAN: dict[str, Any] = {"writer": "teacher", "mix": {"single": 1.0}, "personas": 0, "answer_check": "never"}


class Teacher:
    """Chat completions as such servers speak them. ``answer`` may take over; None: it asks well."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.keys: list[str] = []
        self.answer: Callable[[str], Response | None] = lambda prompt: None

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self.complete, methods=["POST"])])

    async def complete(self, request: Request) -> Response:
        import asyncio

        body = await request.json()
        prompt = "\n".join(m["content"] for m in body["messages"])
        self.prompts.append(prompt)
        self.keys.append(request.headers.get("authorization", ""))
        answer = await asyncio.to_thread(self.answer, prompt)
        return answer or completion(well(prompt))


def completion(text: str) -> Response:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
    return JSONResponse({"choices": [choice], "usage": {"prompt_tokens": 100, "completion_tokens": 20}})


def well(prompt: str) -> str:
    """A good reply: it asks for the words of the sentence that is marked, in another order."""
    lines = dict(re.findall(r"^\[(\d+)\] (.+)$", prompt, re.M))
    if '"personas"' in prompt:
        return 'Sure! {"personas": ["A tenant who moves out and reads no small print."]}'
    if "none of the sentences gives" in prompt:
        return json.dumps({"question": "Which colour does the welcome folder for new pensioners have?"})
    marked = re.search(r"sentence \[(\d+)\]", prompt)
    number = marked.group(1) if marked else "1"
    told = [w for w in re.findall(r"[A-Za-z]{3,}", lines[number]) if w.lower() not in ("the", "and", "per", "for")]
    asked = f"Could you tell me about {' '.join(told[::-1][:6])}?"
    said = {"question": asked, "sentences": [int(number)], "answer": lines[number]}
    if "follow-up" in prompt:
        said |= {"first": "What does your house offer to tenants?", "first_sentences": [1]}
    return f"```json\n{json.dumps(said)}\n```"


@pytest.fixture
def teacher(settings: Any) -> Iterator[Teacher]:
    teacher = Teacher()
    with serving(teacher.app()) as address:
        settings.RATCHET_TEACHER_BASE_URL = f"{address}/v1"
        settings.RATCHET_TEACHER_API_KEY = "sk-teacher"
        settings.RATCHET_TEACHER_MODEL = "big"
        yield teacher


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waiting for a busy teacher is only noted."""
    waited: list[float] = []
    monkeypatch.setattr("training.synthesis.asking_each.ask_each.__kwdefaults__", {"sleep": waited.append})
    return waited


def test_it_writes_with_lineage_and_its_answers_come_from_the_documents(tariffs: Assistant, teacher: Teacher) -> None:
    plan = {**PLAN, "mix": {"single": 0.6, "follow_up": 0.4}, "personas": 2, "teacher_model": "bigger"}
    synthesis = run(start(tariffs, wanted=6, plan=plan))
    assert (synthesis.state, synthesis.error) == ("succeeded", "")
    assert adds_up(synthesis)
    kept = list(synthesis.items.filter(dropped_by=""))
    assert {"single", "follow_up"} == {item.form for item in kept}
    for item in kept:
        assert (item.lineage["writer"], item.lineage["model"], item.lineage["tokens"]) == ("teacher", "bigger", 120)
        assert len(item.lineage["prompt"]) == 16
        told = [s for p in item.contexts["passages"] for s in split_sentences(p["text"])]
        assert all(sentence["text"] in told for sentence in item.answer)
    assert set(teacher.keys) == {"Bearer sk-teacher"}
    assert [p["text"] for p in synthesis.personas] == ["A tenant who moves out and reads no small print."] * 2
    assert any("A tenant who moves out" in prompt for prompt in teacher.prompts if '"personas"' not in prompt)
    assert synthesis.funnel["tokens"] >= 120 * len(kept)


def test_where_passages_are_cited_its_own_words_stand_and_are_held_against_them(
    tariffs: Assistant, teacher: Teacher
) -> None:
    tariffs.prompt_style = PromptStyle.PASSAGES
    tariffs.save()

    def wrong_number(prompt: str) -> Response | None:
        said = json.loads(well(prompt).strip("`json\n"))
        if "72" in said["answer"]:
            said["answer"] = said["answer"].replace("72", "27")
        return completion(json.dumps(said | {"answer": f"{said['answer']} Yes."}))

    teacher.answer = wrong_number
    synthesis = run(start(tariffs, wanted=20, plan={**PLAN, "max_attempts": 1}))
    dropped = synthesis.items.filter(dropped_by="not supported")
    assert ["27" in item.note for item in dropped] == [True]
    kept = synthesis.items.filter(dropped_by="").first()
    assert kept is not None
    assert kept.answer[0]["text"].endswith("Yes.")


def test_one_that_is_slow_busy_or_babbles_costs_only_its_own_items(
    tariffs: Assistant, teacher: Teacher, impatient: list[float]
) -> None:
    troubles: dict[str, Callable[[], Response]] = {
        "Owl costs 30p": lambda: (time.sleep(1.6), PlainTextResponse("late"))[1],
        "Drift costs 27p": lambda: JSONResponse({"error": {"message": "slow down"}}, 429, {"retry-after": "3"}),
        "check costs £72": lambda: completion("I would rather talk about the weather."),
        "report is sent": lambda: JSONResponse({"error": "broken"}, 500),
        "service takes 90": lambda: completion('{"question": "Fine?", "sentences": [99]}'),
        "deposit is paid": lambda: PlainTextResponse("<html>proxy</html>"),
    }
    busy_once = {"n": 0}

    def trouble(prompt: str) -> Response | None:
        number = re.search(r"sentence \[(\d+)\]", prompt)
        line = re.search(rf"^\[{number.group(1)}\] (.+)$", prompt, re.M) if number else None
        if line and "bill is printed" in line.group(1) and not busy_once["n"]:
            busy_once["n"] = 1
            return JSONResponse({"error": {"message": "slow down"}}, 429, {"retry-after": "2"})
        return next((make() for words, make in troubles.items() if line and words in line.group(1)), None)

    teacher.answer = trouble
    synthesis = run(start(tariffs, wanted=30, plan={**PLAN, "request_seconds": 1, "max_attempts": 1}))
    assert (synthesis.state, synthesis.error) == ("succeeded", "")
    assert adds_up(synthesis)
    notes = {item.response: item.note for item in synthesis.items.filter(dropped_by="no usable reply")}
    said = " ".join(synthesis.items.filter(dropped_by="no usable reply").values_list("note", flat=True))
    assert len(notes) >= 1
    for sentence in ("did not answer in time", "slow down", "no JSON object", "status 500", "not shown", "no chat"):
        assert sentence in said, (sentence, said)
    assert synthesis.funnel["dropped"]["no usable reply"] == 6
    assert synthesis.funnel["kept"] >= 4
    assert busy_once["n"] == 1
    assert 2.0 in impatient  # what the busy one asked for was waited
    assert {3.0, 6.0} <= set(impatient)


def test_a_dropped_one_is_tried_again_with_the_reason_and_no_more_often_than_allowed(
    tariffs: Assistant, teacher: Teacher
) -> None:
    teacher.answer = lambda prompt: (
        None
        if "An earlier try" in prompt
        else completion(
            '{"question": "The passage?", \
"sentences": [1]}'
        )
    )
    synthesis = run(start(tariffs, wanted=30, plan={**PLAN, "max_attempts": 2}))
    again = [prompt for prompt in teacher.prompts if "An earlier try was of no use" in prompt]
    assert again
    assert synthesis.items.filter(attempt=2, dropped_by="").exists()
    assert not synthesis.items.filter(attempt__gt=2).exists()
    firsts = synthesis.items.filter(attempt=1).count()
    assert synthesis.items.filter(attempt=2).count() <= firsts
    tasks = list(synthesis.items.values_list("task", "attempt"))
    assert len(tasks) == len(set(tasks))


def test_a_dead_teacher_stops_the_work_and_it_goes_on_later(
    tariffs: Assistant, teacher: Teacher, monkeypatch: pytest.MonkeyPatch, django_capture_on_commit_callbacks: Any
) -> None:
    monkeypatch.setattr(generate, "TEACHER_BATCH", 3)
    alive = {"for": 3}

    def dying(prompt: str) -> Response | None:
        alive["for"] -= 1
        return None if alive["for"] >= 0 else JSONResponse({"error": "gone"}, 502)

    teacher.answer = dying
    synthesis = run(start(tariffs, wanted=12, plan={**PLAN, "max_attempts": 3}))
    assert synthesis.state == "failed"
    assert "go on when it answers again" in synthesis.error
    kept = set(synthesis.items.filter(dropped_by="").values_list("pk", flat=True))
    assert synthesis.funnel["kept"] == len(kept)

    alive["for"] = 10**6
    with monkeypatch.context() as patch:
        patch.setattr("training.services.launch", lambda work: None)
        with django_capture_on_commit_callbacks(execute=True):
            go_on_with_synthesis(synthesis=synthesis, actor=None)
    synthesis.refresh_from_db()
    assert (synthesis.state, synthesis.attempt, synthesis.error) == ("queued", 0, "")
    synthesis = run(synthesis)
    assert synthesis.state == "succeeded", synthesis.error
    assert kept < set(synthesis.items.filter(dropped_by="").values_list("pk", flat=True))
    assert adds_up(synthesis)
    with pytest.raises(NotPossible, match="failed or was cancelled"):
        go_on_with_synthesis(synthesis=synthesis, actor=None)


def test_without_a_teacher_nothing_starts(tariffs: Assistant, settings: Any) -> None:
    settings.RATCHET_TEACHER_BASE_URL = settings.RATCHET_OPENAI_BASE_URL = ""
    with pytest.raises(NotPossible, match="No teacher"):
        start_synthesis(assistant=tariffs, wanted=3, plan=Plan(writer="teacher"))
    synthesis = run(start(tariffs, plan=PLAN))  # taken away meanwhile
    assert (synthesis.state, "No teacher" in synthesis.error) == ("failed", True)
    assert not Synthesis.objects.filter(state="succeeded").exists()


def test_a_prompt_gives_documents_no_way_out(tariffs: Assistant, teacher: Teacher) -> None:
    run(start(tariffs, wanted=2, plan=PLAN))
    assert teacher.prompts
    for prompt in teacher.prompts:
        assert prompt.count("</passage>") == prompt.count("<passage ")


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("single", ""), ("single", "no"), ("single", "[1]"), ("single", "{"), ("single", '{"question": 3}'),
        ("single", '{"question": "What?", "sentences": "1"}'), ("single", '{"question": "What?", "sentences": [0]}'),
        ("single", '{"question": "What?", "sentences": [true]}'), ("single", '{"question": "What?"}'),
        ("single", '{"question": "' + "a" * 700 + '", "sentences": [1]}'), ("near_miss", '{"question": " "}'),
        ("follow_up", '{"question": "And?", "sentences": [1]}'), ("single", "{" * 5000 + "}" * 5000),
    ],
)  # fmt: skip
def test_nonsense_is_named(form: str, text: str) -> None:
    with pytest.raises(Nonsense):
        read_reply(form, text, 4)
    with pytest.raises(Nonsense):
        read_personas('{"personas": "me"}')
