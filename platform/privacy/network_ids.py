"""E-mail addresses, telling URLs, IP and MAC addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator

import regex

from privacy.features import Features
from privacy.presidio import predefined_recognizers
from privacy.scanning import FailClosed, Hit, ScanRecognizer, bounded

# Searched backwards from the at-sign: the last character that cannot belong to a local part.
_NOT_LOCAL = regex.compile(r"(?r)[^\w.!#$%&'*+/=?^`{|}~\-]")
_DOMAIN = regex.compile(r"(?:[\w](?:[\w\-]{0,61}[\w])?\.){1,8}(?:xn--[a-z0-9\-]{2,58}|[^\W\d_]{2,24})")
_DOT = r"(?:\s?[(\[{<]\s?(?:dot|punkt|point|punto)\s?[)\]}>]\s?| dot |\.)"
# Begins only where nothing like it stands before, and gives nothing back: each place of a text is read once.
_JOINED = (
    rf"(?<![\w.+\-])[\w+\-]{{1,64}}+(?:(?:{_DOT}| (?:underscore|dash|hyphen|minus|plus) )[\w+\-]{{1,64}}+){{0,8}}+"
)
_SPELLED = regex.compile(
    rf"{_JOINED}(?:\s?[(\[{{<]\s?(?:at|ät|@)\s?[)\]}}>]\s?[\w\-]{{1,63}}(?:{_DOT}[\w\-]{{1,63}}){{1,4}}"
    r"|\s?(?: at |@)\s?[\w\-]{2,63}(?: dot [a-z]{2,20}){1,3}(?! (?:at|@) [\w\-]{2,63}(?: dot |\.)[a-z])"
    r"|\s{1,2}@\s{1,2}[\w\-]{2,63}(?:\.[\w\-]{2,63}){1,4}"
    r"| at (?:gmail|googlemail|hotmail|outlook|live|msn|yahoo|ymail|icloud|aol|gmx|web|proton|protonmail|mail)"
    r"\.(?:com|net|org|de|fr|es|it|nl|ie|in|me|co\.uk|co\.in|com\.au))\b",
    regex.IGNORECASE,
)
# Loopback, unspecified, masks, and the networks reserved for documentation (RFC 5737).
_NOBODY = ("127.", "0.", "255.255.", "192.0.2.", "198.51.100.", "203.0.113.")
_LOCAL_REACH = 128
_DOMAIN_REACH = 260

_URL = regex.compile(r"\b(?:https?|ftp|wss?)://[^\s<>\"'`\ue000]{4,2000}", regex.IGNORECASE)
_TELLING_PATH = regex.compile(
    r"://[^/\s]*@|[?&;#][\w.\-\[\]%]{1,60}=[^&\s]|/(?:users?|u|profiles?|accounts?|members?|people|in)"
    r"/[^/\s?]{2,}|/~\w",
    regex.IGNORECASE,
)


class EmailScan(ScanRecognizer):
    """E-mail addresses: every at-sign is looked at once, in both directions.

    No public suffix list is asked: an internal domain is as personal as a public one.
    """

    def __init__(self) -> None:
        super().__init__("EMAIL", gate=_has_address)

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits for `local@domain.tld`."""
        at_sign = text.find("@")
        while at_sign != -1:
            domain = _DOMAIN.match(text, at_sign + 1, at_sign + 1 + _DOMAIN_REACH)
            if domain is not None:
                low = max(0, at_sign - _LOCAL_REACH)
                before = _NOT_LOCAL.search(text, low, at_sign)
                start = before.end() if before is not None else low
                start += _leading_marks(text[start:at_sign])
                if start < at_sign:
                    yield Hit(start, domain.end(), 1.0, "address")
            at_sign = text.find("@", at_sign + 1)

    def read(self, features: Features) -> Iterator[Hit]:
        """As `scan`, and spelled-out forms where a word hints at one."""
        yield from self.scan(features.text)
        if features.any_of(_SPELLED_HINTS):
            for match in bounded(_SPELLED, features.text):
                if any(char.isalpha() for char in match.group()):
                    yield Hit(*match.span(), 0.7, "spelled out")


def _leading_marks(local: str) -> int:
    """Number of leading characters that quote or separate rather than belong to the address."""
    return len(local) - len(local.lstrip("'`.=/|{*!?&#"))


