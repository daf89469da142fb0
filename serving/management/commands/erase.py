"""``manage.py erase``: the same erasure as on the page, for scripts and for machines without a browser."""

from __future__ import annotations

import getpass
import json
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from assistants.background import BackgroundWork
from assistants.models import Assistant
from assistants.performing import perform_here
from serving.erasure.record import Erasure
from serving.erasure.scope import SEARCH_FIELDS, Scope, ScopeError
from serving.erasure.services import ErasureRefused, confirm, go_on, look
from serving.erasure.survey import survey


class Command(BaseCommand):
    help = (
        "Erases what a user, a conversation, single turns or a search name, here and now, and prints the receipt as "
        "JSON. Look first with --dry-run. An erasure that was interrupted is finished with --go-on NUMBER."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--assistant", required=True, help="Slug of the assistant.")
        parser.add_argument("--user", help="The user, as the chatbot sends them in metadata.user.")
        parser.add_argument("--conversation", help="The id of the conversation.")
        parser.add_argument("--turn", action="append", default=[], help="Id of a turn; may be given more than once.")
        parser.add_argument(
            "--search", action="append", default=[], metavar="NAME=VALUE",
            help=f"A filter of the list of turns ({', '.join(SEARCH_FIELDS)}); all that are given must hold.",
        )  # fmt: skip
        parser.add_argument("--reason", default="", help="Why; it stays on the receipt. Do not name the person.")
        parser.add_argument("--dry-run", action="store_true", help="Count what would go; touch nothing.")
        parser.add_argument("--go-on", type=int, metavar="NUMBER", help="Finish an erasure that was interrupted.")

    def handle(self, *args: Any, **options: Any) -> None:
        assistant = Assistant.objects.filter(slug=options["assistant"]).first()
        if assistant is None:
            raise CommandError("There is no such assistant.")
        try:
            if options["go_on"]:
                self._finish(_of(assistant, options["go_on"]))
                return
            scope = _scope(options).check()
            if options["dry_run"]:
                self._print(survey(assistant, scope))
                return
            self._erase(assistant, scope, options["reason"])
        except (ScopeError, ErasureRefused) as error:
            raise CommandError(str(error)) from None

    def _erase(self, assistant: Assistant, scope: Scope, reason: str) -> None:
        if not reason.strip():
            raise CommandError("Say why with --reason: the receipt carries it. Or look first with --dry-run.")
        erasure = look(assistant=assistant, scope=scope, actor=None)
        self._perform(erasure)
        name = f"{getpass.getuser()} (command line)"
        self._perform(confirm(erasure=erasure, actor=None, reason=reason, name=name))
        self._told(erasure)

    def _finish(self, erasure: Erasure) -> None:
        self._perform(go_on(erasure=erasure, actor=None))
        self._told(erasure)

    def _perform(self, erasure: Erasure) -> None:
        """Here, unless a worker was faster: then it waits for it."""
        perform_here(erasure)
        erasure.refresh_from_db()
        if erasure.is_active:
            raise CommandError(f"{erasure} is being performed by a worker. Its page shows how far it is.")

    def _told(self, erasure: Erasure) -> None:
        erasure.refresh_from_db()
        if erasure.state != BackgroundWork.State.SUCCEEDED:
            raise CommandError(f"{erasure.error} Finish it with --go-on {erasure.pk}.")
        self._print(erasure.receipt)

    def _print(self, content: dict[str, Any]) -> None:
        self.stdout.write(json.dumps(content, indent=2, ensure_ascii=False))


def _of(assistant: Assistant, number: int) -> Erasure:
    found = Erasure.objects.filter(assistant=assistant, pk=number).first()
    if found is None:
        raise CommandError("This assistant has no such erasure.")
    return found


def _scope(options: dict[str, Any]) -> Scope:
    given = [name for name in ("user", "conversation", "turn", "search") if options[name]]
    if len(given) != 1:
        raise CommandError("Give exactly one of --user, --conversation, --turn and --search.")
    search: dict[str, str] = {}
    for pair in options["search"]:
        name, equals, value = pair.partition("=")
        if not equals or name in search:
            raise CommandError("A --search is NAME=VALUE, and each name is given once.")
        search[name] = value
    return Scope(
        kind=given[0],
        value=options["user"] or options["conversation"] or "",
        turns=tuple(options["turn"]),
        search=search,
    )
