"""MLflow and Arize Phoenix for the capture bench: installed in virtual environments of their own, started as their
documentation says, on a database each of the same PostgreSQL; and how to see in it what is durable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from _capture_servers import Database, Process, free_port


@dataclass(frozen=True)
class Peer:
    """``stored``: a query for the number of traces of which every span is there. ``{port}`` and ``{url}`` are filled
    in; ``scheme`` is that of the database's address."""

    name: str
    requirements: tuple[str, ...]
    command: tuple[str, ...]
    stored: str
    ready: str
    scheme: str = "postgresql"
    env: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def database(self) -> str:
        return f"peer_{self.name}"

    def install(self, folder: Path) -> Path:
        """The folder of the virtual environment; what is there is used.

        Raises:
            subprocess.CalledProcessError: pip could not install it; its output has been shown.
        """
        place = folder / self.name
        done = place / ".installed"
        if not done.exists():
            print(f"Installing {', '.join(self.requirements)} into {place} (a few minutes) …", flush=True)
            subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
            pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
            subprocess.run([*pip, *self.requirements], check=True)
            done.touch()
        return place

    def start(self, place: Path, database: Database) -> Process:
        database.create(self.database, afresh=True)
        port = free_port()
        filling = {"port": port, "url": database.url(self.database, self.scheme), "grpc": free_port()}
        program, *rest = [part.format(**filling) for part in self.command]
        work = place / "work"
        work.mkdir(exist_ok=True)
        plain = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
        env = {**plain, **{name: value.format(work=work, **filling) for name, value in self.env.items()}}
        command = [str(place / "bin" / program), *rest]
        return Process(command, env, port=port, log=work / "server.log", ready=self.ready)

    def count(self, database: Database) -> int:
        with database.connect(self.database) as raw:
            (found,) = raw.execute(self.stored).fetchone() or (0,)  # type: ignore[arg-type]
            return int(found)


MLFLOW = Peer(
    name="mlflow",
    requirements=("mlflow==3.17.2", "psycopg[binary]"),
    command=("mlflow", "server", "--backend-store-uri", "{url}", "--host", "127.0.0.1", "--port", "{port}"),
    stored="SELECT count(*) FROM (SELECT trace_id FROM spans GROUP BY 1 HAVING count(*) = 3) AS whole",
    ready="/health",
    env={"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"},
    headers={"x-mlflow-experiment-id": "0"},
)
PHOENIX = Peer(
    name="phoenix",
    requirements=("arize-phoenix[pg]==20.26.1",),
    command=("phoenix", "serve"),
    stored="SELECT count(*) FROM (SELECT trace_rowid FROM spans GROUP BY 1 HAVING count(*) = 3) AS whole",
    ready="/healthz",
    env={
        "PHOENIX_SQL_DATABASE_URL": "{url}",
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": "{port}",
        "PHOENIX_GRPC_PORT": "{grpc}",
        "PHOENIX_WORKING_DIR": "{work}",
        "PHOENIX_TELEMETRY_ENABLED": "false",
    },
)
PEERS = {peer.name: peer for peer in (MLFLOW, PHOENIX)}
