"""Write the word lists that the name finder reads: `python -m privacy.build_gazetteer [FILE …]`.

Names and places come from Faker's providers of every locale (MIT licence); the common words come
from the documentation strings of the standard library and of the installed packages; the everyday
words are those common words and words of the project's own reading texts that no list of names or
places has. The lists are committed, so Faker is not needed at run time; run the command again after
a Faker upgrade.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from privacy.gazetteer import DATA_DIR, fold

_FIRST = re.compile(r"first_(romanized_)?names")
_LAST = re.compile(r"(last_(romanized_)?names|(unisex|male)_last_names)")
_PLACES = re.compile(
    r"(countries|cities|city_names|real_city_names|cap_city_province|states|provinces|counties"
    r"|regions|region_names|towns|villages|communes|municipalities|prefectures|boroughs"
    r"|metropolitan_cities|localities)$"
)
_NAME_TOKEN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_DOC_STRING = re.compile(r'"""(.*?)"""', re.DOTALL)
_LOWER_WORD = re.compile(r"(?<![\w.`'_/-])[a-z]{2,20}(?![\w`_(=/-]|\.\w)")
_INNER_CAPITAL = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{1,19}(?![\w`_(=/-]|\.\w)")
_MIN_COUNT = 4
_READING = Path(__file__).resolve().parents[2] / "training" / "base_model" / "reading" / "texts"
_SLOT = re.compile(r"\{[^}]*\}")


def provider_values(package_name: str, wanted: re.Pattern[str]) -> Iterator[str]:
    """Every string in the attributes of Faker's `package_name` providers that `wanted` names."""
    package = importlib.import_module(package_name)
    for module in pkgutil.iter_modules(package.__path__):
        provider = importlib.import_module(f"{package_name}.{module.name}").Provider
        for attribute, values in vars(provider).items():
            if wanted.match(attribute) and isinstance(values, (tuple, list, set, dict)):
                yield from (value for value in values if isinstance(value, str))


def names(wanted: re.Pattern[str]) -> set[str]:
    """Folded single-word names of two letters or more."""
    found: set[str] = set()
    for value in provider_values("faker.providers.person", wanted):
        found.update(fold(token) for token in _NAME_TOKEN.findall(value))
    return {name for name in found if len(name) >= 2}


def places() -> set[str]:
    """Folded place names of up to four words."""
    found = set()
    for value in provider_values("faker.providers.address", _PLACES):
        words = [fold(token) for token in _NAME_TOKEN.findall(value)]
        if 1 <= len(words) <= 4 and len("".join(words)) >= 3:
            found.add(" ".join(words))
    return found


def doc_strings() -> Iterator[str]:
    """Documentation strings of the standard library and of the installed packages."""
    for folder in (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib")):
        for path in sorted(Path(folder).rglob("*.py")):
            if {"tests", "test", "faker", "privacy"} & set(path.parts):
                continue
            yield from _DOC_STRING.findall(path.read_text(encoding="utf-8", errors="ignore"))
        for path in sorted(Path(folder).rglob("*.dist-info/**/*")):
            if path.is_file() and (path.name == "METADATA" or "LICEN" in path.name.upper()):
                yield path.read_text(encoding="utf-8", errors="ignore")


def common_words() -> set[str]:
    """Words that prose writes in lower case more often than with a capital inside a sentence."""
    lower: Counter[str] = Counter()
    capital: Counter[str] = Counter()
    for text in doc_strings():
        lower.update(set(_LOWER_WORD.findall(text)))
        capital.update({word.lower() for word in _INNER_CAPITAL.findall(text)})
    words = {w for w, n in lower.items() if n >= _MIN_COUNT and n >= capital[w]}
    words.update(word for text in _vocabulary() for word in re.findall(r"[a-z]{2,}", text.lower()))
    return words


def _vocabulary() -> Iterator[str]:
    """English words that packages list: lorem ipsum, stop words, trades, slogans, colours."""
    yield from importlib.import_module("spacy.lang.en.stop_words").STOP_WORDS
    yield from importlib.import_module("faker.providers.lorem.en_US").Provider.word_list
    yield from importlib.import_module("faker.providers.job.en_US").Provider.jobs
    company = importlib.import_module("faker.providers.company").Provider
    for group in (*company.catch_phrase_words, *company.bsWords):
        yield from group


def everyday_words() -> set[str]:
    """Words of three letters or more that nobody's name is made of: of the written lists and of the reading texts."""
    lower: Counter[str] = Counter()
    capital: Counter[str] = Counter()
    for path in sorted(_READING.glob("*.txt")):
        text = _SLOT.sub(" | ", path.read_text(encoding="utf-8"))
        lower.update(_LOWER_WORD.findall(text))
        capital.update(word.lower() for word in _INNER_CAPITAL.findall(text))
    found = {word for word, count in lower.items() if count >= 2 * capital[word]} | _written("common_words.txt")
    listed = _written("first_names.txt") | _written("last_names.txt") | _written("places.txt")
    return {word for word in found - listed if len(word) >= 3}


def _written(file_name: str) -> set[str]:
    return set((DATA_DIR / file_name).read_text(encoding="utf-8").split("\n")) - {""}


# The everyday words come last: they are made of the others as they are written.
LISTS: dict[str, Callable[[], set[str]]] = {
    "first_names.txt": lambda: names(_FIRST),
    "last_names.txt": lambda: names(_LAST),
    "places.txt": places,
    "common_words.txt": common_words,
    "everyday_words.txt": everyday_words,
}


def main() -> None:
    """Write the lists named, or all, one folded entry per line, sorted."""
    DATA_DIR.mkdir(exist_ok=True)
    wanted = set(sys.argv[1:]) or set(LISTS)
    if unknown := wanted - set(LISTS):
        raise SystemExit(f"no such list: {', '.join(sorted(unknown))}")
    for file_name, entries_of in LISTS.items():
        if file_name not in wanted:
            continue
        entries = entries_of()
        text = "\n".join(sorted(entries)) + "\n"
        (DATA_DIR / file_name).write_text(text, encoding="utf-8")
        print(f"{file_name}: {len(entries)} entries, {len(text.encode()) // 1024} KiB")  # noqa: T201


if __name__ == "__main__":
    main()
