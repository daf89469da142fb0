"""Typed readers of the environment, and secrets that make themselves.

Every setting is read through one of these, with a default that runs. A value may also come from a file named by
``<NAME>_FILE``, as container platforms hand over secrets.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Collection
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"0", "false", "no", "off", ""}


def load_env_file(path: Path) -> None:
    """``NAME=value`` lines into the environment; what is set already wins. No file: nothing happens.

    Raises:
        ImproperlyConfigured: a line is neither empty, nor a comment, nor an assignment.
    """
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
    except OSError as error:
        raise ImproperlyConfigured(f"{path} cannot be read: {error.strerror}.") from error
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        name, separator, value = line.partition("=")
        if not separator or not name.strip().isidentifier():
            raise ImproperlyConfigured(f"{path}, line {number}: expected NAME=value.")
        value = value.strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
            value = value[1:-1]
        os.environ.setdefault(name.strip(), value)


def envstr(name: str, default: str = "") -> str:
    """Value of ``name``, or the stripped content of the file that ``<name>_FILE`` points at.

    Raises:
        ImproperlyConfigured: the file cannot be read.
    """
    file = os.environ.get(f"{name}_FILE")
    if file:
        try:
            return Path(file).read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ImproperlyConfigured(f"{name}_FILE={file}: {error.strerror}. Point it at a readable file.") from error
    return os.environ.get(name, default)


def envbool(name: str, default: bool = False) -> bool:
    """1/true/yes/on or 0/false/no/off, in any case."""
    raw = envstr(name, str(default)).strip().lower()
    if raw in _TRUE:
        return True
    if raw in _FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={raw!r} is neither true nor false. Use 1 or 0.")


def envint(name: str, default: int, *, minimum: int | None = None, maximum: int | None = None) -> int:
    raw = envstr(name).strip()
    if not raw:
        return default
    try:
        value = int(raw)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={raw!r} is not a whole number.") from None
    if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
        raise ImproperlyConfigured(
            f"{name}={value} is outside {minimum if minimum is not None else ''}..{maximum or ''}."
        )
    return value


def envchoice(name: str, default: str, choices: Collection[str]) -> str:
    """One of ``choices``; ``default`` where nothing is set."""
    value = envstr(name).strip() or default
    if value not in choices:
        raise ImproperlyConfigured(f"{name}={value!r} is none of {', '.join(choices)}.")
    return value


def envlist(name: str, default: str = "") -> list[str]:
    """Values separated by commas."""
    return [item.strip() for item in envstr(name, default).split(",") if item.strip()]


def envpath(name: str, default: Path, *, base: Path) -> Path:
    """An absolute path; a relative value counts from ``base``."""
    raw = envstr(name).strip()
    return (base / Path(raw).expanduser()).resolve() if raw else default


def random_secret() -> str:
    return secrets.token_urlsafe(48)


def envsecret(name: str, *, folder: Path, make: Callable[[], str] = random_secret) -> str:
    """A secret from the environment, or one that is made once and kept in ``folder/<name>`` with mode 0600.

    Raises:
        ImproperlyConfigured: the file cannot be read or written.
    """
    given = envstr(name)
    if given:
        return given
    path = folder / name.lower()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return _read_or_make(path, make)
    except OSError as error:
        raise ImproperlyConfigured(
            f"Cannot keep the secret {name} in {path}: {error.strerror}. Make the folder writable, or set {name}."
        ) from error


def _read_or_make(path: Path, make: Callable[[], str]) -> str:
    """Several processes may start at once: the file appears whole or not at all, and the first one wins."""
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as handle:
                handle.write(make())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink()
    return path.read_text(encoding="utf-8").strip()
