"""SQLite in a line: queries that run where they are written and return rows, not Deferreds.

For small tables, tests and tools. Each query stops the reactor, and with it every other request, for as long
as it runs; :func:`cycloneish.db.urls.open_database` is for everything else::

    class Notes(RequestHandler):
        def get(self):
            self.write({"notes": self.settings["notes"].runQuery("SELECT text FROM notes")})

    Application([(r"/", Notes)], notes=InlineSQLite("notes.sqlite"))
"""

from __future__ import annotations

import sqlite3
from typing import Any

__all__ = ["InlineSQLite"]


class InlineSQLite:
    """A connection to a SQLite file, with one cursor.

    Values belong into the second argument of a query, never into its text::

        db.runQuery("SELECT * FROM notes WHERE author = ?", [author])

    :param dbname: the file, or ``:memory:``.
    :param autoCommit: commit after each :meth:`runOperation`; otherwise :meth:`commit` does.

    :ivar conn: the ``sqlite3.Connection``.
    :ivar curs: the ``sqlite3.Cursor``.

    Counterpart: ``cyclone.sqlite.InlineSQLite``.
    """

    def __init__(self, dbname: str = ":memory:", autoCommit: bool = True) -> None:
        self.autoCommit = autoCommit
        self.conn = sqlite3.connect(dbname)
        self.curs = self.conn.cursor()

    def runQuery(self, query: str, *args: Any, **kwargs: Any) -> list[tuple[Any, ...]]:
        """Run a query and return all rows.

        :param args: the values: one list, tuple or, for named placeholders, dictionary.
        """
        return self.curs.execute(query, *args, **kwargs).fetchall()

    def runOperation(self, command: str, *args: Any, **kwargs: Any) -> None:
        """Run a command that has no rows, as ``INSERT`` or ``CREATE TABLE``; the arguments are those of
        :meth:`runQuery`.
        """
        self.curs.execute(command, *args, **kwargs)
        if self.autoCommit:
            self.conn.commit()

    def runOperationMany(self, command: str, *args: Any, **kwargs: Any) -> None:
        """Run a command once for each of many sets of values."""
        self.curs.executemany(command, *args, **kwargs)
        if self.autoCommit:
            self.conn.commit()

    def commit(self) -> None:
        """Make what was done since the last time last."""
        self.conn.commit()

    def rollback(self) -> None:
        """Take back what was done since the last :meth:`commit`."""
        self.conn.rollback()

    def close(self) -> None:
        """Close the file; nothing can be done afterwards."""
        self.conn.close()
