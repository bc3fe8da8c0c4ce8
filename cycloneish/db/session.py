"""The session: SQLAlchemy's unit of work with Deferreds for everything that may ask the database.

Made by :meth:`cycloneish.db.Database.session`; ``self.db`` of a handler is one.  Inside is SQLAlchemy's
own :class:`sqlalchemy.orm.Session`, with its identity map, cascades and events.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, overload

from twisted.internet.defer import Deferred, succeed

from .streams import Stream

from sqlalchemy import orm  # isort: skip
from sqlalchemy.engine import CursorResult, Result, ScalarResult  # isort: skip
from sqlalchemy.engine.cursor import FullyBufferedCursorFetchStrategy  # isort: skip
from sqlalchemy.sql.base import Executable  # isort: skip

if TYPE_CHECKING:
    from .backends import Backend

__all__ = ["Block", "Session"]

T = TypeVar("T")

#: Has the ORM read all rows, and what is loaded eagerly with them, before ``execute`` returns.
BUFFERED = {"prebuffer_rows": True}


def buffered(result: Result[Any]) -> Result[Any]:
    """*result* with its rows in memory, to be read when the connection is gone."""
    if isinstance(result, CursorResult) and result.returns_rows:
        rows = result.cursor_strategy.fetchall(result, result.cursor)
        result.cursor_strategy = FullyBufferedCursorFetchStrategy(
            None,
            initial_buffer=rows,
        )
    return result


class Session:
    """One conversation with the database; not made by itself but by ``db.session()``.

    ``async with`` closes it, which rolls back what was not committed.  Its calls go one after the other,
    also where they are not waited for.  Everything that returns a Deferred can be cancelled: the statement
    is cancelled on the server, and the session can be used again after ``rollback()``, as after any error.

    :ivar sync_session: SQLAlchemy's session inside; to be handled in :meth:`run`.
    """

    def __init__(
        self,
        backend: Backend,
        sync_session: orm.Session,
        *,
        read_only: bool = False,
        commits: bool = False,
    ) -> None:
        self.sync_session = sync_session
        self.read_only = read_only
        self.slot: Any = None
        self._backend = backend
        self._commits = commits
        self._busy = False
        self._queue: deque[Deferred[None]] = deque()

    # -- the way to the database -----------------------------------------------------------------

    def _do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Call *function* where it may wait for the database, after the calls before it."""
        if not self._busy:
            return self._start(function, args, kwargs)
        waiting: Deferred[Any] = Deferred(self._queue.remove)
        self._queue.append(waiting)
        return waiting.addCallback(lambda _: self._start(function, args, kwargs))

    def _start(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Deferred[Any]:
        self._busy = True
        return self._backend.call(self, function, *args, **kwargs).addBoth(self._done)

    def _done(self, result: Any) -> Any:
        self._busy = False
        if self._queue:
            self._queue.popleft().callback(None)
        return result

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> Deferred[T]:
        """Call ``function(sync_session, *args, **kwargs)``, plain SQLAlchemy code, lazy loads and all.

        Nothing is committed by this; see :meth:`cycloneish.db.Database.run` for a transaction.
        """
        return self._do(function, self.sync_session, *args, **kwargs)

    # -- asking ----------------------------------------------------------------------------------

    def execute(self, statement: Executable, parameters: Any = None, **options: Any) -> Deferred[Result[Any]]:
        """Run a statement; fires with its result, whose rows are in memory."""
        return self._do(self._execute, statement, parameters, options)

    def _execute(self, statement: Executable, parameters: Any, options: dict[str, Any]) -> Result[Any]:
        wanted = {**BUFFERED, **options.pop("execution_options", {})}
        result = self.sync_session.execute(statement, parameters, execution_options=wanted, **options)
        return buffered(result)

    def scalars(
        self, statement: Executable, parameters: Any = None, **options: Any
    ) -> Deferred[ScalarResult[Any]]:
        """Run a query; fires with the first column of its rows: ``(await s.scalars(select(User))).all()``."""
        return self.execute(statement, parameters, **options).addCallback(lambda result: result.scalars())

    def scalar(self, statement: Executable, parameters: Any = None, **options: Any) -> Deferred[Any]:
        """Run a query; fires with the first column of its first row, or None."""
        return self._do(self.sync_session.scalar, statement, parameters, **options)

    def get(self, entity: type[T], ident: Any, **options: Any) -> Deferred[T | None]:
        """The object with this primary key, from the identity map where it is there; or None."""
        return self._do(self.sync_session.get, entity, ident, **options)

    def get_one(self, entity: type[T], ident: Any, **options: Any) -> Deferred[T]:
        """As :meth:`get`, but fails with ``NoResultFound`` where there is none."""
        return self._do(self.sync_session.get_one, entity, ident, **options)

    def stream(self, statement: Executable, parameters: Any = None, *, batch: int = 500) -> Stream:
        """The rows of a query as they are wanted, *batch* of them in memory at most."""
        return Stream(self, statement, parameters, batch)

    @overload
    def load(self, instance: object, name: str, /) -> Deferred[Any]: ...
    @overload
    def load(self, instance: object, name: str, /, *names: str) -> Deferred[list[Any]]: ...
    def load(self, instance: object, name: str, /, *names: str) -> Deferred[Any]:
        """Read attributes that may have to be loaded: ``posts = await s.load(user, "posts")``.

        :returns: a Deferred with the value, or with a list of values for several names.
        """
        if not names:
            return self._do(getattr, instance, name)
        return self._do(lambda: [getattr(instance, each) for each in (name, *names)])

    def refresh(self, instance: object, attribute_names: Iterable[str] | None = None) -> Deferred[None]:
        """Read the attributes of *instance* anew."""
        return self._do(self.sync_session.refresh, instance, attribute_names)

    # -- changing --------------------------------------------------------------------------------

    def add(self, instance: object) -> None:
        """Have *instance* saved with the next flush."""
        self.sync_session.add(instance)

    def add_all(self, instances: Iterable[object]) -> None:
        """Have all of them saved with the next flush."""
        self.sync_session.add_all(instances)

    def delete(self, instance: object) -> Deferred[None]:
        """Have *instance* deleted with the next flush; may load what hangs on it."""
        return self._do(self.sync_session.delete, instance)

    def merge(self, instance: T, **options: Any) -> Deferred[T]:
        """Copy the state of *instance* to the one with its key in this session, and fire with that."""
        return self._do(self.sync_session.merge, instance, **options)

    def flush(self, objects: Any = None) -> Deferred[None]:
        """Send what was changed, within the transaction."""
        return self._do(self.sync_session.flush, objects)

    def commit(self) -> Deferred[None]:
        """Flush and commit.  Once COMMIT is on its way, cancelling waits for the answer."""
        return self._do(self.sync_session.commit)

    def rollback(self) -> Deferred[None]:
        """Take everything back that was not committed."""
        return self._do(self.sync_session.rollback)

    def begin(self) -> Block:
        """A transaction as a block, for a session that has none: leaving it commits, an error rolls back."""
        return Block(self, self.sync_session.begin)

    def begin_nested(self) -> Block:
        """A savepoint as a block: leaving it keeps the changes, an error takes them back."""
        return Block(self, self.sync_session.begin_nested)

    def close(self) -> Deferred[None]:
        """Roll back what is open, forget all objects and give the connection back."""
        if not self._busy and not self.sync_session.in_transaction():
            self.sync_session.close()
            return succeed(None)
        return self._do(self.sync_session.close)

    async def __aenter__(self) -> Session:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        closing: Callable[[], Deferred[None]] = self.close
        if kind is None and self._commits:
            try:
                await self.commit()
            finally:
                await self.close()
        elif kind is not None and issubclass(kind, GeneratorExit):
            # The coroutine is being thrown away and must not wait any more.
            closing()
        else:
            await closing()

    # -- what asks nothing -----------------------------------------------------------------------

    def in_transaction(self) -> bool:
        """Whether there is a transaction, and so a connection."""
        return self.sync_session.in_transaction()

    def expunge(self, instance: object) -> None:
        """Forget *instance*; it keeps what is loaded."""
        self.sync_session.expunge(instance)

    def expunge_all(self) -> None:
        """Forget all objects."""
        self.sync_session.expunge_all()

    def expire(self, instance: object, attribute_names: Iterable[str] | None = None) -> None:
        """Have attributes of *instance* read anew when they are next asked for."""
        self.sync_session.expire(instance, attribute_names)

    def expire_all(self) -> None:
        """The same for all objects."""
        self.sync_session.expire_all()

    def is_modified(self, instance: object) -> bool:
        """Whether *instance* has changes that are not flushed."""
        return self.sync_session.is_modified(instance)

    @property
    def new(self) -> Any:
        """Objects to be inserted."""
        return self.sync_session.new

    @property
    def dirty(self) -> Any:
        """Objects that may have changes."""
        return self.sync_session.dirty

    @property
    def deleted(self) -> Any:
        """Objects to be deleted."""
        return self.sync_session.deleted

    @property
    def identity_map(self) -> Any:
        """The objects of this session by their keys."""
        return self.sync_session.identity_map

    @property
    def info(self) -> dict[Any, Any]:
        """The program's own notes."""
        return self.sync_session.info

    @property
    def no_autoflush(self) -> Any:
        """For ``with s.no_autoflush:``."""
        return self.sync_session.no_autoflush

    def __contains__(self, instance: object) -> bool:
        return instance in self.sync_session

    def __iter__(self) -> Iterator[object]:
        return iter(self.sync_session)


class Block:
    """A transaction or a savepoint: ``async with s.begin_nested():``, or ``sp = await s.begin_nested()``."""

    def __init__(self, session: Session, begin: Callable[[], orm.SessionTransaction]) -> None:
        self._session = session
        self._begin = begin
        self._transaction: orm.SessionTransaction | None = None

    def start(self) -> Deferred[Block]:
        """Begin; ``async with`` and ``await`` do this."""
        return self._session._do(self._begin).addCallback(self._begun)

    def _begun(self, transaction: orm.SessionTransaction) -> Block:
        self._transaction = transaction
        return self

    def __await__(self) -> Generator[Any, Any, Block]:
        return self.start().__await__()

    def commit(self) -> Deferred[None]:
        """Keep what was changed since."""
        return self._end("commit")

    def rollback(self) -> Deferred[None]:
        """Take back what was changed since."""
        return self._end("rollback")

    def _end(self, how: str) -> Deferred[None]:
        if self._transaction is None:
            raise RuntimeError("the block was not begun: use 'async with', or await it")
        return self._session._do(getattr(self._transaction, how))

    async def __aenter__(self) -> Block:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        transaction = self._transaction
        assert transaction is not None
        leave = partial(self._session._do, transaction.__exit__)
        if kind is not None and issubclass(kind, GeneratorExit):
            leave(kind, error, trace)
        elif transaction.is_active or kind is None:
            await leave(kind, error, trace)
        else:
            await leave(kind, error, trace)
