"""Django's PostgreSQL backend, whose pool hands connections out without a question to the server.

Django lets the pool send an empty statement before every request. What that finds is nearly always seen without it: a
server that has gone, or has ended the connection, leaves the end of the line to be read. Only where something is there
to be read the question is sent. A server that vanishes without a word is noticed by neither before the time is up.
"""

from __future__ import annotations

import select
from typing import Any

import psycopg
from django.db.backends.postgresql import base
from psycopg_pool import ConnectionPool


def check(raw: psycopg.Connection[Any]) -> None:
    """Raises:
    psycopg.OperationalError: the connection is of no more use.
    """
    line = select.poll()
    line.register(raw.fileno(), select.POLLIN)  # errors and ends are told unasked
    if line.poll(0):
        ConnectionPool.check_connection(raw)


class DatabaseWrapper(base.DatabaseWrapper):
    @property
    def pool(self) -> Any:
        """As Django makes it, except for how it checks."""
        options = self.settings_dict["OPTIONS"].get("pool")
        own: Any = self  # the type stubs do not know of pools
        if isinstance(options, dict) and self.alias not in own._connection_pools:
            made = ConnectionPool(
                kwargs={**self.get_connection_params(), "autocommit": True},
                open=False,
                configure=own._configure_connection,
                check=check,
                **options,
            )
            own._connection_pools.setdefault(self.alias, made)  # of several threads the first wins
        return super().pool
