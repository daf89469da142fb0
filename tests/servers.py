"""Real servers for tests, in threads of this process: the engine on its socket, the web application on a port.

In process, because both load in a moment where torch and Django are loaded already; they speak HTTP all the same.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import uvicorn
from psycopg import sql


@contextmanager
def serving(app: Any, *, uds: Path | None = None, lifespan: str = "off", http: Any = "auto") -> Iterator[str]:
    """Runs an ASGI application until the block ends; yields its address (``unix:…`` or ``http://…``)."""
    if uds is not None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(uds))
        address = f"unix:{uds}"
    else:
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan=lifespan, ws="none", http=http)
    config.timeout_graceful_shutdown = 5
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the server ended before it had started"
        assert time.monotonic() < deadline, "the server does not start"
        time.sleep(0.01)
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server does not stop"


@contextmanager
def engine(base: Path, *, uds: Path, token: str = "", adapters: Path | None = None) -> Iterator[str]:
    """Our engine with its base model and the embedder. Random weights loop at once: here they may."""
    from generation.local import TransformersEngine
    from generation.server import Service

    service = Service(TransformersEngine(base, cut_loops=False), token=token, adapters_root=adapters)
    with serving(service.app(), uds=uds, lifespan="on") as address:
        yield address


def drop_database(server: psycopg.Connection[Any], name: str) -> None:
    """With whoever is connected. The server's own vacuum, which nobody but a superuser may end, is waited for."""
    deadline = time.monotonic() + 60
    while True:
        try:
            server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
            return
        except psycopg.errors.InsufficientPrivilege:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)
