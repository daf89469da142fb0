"""Random values for generated documents: amounts, times, names, codes."""

from __future__ import annotations

import random
from collections.abc import Sequence

from training.base_model.words import word_list

_ONSETS = word_list("onsets")
_VOWELS = word_list("vowels")
_CODAS = ["", "", "n", "r", "s", "x", "l", "m", "nd", "rt", "th", "ck", "sk"]
_ACCENTED = "áàâäãåçéèêëíîïñóôöõøúûüýæßčďěłńřśšťůžğı"
_SYMBOLS = "#%&*+-/<=>@_~^|$:;!?€£¥§°µ×½"
_FIRST = word_list("first names")
_LAST = word_list("last names")
MONTHS = word_list("months")
WEEKDAYS = word_list("weekdays")
NUMBER_WORDS = word_list("numbers")
_ROLES = word_list("roles")
_BUTTONS = word_list("buttons")
_LITTLE = word_list("little words")


def invented_word(rng: random.Random) -> str:
    """A pronounceable word that no dictionary holds."""
    syllables = rng.choice([1, 2, 2, 2, 3])
    word = "".join(rng.choice(_ONSETS) + rng.choice(_VOWELS) for _ in range(syllables)) + rng.choice(_CODAS)
    if rng.random() < 0.12:
        at = rng.randrange(len(word))
        word = word[:at] + rng.choice(_ACCENTED) + word[at + 1 :]
    return word


def invented_name(rng: random.Random) -> str:
    return invented_word(rng).capitalize()


def odd_string(rng: random.Random) -> str:
    """Text that must be copied byte by byte: codes, paths, versions, symbols, any script."""
    shape = rng.randrange(7)
    word = invented_word(rng)
    if shape == 0:
        return "".join(rng.choice("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789-") for _ in range(rng.randint(4, 10))).strip("-")
    if shape == 1:
        return f"/{word}/{invented_word(rng)}.{rng.choice(['conf', 'log', 'txt', 'py', 'csv'])}"
    if shape == 2:
        return f"{word}_{invented_word(rng)}={rng.choice(['on', 'off', 'true', str(rng.randint(0, 4096))])}"
    if shape == 3:
        return f"v{rng.randint(0, 12)}.{rng.randint(0, 30)}.{rng.randint(0, 99)}"
    if shape == 4:
        return "".join(rng.choice(_ACCENTED + _SYMBOLS + "abcxyz019") for _ in range(rng.randint(3, 8)))
    if shape == 5:
        low, high = rng.choice([(0x391, 0x3C9), (0x410, 0x44F), (0x5D0, 0x5EA), (0x3041, 0x3096), (0x4E00, 0x4FFF)])
        return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(2, 6)))
    return f"--{word}-{invented_word(rng)} {rng.randint(1, 512)}"


def long_text(rng: random.Random, words: Sequence[str]) -> str:
    """10 to 40 words without meaning, with the repeats of real sentences ("of the", a phrase said twice): a copy that
    only follows the last two tokens gets lost in them."""
    said: list[str] = []
    for _ in range(rng.randint(10, 40)):
        draw = rng.random()
        if said and draw < 0.05:
            at = rng.randrange(len(said))
            said += said[at : at + rng.randint(2, 4)]
        elif draw < 0.45:
            said.append(rng.choice(_LITTLE))
        elif draw < 0.55:
            said.append(invented_name(rng))
        elif draw < 0.60:
            said.append(str(rng.randint(2, 2030)))
        else:
            said.append(rng.choice(words) + ("," if rng.random() < 0.12 else ""))
    return " ".join(said).rstrip(",")


def person(rng: random.Random) -> str:
    first = rng.choice(_FIRST) if rng.random() < 0.7 else invented_name(rng)
    last = rng.choice(_LAST) if rng.random() < 0.7 else invented_name(rng)
    title = rng.choice(["", "", "", "Dr ", "Ms ", "Mr "])
    return f"{title}{last}" if title else f"{first} {last}"


def role(rng: random.Random) -> str:
    return "the " + rng.choice(_ROLES)


def button(rng: random.Random) -> str:
    return rng.choice(_BUTTONS) if rng.random() < 0.7 else invented_name(rng)


def email(rng: random.Random) -> str:
    box = rng.choice(["help", "office", "info", "desk", "team", "service", invented_word(rng), invented_word(rng)])
    return f"{box}@{invented_word(rng)}.{rng.choice(['example', 'com', 'org', 'net'])}"


def phone(rng: random.Random) -> str:
    digits = [str(rng.randint(10, 99)) for _ in range(5)]
    return rng.choice(
        [f"{rng.randint(100, 9999)}", f"+{digits[0]} {digits[1]}{digits[2]} {digits[3]}{digits[4]}",
         f"0{digits[0]}-{digits[1]}{digits[2]}{digits[3]}", f"extension {rng.randint(10, 999)}"]
    )  # fmt: skip


