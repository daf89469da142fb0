"""The demo's three annotators: their labels go through the service that the labelling page calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from django.contrib.auth.models import User

from annotations.models import Annotation, Queue
from annotations.services import add_turns, submit
from assistants.models import Assistant, Role
from assistants.services import grant_role
from capture.models import Turn
from serving.demo.content import ANNOTATORS, DemoTurn, Label
from serving.demo.frontend import ideal_answer, says

GUIDELINE = """A **good** answer is the sentence of the pages that answers, word for word, with the page it comes from.

* The **Green Book** counts. An answer from the Blue Book is *wrong*.
* Where the pages do not answer, the only good answer is the decline sentence.
* Somebody in an emergency, in debt, bereaved or threatened goes to the care team: hand over, whatever the pages say.
"""


def make_annotators(assistant: Assistant) -> dict[str, User]:
    """The three people, with the role of annotator (Ruth also reviews). They have no password: an admin may set one."""
    people = {}
    for username, name in ANNOTATORS.items():
        first, _, last = name.partition(" ")
        user, created = User.objects.get_or_create(
            username=username, defaults={"first_name": first, "last_name": last, "is_staff": True}
        )
        if created:
            user.set_unusable_password()
            user.save(update_fields=["password"])
        grant_role(assistant=assistant, user=user, role=Role.ANNOTATOR)
        people[username] = user
    grant_role(assistant=assistant, user=people["ruth"], role=Role.REVIEWER)
    return people


def label_turns(
    assistant: Assistant, people: dict[str, User], turns: Sequence[DemoTurn], progress: Callable[[int, int], None]
) -> int:
    """Gives every authored label that is not there yet; how many were given."""
    queues = make_queues(assistant)
    by_id = {turn.id: turn for turn in turns}
    rows = Turn.objects.of(assistant).filter(client_id__in=by_id).with_contexts().order_by("asked_at")
    stored = {row.client_id: row for row in rows}
    for need, queue in queues.items():
        add_turns(queue=queue, turns=[turn for key, turn in stored.items() if looks(by_id[key]) == need])
    current = Annotation.objects.current().filter(turn__assistant=assistant)
    given = set(current.values_list("turn__client_id", "annotator__username"))
    todo = [
        (by_id[key], turn, label)
        for key, turn in stored.items()
        for label in by_id[key].labels
        if (key, label.annotator) not in given
    ]
    for done, (authored, turn, label) in enumerate(todo, start=1):
        _submit(queues[looks(authored)], authored, turn, label, people[label.annotator])
        if done % 20 == 0 or done == len(todo):
            progress(done, len(todo))
    return len(todo)


def make_queues(assistant: Assistant) -> dict[int, Queue]:
    """{labels that each turn needs: queue}. Turns without an authored label wait in the first one for you."""
    names = {1: "First look", 2: "Second look", 3: "Three looks"}
    return {
        need: Queue.objects.get_or_create(
            assistant=assistant, name=name, defaults={"guideline": GUIDELINE, "labels_needed": need}
        )[0]
        for need, name in names.items()
    }


def looks(turn: DemoTurn) -> int:
    return max(1, len(turn.labels))


def _submit(queue: Queue, authored: DemoTurn, turn: Turn, label: Label, annotator: User) -> None:
    passages = [(r.rank, r.source, r.passage.text) for r in turn.retrievals.all()]
    bad = label.verdict == "bad"
    correction = (authored.raw.get("correction") or ideal_answer(authored, passages)) if bad else ""
    first = bool(authored.labels) and authored.labels[0].annotator == label.annotator
    submit(
        queue=queue,
        turn=turn,
        annotator=annotator,
        verdict=label.verdict,
        reasons=label.reasons,
        correction=correction,
        marks={rank: _relevance(authored, source, text) for rank, source, text in passages},
        note=(authored.raw.get("note") or "") if first else "",
        seconds=6.0 + (len(authored.question) % 17),
    )


def _relevance(authored: DemoTurn, source: str, text: str) -> str:
    holds_gold = any(source == path and says(text, sentence) for path, sentence in authored.gold)
    return "relevant" if holds_gold else "not_relevant"
