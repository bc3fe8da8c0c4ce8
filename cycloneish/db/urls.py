"""Database URLs: one way to open what a program's option or configuration names.

pool = open_database("postgresql://shop:secret@db.example/shop", max_size=20)
pool = open_database("embedded:///var/lib/shop")
pool = open_database("embedded:shop-data")          # relative to the working directory
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from .embedded import EmbeddedServer
from .postgres import Pool

__all__ = ["open_database"]


def open_database(url: str, *, reactor: Any = None, **options: Any) -> Pool:
    """A pool for the database that *url* names, not yet started.

    :param url: ``postgresql://user:password@host:port/name?sslmode=require`` (all that libpq takes), or
        ``embedded:///DIRECTORY`` for a private server with its data in that directory.
    :param options: those of :class:`~cycloneish.db.postgres.Pool`.
    :raises ValueError: for any other URL; its text never shows the URL, which may hold a password.
    """
    scheme, colon, rest = url.partition(":")
    if colon and scheme in ("postgresql", "postgres"):
        return Pool(url, reactor=reactor, **options)
    if colon and scheme == "embedded":
        path = unquote(rest.removeprefix("//"))
        if not path or "?" in path or (rest.startswith("//") and not rest.startswith("///")):
            raise ValueError("an embedded database is named embedded:///DIRECTORY or embedded:DIRECTORY")
        return Pool(EmbeddedServer(path, reactor=reactor), reactor=reactor, **options)
    raise ValueError("a database URL begins with postgresql:// or embedded:///")
