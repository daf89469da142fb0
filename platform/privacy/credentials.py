"""Secrets (keys, passwords, codes) and user names."""

from __future__ import annotations

from collections.abc import Iterator

import regex

from privacy.gazetteer import FUNCTION_WORDS, gazetteer
from privacy.scanning import Features, Hit, PatternScan, ScanRecognizer, bounded
from privacy.wordlists import words

_PREFIXED = regex.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,255}"
    r"|github_pat_[A-Za-z0-9_]{20,255}|glpat-[\w\-]{16,64}|(?:sk|pk|rk)[_-](?:live|test|ant|proj)?"
    r"[_-]?[A-Za-z0-9_\-]{16,200}|xox[abeoprs]-[A-Za-z0-9\-]{10,250}|AIza[0-9A-Za-z_\-]{30,45}"
    r"|hf_[A-Za-z0-9]{20,64}|npm_[A-Za-z0-9]{30,64}|pypi-[A-Za-z0-9_\-]{30,255}|whsec_[\w+/=]{16,120}"
    r"|SG\.[\w\-]{16,40}\.[\w\-]{16,80}|ya29\.[\w\-]{20,255}|dop_v1_[a-f0-9]{40,64}"
    r"|eyJ[\w\-]{8,4000}\.[\w\-]{8,4000}(?:\.[\w\-]{0,4000})?)"
)
_KEY_BLOCK = regex.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----[^\ue000]{0,12000}?"
    r"(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)"
)
_IN_URL = regex.compile(r"://[^\s:/@]{0,80}:(?P<value>[^\s@/]{1,200})@")
_HEADER = regex.compile(r"\b(?:bearer|basic) (?P<value>(?=[^\s\d]{0,80}\d)[\w.~+/\-]{12,2000}=*)", regex.I)
_QUOTE = r"[\"'“”‘’`]?"
_VALUE = r"(?P<value>[^\s\"'“”`,;\ue000]{3,200})"
_PASSWORD = regex.compile(
    r"(?:pass ?word|passwd|pwd|pass ?phrase|pass ?code|memorable word|secret word)s?"
    rf"{_QUOTE}(?: (?:is|was|are)(?: now| still)?:? | ?(?:=>|:=|[:=]) ?| to ){_QUOTE}{_VALUE}",
    regex.I,
)
_KEYED = regex.compile(
    r"(?:secret|api[ _-]?key|access[ _-]?key|auth[ _-]?token|token|private[ _-]?key|credential)s?"
    rf"{_QUOTE}(?: (?:is|was):? | ?(?:=>|:=|[:=]) ?){_QUOTE}{_VALUE}",
    regex.I,
)
_CODE = regex.compile(
    r"\b(?:pin(?: code| number)?|cvv2?|cvc2?|otp|security code|verification code|access code|door code"
    r"|key ?safe code|gate code|alarm code|one[- ]time (?:code|password|passcode))"
    r"(?: (?:is|was)(?: now| still)?:? | ?[:=] ?| )(?P<value>\d[\d\- ]{1,8}\d)(?!\d)",
    regex.I,
)
_RANDOM = regex.compile(r"(?<![\w/+=\-])(?=[A-Za-z_/+=\-]{0,63}\d)(?=[\d_/+=\-]{0,63}[A-Za-z])[\w/+\-]{24,512}={0,2}")
_USERNAME = regex.compile(
    r"\b(?:user ?name|user[ _-]?id|log ?in(?: name| id)?|screen ?name|gamer ?tag|handle)"
    rf"{_QUOTE}(?: (?:is|was):? | ?[:=] ?){_QUOTE}@?(?P<value>[\w][\w.\-]{{2,63}})",
    regex.I,
)
_HANDLE = regex.compile(r"(?<![\w.@/])@(?P<value>[A-Za-z0-9_]{3,30})\b(?!\.\w)")
_HANDLE_CONTEXT = words("twitter instagram insta telegram tiktok github handle follow dm tag tagged discord slack")

_CODE_WORDS = frozenset(
    words(
        "none null nil true false str string int integer bytes bool optional any undefined required"
        " empty redacted hidden changeme yourpassword example xxx xxxx test value key secret token"
        " password username user name"
    )
)


class SecretScan(ScanRecognizer):
    """Keys by their prefix, credentials by the words before them."""

    def __init__(self) -> None:
        super().__init__(
            "SECRET",
            context=("key", "token", "secret", "password", "api", "credential", "credentials"),
        )

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits; long random strings score 0.3 and need a context word."""
        features = Features(text)
        for rule, pattern in (("key prefix", _PREFIXED), ("key block", _KEY_BLOCK)):
            for match in bounded(pattern, text):
                yield Hit(*match.span(), 1.0, rule)
        if "://" in text:
            for match in bounded(_IN_URL, text):
                yield Hit(*match.span("value"), 0.9, "in a URL")
        if features.any_of(("bearer ", "basic ")):
            for match in bounded(_HEADER, text):
                yield Hit(*match.span("value"), 0.9, "authorization header")
        if features.any_of(("pass", "pwd", "memorable", "secret")):
            yield from self._spoken(text, _PASSWORD, is_password, "password")
        if features.any_of(("secret", "key", "token", "credential")):
            yield from self._spoken(text, _KEYED, is_key, "key")
        if features.digit:
            for match in bounded(_CODE, text):
                yield Hit(*match.span("value"), 0.8, "code")
            for match in bounded(_RANDOM, text):
                yield Hit(*match.span(), 0.3, "random string")

    @staticmethod
    def _spoken(text: str, pattern: regex.Pattern[str], check: object, rule: str) -> Iterator[Hit]:
        for match in bounded(pattern, text):
            value = match.group("value").rstrip(".!?)]}>")
            if callable(check) and check(value):
                start = match.start("value")
                yield Hit(start, start + len(value), 0.85, rule)


def _ordinary(value: str) -> bool:
    """Whether a value after "password is" is prose or code rather than a password."""
    lower = value.lower()
    if lower in _CODE_WORDS or lower in FUNCTION_WORDS or gazetteer().is_common(lower):
        return True
    if not any(char.isalnum() for char in value) or value[0] in "<[{($%*":
        return True
    expression = regex.fullmatch(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|\w+\(.*|[a-z]+(?:_[a-z]+)+", value)
    return expression is not None


def is_password(value: str) -> bool:
    """Whether a value can be a password: anything but an everyday word or code."""
    return len(value) >= 3 and not _ordinary(value)


def is_key(value: str) -> bool:
    """Whether a value can be a key: eight characters with a digit, and no everyday word."""
    return len(value) >= 8 and any(char.isdigit() for char in value) and not _ordinary(value)


def credential_recognizers() -> list[ScanRecognizer]:
    """New recognisers for SECRET and USERNAME."""
    return [
        SecretScan(),
        PatternScan(
            "USERNAME",
            [("user name", _USERNAME, 0.7)],
            gate=lambda f: f.any_of(("user", "log", "screen", "gamer", "handle")),
            check=is_password,
        ),
        PatternScan(
            "USERNAME",
            [("handle", _HANDLE, 0.2)],
            context=_HANDLE_CONTEXT,
            gate=lambda f: f.at_sign and f.any_of(_HANDLE_CONTEXT),
        ),
    ]
