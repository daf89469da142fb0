"""`manage.py import_turns export.jsonl --assistant helpdesk`: takes logs of other systems into capture."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser, OutputWrapper

from assistants.models import Assistant
from capture.imports.formats import NAMES, format_of
from capture.imports.mapped import ColumnMap, merged, parse_map, read_map
from capture.imports.opening import open_source
from capture.imports.outcome import Report, Tally
from capture.imports.posting import DryPoster, LivePoster
from capture.imports.progress import Display
from capture.imports.running import Run
from capture.imports.sources import Source
from capture.imports.state import Progress, StateFile
from capture.imports.units import ImportProblem

MAX_BATCH = 1000
SOME_REFUSED = 3
"""Exit code of an import that came to its end and refused something."""


class _Stopped(BaseException):
    """SIGTERM: like Ctrl-C, with an exit code of its own."""


class _Plain:
    """Writes as it is told: Django's wrapper would colour it and end every line."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out

    def write(self, text: str, /) -> None:
        self._out.write(text, str, "")

    def flush(self) -> None:
        self._out.flush()


class Command(BaseCommand):
    help = "Imports turns with their contexts and feedback from files; a killed import goes on where it stopped."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("files", nargs="+", metavar="FILE", help="JSONL, JSON, CSV or Parquet; gzip or not")
        parser.add_argument("--assistant", required=True, help="slug of the assistant")
        parser.add_argument("--format", choices=NAMES, help="told from the file when left out")
        parser.add_argument("--map", metavar="PAIRS", help="of csv: question=COLUMN,response=COLUMN,…")
        parser.add_argument("--map-file", metavar="JSON", help="of csv: the same as {target: column or columns}")
        parser.add_argument("--dry-run", action="store_true", help="check and count, write nothing")
        parser.add_argument("--report", metavar="FILE", help="what was refused and why, as JSONL")
        parser.add_argument("--batch", type=int, default=200, help=f"turns at a time, 1 to {MAX_BATCH} (200)")
        parser.add_argument("--max-waiting", type=int, default=10_000,
                            help="wait while that many items are in quarantine (10000)")  # fmt: skip
        parser.add_argument("--restart", action="store_true", help="from the start; what is known changes nothing")
        parser.add_argument("--quiet", action="store_true", help="no progress, only the summary")

    def handle(self, *args: Any, **options: Any) -> None:
        display = Display(_Plain(self.stderr), live=self.stderr.isatty(), quiet=options["quiet"])
        previous = signal.signal(signal.SIGTERM, _stop) if _in_main_thread() else None
        try:
            tally = self._import(options, display)
        except ImportProblem as error:
            display.end()
            raise CommandError(str(error)) from None
        except (KeyboardInterrupt, _Stopped) as error:
            display.end()
            again = "" if options["dry_run"] else " Run the same command again to go on from here."
            self.stderr.write(f"Stopped.{again}")
            sys.exit(143 if isinstance(error, _Stopped) else 130)
        finally:
            if previous is not None:
                signal.signal(signal.SIGTERM, previous)
        display.end()
        if options["dry_run"]:
            for example in tally.examples:
                self.stderr.write(example)
        for line in tally.lines(dry=options["dry_run"]):
            self.stdout.write(line)
        if tally.refused:
            sys.exit(SOME_REFUSED)

    def _import(self, options: dict[str, Any], display: Display) -> Tally:
        assistant = _assistant(options["assistant"])
        _check_numbers(options)
        mapping = _mapping(options)
        sources = [open_source(Path(name), place) for place, name in enumerate(options["files"])]
        chosen = format_of(sources, options["format"], mapping)
        dry = options["dry_run"]
        state = None if dry else _state(assistant, sources, [chosen.name, mapping.text() if mapping else ""])
        progress = (state.load() if state and not options["restart"] else None) or Progress()
        names = ", ".join(source.path.name for source in sources)
        display.say(f"{names}: {chosen.name} into {assistant.slug}{' (dry run)' if dry else ''}")
        if progress.units:
            display.say(f"Going on after {progress.rows:,} records of an import that was stopped.")
        report_path = Path(options["report"]) if options["report"] else None
        if report_path and any(report_path.exists() and report_path.samefile(source.path) for source in sources):
            raise ImportProblem(f"--report would write over {report_path.name}, which is to be imported. Name another.")
        if report_path and (earlier := _not_in(report_path, progress)):
            self.stderr.write(
                f"{report_path.name} gets what is refused from here on. {earlier:,} records were refused before; they "
                "are in the report of the attempt that was stopped, if it wrote one. --restart reads all of it again."
            )
        report = Report(report_path, [source.path.name for source in sources], progress.report)
        try:
            return Run(
                assistant=assistant,
                sources=sources,
                format=chosen,
                poster=DryPoster(assistant)
                if dry
                else LivePoster(
                    assistant, max_waiting=options["max_waiting"], say=display.say, client=f"import/{chosen.name}"
                ),
                report=report,
                display=display,
                batch=options["batch"],
                folder=settings.VAR_DIR,
                state=state,
                progress=progress,
            ).run()
        finally:
            report.close()


def _not_in(report: Path, progress: Progress) -> int:
    """How many were refused by earlier attempts that this report does not hold."""
    goes_on = progress.report and report.exists() and report.stat().st_size >= progress.report
    return 0 if goes_on else sum(progress.reasons.values())


def _assistant(slug: str) -> Assistant:
    found = Assistant.objects.filter(slug=slug).first()
    if found is None:
        known = ", ".join(Assistant.objects.values_list("slug", flat=True)[:20]) or "there is none yet"
        raise ImportProblem(f"There is no assistant {slug!r} (known: {known}).")
    return found


def _check_numbers(options: dict[str, Any]) -> None:
    if not 1 <= options["batch"] <= MAX_BATCH:
        raise ImportProblem(f"--batch must be from 1 to {MAX_BATCH}.")
    if options["max_waiting"] < 1:
        raise ImportProblem("--max-waiting must be at least 1.")


def _mapping(options: dict[str, Any]) -> ColumnMap | None:
    from_file = read_map(Path(options["map_file"])) if options["map_file"] else None
    given = parse_map(options["map"]) if options["map"] else None
    return merged(from_file, given)


def _state(assistant: Assistant, sources: list[Source], described: list[str]) -> StateFile:
    return StateFile(settings.VAR_DIR / "imports", assistant=assistant, sources=sources, settings=described)


def _in_main_thread() -> bool:
    import threading

    return threading.current_thread() is threading.main_thread()


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _Stopped
