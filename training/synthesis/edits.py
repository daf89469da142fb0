"""One changed value in a sentence, of the same sort and form: what makes a passage counterfactual."""

from __future__ import annotations

import random
import re

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_FACTORS = (0.5, 0.75, 1.2, 1.5, 2.0)
# A number with a unit, a currency or a percent sign: "Code 49" and telephone numbers are names, not values.
_VALUE = re.compile(
    r"(?P<money>[£$€])(?P<a>\d+(?:,\d{3})*(?:\.\d+)?)(?![\d,.]*\d)"
    r"|(?<![\d.,:])(?P<b>\d+(?:,\d{3})*(?:\.\d+)?)(?=\s?(?:%|p\b|pence|percent|kWh|kW|MB|GB|km|metres?|"
    r"(?:working |calendar )?(?:seconds?|minutes?|hours?|days?|weeks?|months?|years?)\b))"
    r"|\b(?P<hour>1[0-2]|[1-9])(?=\s?(?:am|pm)\b)"
    rf"|\b(?P<day>\d{{1,2}})(?= (?:{'|'.join(_MONTHS)})\b)"
    rf"|\b(?P<weekday>{'|'.join(_DAYS)})"
)


def changed_value(sentence: str, rng: random.Random) -> tuple[str, str] | None:
    """(what stands in the sentence, what shall stand there), each with a little around it so that it is found once; or
    None where no value is safe to change."""
    found = [m for m in _VALUE.finditer(sentence) if sentence.count(_around(sentence, m)[0]) == 1]
    found = [m for m in found if m.group(0) != "1"]  # "2 year" would give it away
    if not found:
        return None
    match = rng.choice(found)
    kind = match.lastgroup or ""
    old = match.group("a") or match.group(kind)
    new = _other(old, kind if kind not in ("a", "money") else "b", rng)
    before, at = _around(sentence, match)
    start = at + before[at:].index(old) if old in before[at:] else before.index(old)
    after = before[:start] + new + before[start + len(old) :]
    return (before, after) if after != before else None


def _around(sentence: str, match: re.Match[str]) -> tuple[str, int]:
    """The value with the words beside it, and where the value begins in that."""
    start = max(0, sentence.rfind(" ", 0, max(0, match.start() - 1)) + 1)
    end = sentence.find(" ", min(len(sentence), match.end() + 1))
    end = len(sentence) if end < 0 else end
    return sentence[start:end], match.start() - start


def _other(old: str, kind: str, rng: random.Random) -> str:
    if kind == "weekday":
        return rng.choice([day for day in _DAYS if day != old])
    if kind == "hour":
        return str(rng.choice([hour for hour in range(1, 13) if hour != int(old)]))
    if kind == "day":
        return str(rng.choice([day for day in range(1, 29) if day != int(old)]))
    plain = old.replace(",", "")
    decimals = len(plain.partition(".")[2])
    value = float(plain)
    for factor in rng.sample(_FACTORS, len(_FACTORS)):
        new = f"{value * factor:,.{decimals}f}" if "," in old else f"{value * factor:.{decimals}f}"
        if new not in (old, "1") and float(new.replace(",", "")) > 0:  # "1 days" would give it away
            return new
    return str(int(value) + 2)