_SPELLED_HINTS = (
    " dot ",
    *(" @ ", "at)", "at]", "at>", "at}", "at )", "at ]", "ät)", "(@", "[@"),
    *(" at gmail.", " at googlemail.", " at hotmail.", " at outlook.", " at live.", " at msn.", " at yahoo."),
    *(" at ymail.", " at icloud.", " at aol.", " at gmx.", " at web.", " at proton", " at mail."),
)


def _has_address(features: Features) -> bool:
    return features.at_sign or features.any_of(_SPELLED_HINTS)


class UrlScan(ScanRecognizer):
    """URLs that say something about a person: with a query value, a user part or a profile path.

    Plain addresses of sites stay: answers have to be able to name them.
    """

    def __init__(self) -> None:
        super().__init__("URL", gate=lambda features: "://" in features.text)

    def scan(self, text: str) -> Iterator[Hit]:
        """Hits for whole URLs, without closing punctuation."""
        for match in bounded(_URL, text):
            url = match.group().rstrip(".,;:!?)]}")
            if _TELLING_PATH.search(url):
                yield Hit(match.start(), match.start() + len(url), 0.6, "query or user")


def address_chunks(features: Features) -> list[tuple[int, int]]:
    """The stretches without white space that have what an IP address needs: three dots between digits, or colons."""
    if _CHUNKS not in features.shared:
        features.shared[_CHUNKS] = _address_chunks(features)
    chunks: list[tuple[int, int]] = features.shared[_CHUNKS]
    return chunks


def _address_chunks(features: Features) -> list[tuple[int, int]]:
    text = features.text
    colons = "::" in text or text.count(":") >= _FEWEST_COLONS
    places = [match.start() for match in _DOTTED.finditer(text)]
    if colons:
        places += [match.start() for match in _COLON.finditer(text)]
    return [
        (start, end)
        for start, end in features.chunks(sorted(places))
        if "::" in text[start:end]
        or text.count(":", start, end) >= _FEWEST_COLONS
        or text.count(".", start, end) >= _FEWEST_DOTS
    ]


_CHUNKS = "address chunks"
_VERSION = re.compile(r"\b(?:version|release|firmware)[ .:]{0,2}\Z", re.IGNORECASE)
_VERSION_REACH = 12
_DOTTED = re.compile(r"\.\d+\.\d+\.\d")  # begins with a plain character, so that the search skips what has none
_COLON = re.compile(":")
_FEWEST_COLONS = 6
_FEWEST_DOTS = 3


class IpScan(FailClosed, predefined_recognizers.IpRecognizer):
    """Presidio's IP patterns, without loopback, unspecified, mask and slice-like addresses."""

    gate = staticmethod(lambda features: bool(address_chunks(features)))
    stretches = staticmethod(address_chunks)

    def hits(self, features: Features) -> list[Hit]:
        """Without four numbers behind the word version, which are one; with colons they are never."""
        text = features.text
        return [
            hit
            for hit in super().hits(features)
            if ":" in text[hit.start : hit.end]
            or not _VERSION.search(text, max(0, hit.start - _VERSION_REACH), hit.start)
        ]

    def invalidate_result(self, pattern_text: str) -> bool:
        """Whether the text is no address, or one that points at nobody."""
        if super().invalidate_result(pattern_text):
            return True
        address = pattern_text.partition("/")[0].partition("%")[0]
        if address.startswith(_NOBODY):
            return True
        # "1::2" is how a slice is written in code; real addresses have more or longer groups.
        groups = [group for group in address.split(":") if group]
        return ":" in address and (len(groups) < 3 or max(map(len, groups)) < 2)


class MacScan(FailClosed, predefined_recognizers.MacAddressRecognizer):
    """Presidio's MAC patterns behind a gate."""

    gate = staticmethod(lambda features: features.hexadecimal_pair)


def network_recognizers() -> list[ScanRecognizer | FailClosed]:
    """New recognisers for EMAIL, URL, IP_ADDRESS and MAC_ADDRESS."""
    return [
        EmailScan(),
        UrlScan(),
        IpScan(supported_entity="IP_ADDRESS"),
        MacScan(supported_entity="MAC_ADDRESS"),
    ]
