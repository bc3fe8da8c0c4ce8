"""Databases that never block the reactor: SQLAlchemy on Deferreds, and PostgreSQL underneath.

:class:`Database` is SQLAlchemy, mapped classes included; :mod:`cycloneish.db.postgres` has the connection
pool for those who write SQL, :mod:`cycloneish.db.embedded` a private PostgreSQL server for a directory,
:mod:`cycloneish.db.urls` opens a pool from a URL, and :mod:`cycloneish.db.errors` says what can go wrong.
This package loads none of them before it is asked for a name, so that a driver is only imported by
programs that use it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .database import Database
    from .session import Block, Session
    from .streams import Stream

__all__ = ["Block", "Database", "Session", "Stream"]

_HOMES = {"Block": "session", "Database": "database", "Session": "session", "Stream": "streams"}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{home}"), name)
