"""What a person reads instead of a page: that there is none, that it is not for them, or that something broke."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.template.loader import render_to_string

_SAID = {
    400: ("This could not be read", "What was sent is damaged, or larger than a page takes. Go back and try again."),
    403: (
        "This is not for you",
        "None of your roles opens it. An admin of the assistant gives roles, on the assistant's own page.",
    ),
    404: ("There is nothing here", "It was deleted meanwhile, or the address is wrong."),
    405: (
        "Nothing was done",
        "This takes the press of a button, which logging in again does not repeat. Go back and press it once more.",
    ),
    500: ("Something went wrong on our side", "It has been logged. What you had typed is still there if you go back."),
}
_STALE = (
    "Nothing was done",
    "The form is older than your session: somebody has logged in or out here since. Go back, reload the page, and send "
    "it again.",
)


def error_page(request: HttpRequest, status: int) -> HttpResponse:
    """The words of an exception stay out of it: they may name what its reader may not know of."""
    return _page(request if status < 500 else None, status, *_SAID[status])


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return _page(request, 403, *_STALE)


def _page(request: HttpRequest | None, status: int, title: str, said: str) -> HttpResponse:
    context = {"status": status, "title": title, "said": said}
    if request is None:  # nothing is asked of the database, which may be what broke
        return HttpResponse(render_to_string("config/error.html", context), status=status)
    return render(request, "config/error.html", context, status=status)
