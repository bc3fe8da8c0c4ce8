"""Results that do not fit into memory: rows, batch by batch, as they are wanted.

Made by ``db.stream(…)`` and ``session.stream(…)``.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, succeed

from sqlalchemy.engine import Result  # isort: skip
from sqlalchemy.sql.base import Executable  # isort: skip

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Stream"]


class Stream:
    """The rows of a query, with a cursor on the server and one batch in memory::

        async with db.stream(select(Article)) as rows:
            async for row in rows:
                self.write(…)
                await self.flush()

    The query is sent with the first row that is asked for.  ``async for`` closes the stream at the end;
    ``async with`` does so as well where the loop is left early or fails.  Code without ``async``
    calls :meth:`fetch` until it fires with an empty list.

    :ivar batch: rows that are fetched at a time.
    """

    def __init__(
        self, session: Session, statement: Executable, parameters: Any, batch: int, owns: bool = False
    ) -> None:
        if batch < 1:
            raise ValueError(f"a batch has one row at least, not {batch}")
        self.batch = batch
        self._session = session
        self._statement = statement
        self._parameters = parameters
        # Whether the session is there for this stream alone and is closed with it.
        self._owns = owns
        self._result: Result[Any] | None = None
        self._rows: list[Any] = []
        self._next = 0
        self._closed = False

    def fetch(self, count: int | None = None) -> Deferred[list[Any]]:
        """The next rows.

        :param count: how many at most; :attr:`batch` by default.
        :returns: a Deferred with a list, which is empty after the last row.
        """
        if self._next < len(self._rows):
            rows, self._rows = self._rows[self._next :], []
            self._next = 0
            return succeed(rows)
        if self._closed:
            return succeed([])
        return self._session._do(self._fetch, count or self.batch).addCallbacks(self._fetched, self._failed)

    def _fetch(self, count: int) -> list[Any]:
        if self._result is None:
            options = {"stream_results": True, "yield_per": self.batch}
            self._result = self._session.sync_session.execute(
                self._statement, self._parameters, execution_options=options
            )
        return list(self._result.fetchmany(count))

    def _fetched(self, rows: list[Any]) -> Any:
        return rows if rows else self.close().addCallback(lambda _: rows)

    def _failed(self, failure: Any) -> Any:
        return self.close().addBoth(lambda _: failure)

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Any:
        if self._next >= len(self._rows):
            self._rows, self._next = [], 0
            self._rows = await self.fetch()
            if not self._rows:
                raise StopAsyncIteration
        row = self._rows[self._next]
        self._next += 1
        return row

    def close(self) -> Deferred[None]:
        """Close the cursor; the connection goes back where the stream has taken it."""
        if self._closed:
            return succeed(None)
        self._closed = True
        result, self._result = self._result, None
        if self._owns:
            return self._session.close()
        return self._session._do(result.close) if result is not None else succeed(None)

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing = self.close()
        if kind is None or not issubclass(kind, GeneratorExit):
            await closing

    def __del__(self) -> None:
        if not self._closed and self._result is not None:
            # A loop that was left early, outside of 'async with'.
            self.close().addErrback(lambda _: None)
