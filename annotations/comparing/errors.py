"""Why a choice was not taken; the message is for the person at the page."""

from __future__ import annotations

from annotations.errors import LabelRefused


class RoundClosed(LabelRefused):
    def __init__(self) -> None:
        super().__init__("This comparison has been closed, so nothing was stored. What you chose before counts.")


class AlreadyChosen(LabelRefused):
    """A second tab, or a form that was sent again with something else."""

    def __init__(self) -> None:
        super().__init__("You have judged this pair already, and that choice stays. Undo (u) takes it back.")


class NothingToTakeBack(LabelRefused):
    def __init__(self) -> None:
        super().__init__("There is no choice of yours to take back in this comparison.")
