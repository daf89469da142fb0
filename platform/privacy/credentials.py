"""Secrets (keys, passwords, codes) and user names."""

from __future__ import annotations

import re
from collections.abc import Iterator

import regex

from privacy.features import Features, Gate
from privacy.gazetteer import FUNCTION_WORDS, gazetteer
from privacy.scanning import Hit, PatternScan, ScanRecognizer, bounded
from privacy.wordlists import words

_PREFIXED = regex.compile(
    r"(?<![A-Za-z0-9])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{20,255}"
    r"|github_pat_[A-Za-z0-9_]{20,255}|glpat-[\w\-]{16,64}|(?:sk|pk|rk)[_-](?:live|test|ant|proj)?"
    r"[_-]?[A-Za-z0-9_\-]{16,200}|xox[abeoprs]-[A-Za-z0-9\-]{10,250}|AIza[0-9A-Za-z_\-]{30,45}"
    r"|hf_[A-Za-z0-9]{20,64}|npm_[A-Za-z0-9]{30,64}|pypi-[A-Za-z0-9_\-]{30,255}|whsec_[\w+/=]{16,120}"
    r"|shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}|dapi[a-f0-9]{32}|\d{8,10}:AA[\w\-]{30,40}|lin_api_\w{30,60}|ntn_\w{30,60}"
    r"|key-[a-f0-9]{32}|(?:AC|SK)[a-f0-9]{32}|glsa_\w{32,64}|figd_[\w\-]{30,64}|AGE-SECRET-KEY-1[A-Z0-9]{50,64}"
    r"|SG\.[\w\-]{16,40}\.[\w\-]{16,80}|ya29\.[\w\-]{20,255}|dop_v1_[a-f0-9]{40,64}"
    r"|eyJ[\w\-]{8,4000}\.[\w\-]{8,4000}(?:\.[\w\-]{0,4000})?)"
)
_KEY_BEGIN = regex.compile(r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----")
_KEY_END = regex.compile(r"-----END [A-Z ]{0,30}PRIVATE KEY-----")
_KEY_REACH = 12_000
_IN_URL = regex.compile(r"://[^\s:/@]{0,80}:(?P<value>[^\s/]{1,200})@")
_HEADER = regex.compile(r"\b(?:bearer|basic) (?P<value>(?=[^\s\d]{0,80}\d)[\w.~+/\-]{12,2000}=*)", regex.I)
_QUOTE = r"[\"'“”‘’`]?"
_VALUE = r"(?P<value>[^\s\"'“”`,;\ue000]{3,200})"
_PASSWORD = regex.compile(
    r"(?:pass ?word|passwd|pwd|\bpw|pass ?phrase|pass ?code|memorable word|secret word|passwort|kennwort|mot de passe"
    r"|contrase[ñn]a|wachtwoord|parola d['’]ordine)s?"
    rf"{_QUOTE}(?: (?:is|was|are|ist|est|es|è)(?: now| still)?:? | ?(?:=>|:=|[:=]) ?| to ){_QUOTE}{_VALUE}",
    regex.I,
)
# Without "is" or a colon between them only what no word looks like, nor an argument that is passed on.
_PASSWORD_BESIDE = regex.compile(
    r"\b(?:pass|pass ?word|passwd|pwd|pw|passwort|kennwort) "
    r"(?P<value>(?=\S{6})(?=[^\s\d]{0,60}\d)(?=[^\sA-Za-z]{0,60}[A-Za-z])[A-Za-z0-9][^\s\"'“”`,;(=\ue000]{0,60}"
    r"[!#$%^*?][^\s\"'“”`,;(=\ue000]{0,60}[A-Za-z0-9][!?]*)",
    regex.I,
)
_KEYED = regex.compile(
    r"(?:secret|(?:api|access|account|signing|encryption|licen[cs]e|private)[ _-]?key|auth[ _-]?token|token"
    r"|credential)s?"
    rf"{_QUOTE}(?: (?:is|was):? | ?(?:=>|:=|[:=]) ?){_QUOTE}{_VALUE}",
    regex.I,
)
_PASSWORD_STEMS = (*("pass", "pwd", "pw", "memorable", "secret", "kennwort", "contrase", "wachtwoord", "parola"),)
# The ends of the words of both with what follows them, without their many forms: a third of the time.
_SAYS_PASSWORD = re.compile(
    rf"(?:word|wd|\bpw|phrase|code|wort|passe|contrase[ñn]a|woord|ordine)s?{_QUOTE}"
    r"(?: (?:is|was|are|ist|est|es|è|to)\b| ?(?:=>|:=|[:=]))"
)
_SAYS_KEY = re.compile(rf"(?:secret|key|token|credential)s?{_QUOTE}(?: (?:is|was)\b| ?(?:=>|:=|[:=]))")
_CODE = regex.compile(
    r"\b(?:pin(?: code| number)?|cvv2?|cvc2?|otp|security code|verification code|access code|door code"
    r"|key ?safe code|gate code|alarm code|one[- ]time (?:code|password|passcode))"
    r"(?:(?: (?:for|to|of|on) (?:(?:the|my|our|your|his|her|that|this) )?[a-z]{2,15}(?: [a-z]{2,15})?)?"
    r" (?:is|was|lautet|ist|est|es|è|jest)(?: now| still)?:? | ?[:=] ?| )(?P<value>\d[\d\- ]{1,8}\d)(?!\d)",
    regex.I,
)
# What keys begin with, and a little more: quicker than the forms of all of them.
_BEGINS = re.compile(
    r"(?<![A-Za-z0-9])(?:A[KSICG]|g[hil]|[spr]k[_-]|xox|hf_|n(?:pm|tn)_|pypi|whs|shp|dap|\d{8}|lin_|key-|SK|figd|SG\.|ya2"
    r"|dop_|eyJ)"
)
_RANDOM = regex.compile(r"(?<![\w/+=\-])(?=[A-Za-z_/+=\-]{0,63}\d)(?=[\d_/+=\-]{0,63}[A-Za-z])[\w/+\-]{24,512}={0,2}")
_LOGIN = (
    r"(?:user ?name|user[ _-]?id|log ?in(?: name| id)?|screen ?name|gamer ?tag|handle|nick(?: ?name)?|benutzername)"
)
_LOGIN_STEMS = (
    *("user", "usr", "uid", "log in", "login", "screen name", "screenname", "gamer", "handle", "nick", "account name"),
    "benutzername",
)
_USERNAME = regex.compile(
    rf"\b(?:{_LOGIN}{_QUOTE}(?: (?:is|was):? | ?[:=] ?)|(?:user|usr|uid|account name){_QUOTE} ?[:=](?![:=]) ?){_QUOTE}"
    r"(?P<value>@?[\w][\w.\-]{2,63})",
    regex.I,
)
# Without "is" or a colon between them only what no word looks like.
_USERNAME_BESIDE = regex.compile(
    rf"\b(?:{_LOGIN} (?P<value>@?(?=[A-Za-z_.\-]{{0,62}}\d)[A-Za-z][\w.\-]{{3,63}})"
    r"|user (?P<value>(?=[A-Za-z]{3,40}(?:_[A-Za-z]{0,40}\d|\d\d))[\w.\-]{5,63}))",
    regex.I,
)
_HANDLE = regex.compile(r"(?<![\w.@/])(?P<value>@[A-Za-z0-9_]{3,30})\b(?!\.\w)")
_NUMBERED_HANDLE = regex.compile(r"(?<![\w.@/])(?P<value>@(?=[A-Za-z_]{3,29}\d)[A-Za-z0-9_]{4,30})\b(?![.(]\w)")
# Whose folder it is. On the web "/home/" begins many a path, so no part of an address of a site.
_HOME = regex.compile(
    r"(?:(?<![\w.\-])(?:/home|/Users|/export/home)/|\b[A-Z]:[\\/]{1,2}(?:Users|Documents and Settings)[\\/]{1,2})"
    r"(?P<value>[A-Za-z][\w.\-]{1,39})(?=[\\/]|[\s:;,\"'`)]|$)",
)
_NOBODYS_HOMES = frozenset(
    words(
        "public default shared guest user users username me you yourname yourusername youruser name someone nobody"
        " everyone ubuntu debian centos fedora admin administrator root ec2-user vagrant node runner jenkins app apps"
        " appuser deploy docker git gitlab build builder ci www www-data nginx postgres test tester airflow jovyan"
        " hadoop spark pi dev developer student service site html data project projects code src work workspace"
    )
)
_HANDLE_CONTEXT = words("twitter instagram insta telegram tiktok github handle follow dm tag tagged discord slack")

_SHORTEST_RANDOM = 24
_CODE_WORDS = frozenset(
    words(
        "none null nil true false str string int integer bytes bool optional any undefined required"
        " empty redacted hidden changeme yourpassword example xxx xxxx test value key secret token"
        " password username user name"
    )
)


_CODE_STEMS = (
    *("pin ", "pin:", "pin=", "cvv", "cvc", "otp", "ty code", "on code", "ss code", "or code", "fe code", "te code"),
    *("rm code", "me code", "me pass"),
)
_SECRET_RULES: tuple[tuple[str, regex.Pattern[str], float, Gate], ...] = (
    ("in a URL", _IN_URL, 0.9, lambda features: "://" in features.text and features.at_sign),
    ("authorization header", _HEADER, 0.9, lambda features: features.any_of(("bearer ", "basic "))),
    ("code", _CODE, 0.8, lambda f: f.digit and f.any_of(_CODE_STEMS)),
)


def _key_blocks(text: str) -> Iterator[Hit]:
    """Private keys from their first line to their last, or as far as one can reach where that is cut off."""
    end = 0
    for begin in bounded(_KEY_BEGIN, text):
        if begin.start() < end:
            continue
        limit = min(len(text), begin.end() + _KEY_REACH)
        last = _KEY_END.search(text, begin.end(), limit)
        end = last.end() if last is not None else limit
        masked = text.find("\ue000", begin.end(), end)  # what was masked already ends a key that is cut off
        end = masked if masked != -1 and last is None else end
        yield Hit(begin.start(), end, 1.0, "key block")


class SecretScan(ScanRecognizer):
    """Keys by their prefix, credentials by the words before them."""

    def __init__(self) -> None:
        super().__init__(
            "SECRET",
            context=("key", "token", "secret", "password", "api", "credential", "credentials"),
        )

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits; long random strings score 0.3 and need a context word."""
        return self.read(Features(text))

    def read(self, features: Features) -> Iterator[Hit]:
        """As `scan`; a rule is tried where the text has what it needs."""
        for start, end in features.long_words:
            if _BEGINS.search(features.text, start, end):
                for match in bounded(_PREFIXED, features.text, start, end):
                    yield Hit(*match.span(), 1.0, "key prefix")
            if features.digit and end - start >= _SHORTEST_RANDOM:
                for match in bounded(_RANDOM, features.text, start, end):
                    yield Hit(*match.span(), 0.3, "random string")
        if "-----BEGIN" in features.text:
            yield from _key_blocks(features.text)
        for rule, pattern, score, needed in _SECRET_RULES:
            if needed(features):
                for match in bounded(pattern, features.text):
                    yield Hit(*match.span("value" if "value" in pattern.groupindex else 0), score, rule)
        if features.any_of(_PASSWORD_STEMS) and _SAYS_PASSWORD.search(features.lower):
            yield from self._spoken(features.text, _PASSWORD, is_password, "password")
        if features.digit and features.any_of(("pass", "pwd", "pw", "kennwort")):
            yield from self._spoken(features.text, _PASSWORD_BESIDE, is_password, "password beside")
        if features.any_of(("secret", "key", "token", "credential")) and _SAYS_KEY.search(features.lower):
            yield from self._spoken(features.text, _KEYED, is_key, "key")

    @staticmethod
    def _spoken(text: str, pattern: regex.Pattern[str], check: object, rule: str) -> Iterator[Hit]:
        for match in bounded(pattern, text):
            value = match.group("value").rstrip(".?)]}>")
            if not any(map(str.isdigit, value)):
                value = value.rstrip(".!?)]}>")
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
    if regex.fullmatch(r"[a-z]+(?:_[a-z]+)+", value):
        return all(part in _CODE_WORDS or gazetteer().is_common(part) for part in value.split("_"))
    return regex.fullmatch(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+|\w+\(.*", value) is not None


def is_password(value: str) -> bool:
    """Whether a value can be a password: anything but an everyday word or code."""
    return len(value) >= 3 and not _ordinary(value)


def is_key(value: str) -> bool:
    """Whether a value can be a key: eight characters with a digit, and no everyday word."""
    return len(value) >= 8 and any(char.isdigit() for char in value) and not _ordinary(value)


def is_owner(value: str) -> bool:
    """Whether a folder of homes is somebody's, and not one that every machine has."""
    lower = value.lower()
    if lower in _NOBODYS_HOMES:
        return False
    lists = gazetteer()
    return not lists.is_common(lower) or lower in lists.first or lower in lists.last


def credential_recognizers() -> list[ScanRecognizer]:
    """New recognisers for SECRET and USERNAME."""
    return [
        SecretScan(),
        PatternScan(
            "USERNAME",
            [("user name", _USERNAME, 0.7), ("beside user name", _USERNAME_BESIDE, 0.6)],
            gate=lambda f: f.any_of(_LOGIN_STEMS),
            check=is_password,
        ),
        PatternScan(
            "USERNAME",
            [("home folder", _HOME, 0.6)],
            gate=lambda f: f.any_of(("/home/", "/users/", ":\\users\\", ":\\\\users", ":/users/", "and settings")),
            check=is_owner,
        ),
        PatternScan(
            "USERNAME",
            [("numbered handle", _NUMBERED_HANDLE, 0.55)],
            gate=lambda f: f.at_sign and f.digit,
        ),
        PatternScan(
            "USERNAME",
            [("handle", _HANDLE, 0.2)],
            context=_HANDLE_CONTEXT,
            gate=lambda f: f.at_sign and f.any_of(_HANDLE_CONTEXT),
        ),
    ]
