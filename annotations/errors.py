"""Why a label was not taken. Bad content is a `django.core.exceptions.ValidationError` with the field's name."""

from __future__ import annotations


class LabelRefused(Exception):
    """Base: nothing was stored, and the message says what to do, in words for the person at the page."""


class AlreadyDone(LabelRefused):
    """The lease had ended, and others have labelled the item or are at it."""

    def __init__(self) -> None:
        super().__init__(
            "Others have labelled this one meanwhile, or are at it. Your work is kept here until you go on."
        )


class ItemGone(LabelRefused):
    """The turn was erased or taken out of the queue."""

    def __init__(self) -> None:
        super().__init__("This item is not in the queue any more. Go on with the next one.")


class AlreadySettled(LabelRefused):
    """A reviewer has settled the turn: the label behind it can no longer be taken back."""

    def __init__(self) -> None:
        super().__init__("A reviewer has settled that turn, so your label on it stays.")


class SettledMeanwhile(LabelRefused):
    """Another verdict than the one that the reviewer saw stands by now."""

    def __init__(self) -> None:
        super().__init__(
            "The verdict of this turn has changed since you opened it, so yours was not stored. "
            "See what stands now; settle again to overrule it."
        )


class NothingToUndo(LabelRefused):
    def __init__(self) -> None:
        super().__init__("There is nothing of yours to take back in this queue.")


class NotSettled(LabelRefused):
    """Only a turn with a resolution can be an item with a known answer."""

    def __init__(self) -> None:
        super().__init__("This turn has no verdict that counts yet: settle it first, then mark it.")


class TooManyGold(LabelRefused):
    def __init__(self, most: int) -> None:
        super().__init__(f"This queue has {most} items with known answers, and that is the most it may have.")


class CannotScrub(LabelRefused):
    """Personal data could not be looked for, so what was typed must not be stored."""

    def __init__(self) -> None:
        super().__init__(
            "What you typed could not be checked for personal data, so nothing was stored. Try again in a moment."
        )