def clock(rng: random.Random) -> str:
    hour, minute = rng.randint(5, 23), rng.choice([0, 0, 15, 30, 45, 10, 50])
    twelve = f"{(hour - 1) % 12 + 1}" + (f":{minute:02d}" if minute else "")
    return rng.choice([f"{hour}:{minute:02d}", f"{twelve} {'am' if hour < 12 else 'pm'}", f"{hour:02d}.{minute:02d}"])


def date(rng: random.Random) -> str:
    day, month = rng.randint(1, 28), rng.choice(MONTHS)
    year = rng.choice(["", "", f" {rng.randint(2019, 2031)}"])
    return rng.choice([f"{day} {month}{year}", f"{month} {day}" + (f",{year}" if year else "")])


def _count(rng: random.Random, low: int = 2, high: int = 60) -> str:
    number = rng.randint(low, high) if rng.random() < 0.6 else rng.randint(low, 12)
    return NUMBER_WORDS[number - 1] if number <= 12 and rng.random() < 0.35 else str(number)


def _money(rng: random.Random) -> str:
    amount = rng.choice([rng.randint(1, 30), rng.randint(2, 40) * 5, rng.randint(1, 90) * 10, rng.randint(1, 40) * 250])
    text = f"{amount:,}" if rng.random() < 0.7 else str(amount)
    if rng.random() < 0.3:
        text += f".{rng.choice(['50', '90', '95', '20', '00', '75', '05'])}"
    if rng.random() < 0.6:
        return rng.choice(["£", "€", "$", "£", "€", "¥", "CHF ", "US$", "₹"]) + text
    return f"{text} {rng.choice(['euros', 'pounds', 'dollars', 'francs', 'EUR', 'GBP', 'kroner', 'zł'])}"


def _span(rng: random.Random) -> str:
    unit = rng.choice(["minutes", "hours", "days", "working days", "weeks", "months", "years", "days", "minutes"])
    number = _count(rng, 2, {"minutes": 90, "years": 10, "months": 24, "weeks": 12}.get(unit, 40))
    return rng.choice([f"{number} {unit}"] * 6 + ["one week", "half a year", "a day and a half", "one month"])


def value(kind: str, rng: random.Random) -> str:
    """A value of this kind, as a document would print it.

    Raises:
        ValueError: unknown kind (a slip in a vocabulary file).
    """
    whole = rng.randint(2, 400)
    simple = {
        "percent": f"{rng.randint(1, 95)}" + rng.choice(["%", " percent", " %", ".5%"]),
        "age": f"{rng.randint(2, 75)}" + rng.choice([" years", "", " years"]),
        "length": rng.choice([f"{whole} cm", f"{rng.randint(1, 30)}.{rng.randint(1, 9)} m", f"{whole} mm"]),
        "height": f"{rng.randint(30, 3900)} {rng.choice(['m', 'metres'])}",
        "distance": f"{rng.randint(1, 900)} {rng.choice(['km', 'kilometres', 'miles', 'm'])}",
        "area": f"{rng.randint(8, 240)} {rng.choice(['m²', 'square metres'])}",
        "weight": rng.choice(
            [f"{rng.randint(1, 60)} kg", f"{whole} g", f"{rng.randint(1, 20)}.{rng.randint(1, 9)} kg"]
        ),
        "volume": rng.choice([f"{rng.randint(1, 240)} litres", f"{rng.randint(1, 9)}.{rng.randint(1, 9)} l"]),
        "temperature": f"{rng.randint(-25, 1250)} {rng.choice(['°C', 'degrees', '°C'])}",
        "data": f"{rng.choice([2, 5, 10, 20, 25, 50, 100, 200, 500])} {rng.choice(['GB', 'MB', 'TB'])}",
        "speed": f"{rng.randint(2, 300)} {rng.choice(['km/h', 'Mbit/s', 'm/s'])}",
        "power": f"{rng.randint(1, 2400)} {rng.choice(['W', 'kW', 'watts'])}",
        "pressure": f"{rng.randint(1, 15)}.{rng.randint(0, 9)} bar",
        "rpm": f"{rng.randint(3, 160) * 100} rpm",
        "torque": f"{rng.randint(5, 220)} Nm",
        "noise": f"{rng.randint(30, 90)} dB",
        "ampere": f"{rng.randint(4, 32)} A",
        "dose": f"{rng.randint(1, 900)} {rng.choice(['mg', 'ml', 'g', 'drops'])}",
        "port": str(rng.randint(80, 65000)),
        "year": str(rng.randint(1780, 2030)),
        "version": f"{rng.randint(1, 14)}.{rng.randint(0, 20)}",
        "weekday": rng.choice(WEEKDAYS),
    }
    makers = {"money": _money, "span": _span, "clock": clock, "date": date, "count": _count}
    if kind in makers:
        return makers[kind](rng)
    if kind not in simple:
        raise ValueError(f"unknown kind of value {kind!r}")
    return simple[kind]
