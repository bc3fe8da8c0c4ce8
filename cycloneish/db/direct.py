"""The short way for single Core statements: SQLAlchemy compiles, our pool runs, SQLAlchemy makes the rows.

A statement without mapped objects needs neither session nor greenlet nor BEGIN.  :meth:`Direct.ask`
answers it where nothing of those could make a difference, and says so where it cannot; then
:class:`cycloneish.db.database.Database` goes the long way, with the same result.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from .leasing import LeasingPool
from .postgres import Pool

import psycopg2  # isort: skip  (after those that say what to install where it is missing)
from sqlalchemy.engine import CursorResult, Engine  # isort: skip
from sqlalchemy.engine.result import IteratorResult  # isort: skip
from sqlalchemy.exc import DBAPIError  # isort: skip

__all__ = ["Direct", "DirectResult"]

_NO_KEYS: tuple[str, ...] = ()


class DirectResult(IteratorResult[Any]):
    """Rows in memory, with what programs ask a cursor's result besides."""

    rowcount = -1

    @property
    def returns_rows(self) -> bool:
        """Whether the statement has rows at all."""
        return bool(vars(type(self._metadata)).get("returns_rows", True))


class _Adaption:
    """What a result's metadata look at to fit a statement that is like the one they were made for."""

    def __init__(self, compiled: Any, statement: Any) -> None:
        self.compiled = compiled
        self.invoked_statement = statement


class _Plan:
    """What is known of one statement object."""

    __slots__ = ("compiled", "extracted", "keys", "metadata", "ref", "simple", "values")

    ref: Any
    keys: tuple[str, ...]
    compiled: Any
    extracted: Any
    values: Any
    metadata: Any
    simple: bool


class Direct:
    """The short way to the database of *engine*, whose connections are those of *source*."""

    def __init__(self, engine: Engine, source: Pool) -> None:
        self._engine = engine
        self._source = source
        self._dialect = engine.dialect
        self._plans: dict[int, _Plan] = {}
        pool = engine.pool
        assert isinstance(pool, LeasingPool)
        self._pool = pool
        # The engine's own; a program that adds some wants them called.
        self._connect_events = len(pool.dispatch.connect)

    def ask(
        self, statement: Any, parameters: Any, finish: Callable[[Any], Any] | None, timeout: float | None
    ) -> Deferred[Any] | None:
        """Run *statement*, committed by itself.

        :param finish: what is done with the result, if anything.
        :param timeout: seconds, as for the methods of the pool.
        :returns: a Deferred, or None where the long way has to be gone.
        """
        keys = _NO_KEYS
        if parameters:
            if type(parameters) is not dict:
                return None
            keys = tuple(sorted(parameters))
        plan = self._plans.get(id(statement))
        if plan is None or plan.keys != keys or plan.ref() is not statement:
            plan = self._make_plan(statement, keys)
            if plan is None:
                return None
        if self._must_be_heard():
            return None
        sql, values = self._fill_in(plan, parameters)
        metadata = plan.metadata

        def collect(cursor: Any) -> Any:
            result = DirectResult(metadata, iter(cursor.fetchall() if metadata.returns_rows else ()))
            result.rowcount = cursor.rowcount
            return result if finish is None else finish(result)

        answer = self._source._submit(sql, values, collect, timeout)
        return answer.addErrback(self._wrap, sql, values)

    def _must_be_heard(self) -> bool:
        """Whether somebody listens to what the long way would tell."""
        engine, pool = self._engine, self._pool
        dispatch: Any = pool.dispatch
        return bool(
            engine._has_events
            or engine._echo
            or engine._execution_options
            or self._dialect._has_events
            or len(dispatch.connect) != self._connect_events
            or dispatch.checkout
            or dispatch.checkin
            or dispatch.reset
        )

    def _make_plan(self, statement: Any, keys: tuple[str, ...]) -> _Plan | None:
        """What is known of *statement*; None where it is not for here, or was not run before."""
        selects = getattr(statement, "is_select", False)
        if not (selects or getattr(statement, "is_dml", False)):
            return None
        if statement._propagate_attrs or statement._execution_options or not self._pool.initialised:
            return None
        compiled, extracted, values, _ = statement._compile_w_cache(
            self._dialect, compiled_cache=self._engine._compiled_cache, column_keys=list(keys)
        )
        if selects:
            metadata = compiled._cached_metadata
            if metadata is None:
                return None
            if compiled.statement is not statement:
                metadata = metadata._adapt_to_context(_Adaption(compiled, statement))
        else:
            metadata = CursorResult._no_result_metadata
            if (
                compiled.effective_returning
                or compiled.insert_prefetch
                or compiled.update_prefetch
                or compiled.isinsert
            ):
                return None
        plan = _Plan()
        ident, plans = id(statement), self._plans
        plan.ref = weakref.ref(statement, lambda _: plans.pop(ident, None))
        plan.keys = keys
        plan.compiled = compiled
        plan.extracted = extracted
        plan.values = values
        plan.metadata = metadata
        plan.simple = not (
            compiled.literal_execute_params
            or compiled.post_compile_params
            or compiled._bind_processors
            or compiled.escaped_bind_names
        )
        plans[ident] = plan
        return plan

    def _fill_in(self, plan: _Plan, parameters: Any) -> tuple[str, dict[str, Any]]:
        """The SQL and the values that the driver gets."""
        compiled = plan.compiled
        values: dict[str, Any] = compiled.construct_params(
            parameters,
            extracted_parameters=plan.extracted,
            escape_names=False,
            _collected_params=plan.values,
        )
        sql: str = compiled.string
        if plan.simple:
            return sql, values
        processors = compiled._bind_processors
        if compiled.literal_execute_params or compiled.post_compile_params:
            expanded = compiled._process_parameters_for_postcompile(values)
            sql = expanded.statement
            processors = {**processors, **expanded.processors}
        names = compiled.escaped_bind_names or {}
        return sql, {
            names.get(key, key): processors[key](value) if key in processors else value
            for key, value in values.items()
        }

    def _wrap(self, failure: Failure, sql: str, values: Any) -> Failure:
        """An error of the driver's as SQLAlchemy reports it."""
        error = failure.value
        if not isinstance(error, psycopg2.Error):
            return failure
        dialect: Any = self._dialect
        wrapped = DBAPIError.instance(
            sql, values, error, psycopg2.Error, hide_parameters=self._engine.hide_parameters, dialect=dialect
        )
        raise wrapped from error
