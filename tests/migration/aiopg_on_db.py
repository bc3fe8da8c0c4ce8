"""What Tornado's blog uses of aiopg, on `cycloneish.db`: put beside it under this name by the test."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg2

from cycloneish.db.postgres import Pool


class _Row(dict[str, Any]):
    pass


class _Column:
    def __init__(self, name: str) -> None:
        self.name = name


class Cursor:
    def __init__(self, db: Any) -> None:
        self.db = db
        self.rows: list[_Row] = []

    def __enter__(self) -> Cursor:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    async def execute(self, statement: str, arguments: tuple[Any, ...] = ()) -> None:
        try:
            if statement.startswith("SELECT") or "RETURNING" in statement:
                self.rows = await self.db.fetch_all(statement, arguments or None, into=_Row)
            else:
                await self.db.execute(statement, arguments or None)
        except Exception as error:
            if "does not exist" in str(error):
                raise psycopg2.ProgrammingError(str(error)) from error
            raise

    @property
    def description(self) -> list[_Column]:
        return [_Column(name) for name in self.rows[0]] if self.rows else []

    async def fetchall(self) -> list[tuple[Any, ...]]:
        return [tuple(row.values()) for row in self.rows]

    async def fetchone(self) -> tuple[Any, ...] | None:
        return tuple(self.rows[0].values()) if self.rows else None


class AioPool:
    def __init__(self, db: Any) -> None:
        self.db = db

    async def cursor(self) -> Cursor:
        return Cursor(self.db)


@asynccontextmanager
async def create_pool(**_: Any) -> AsyncIterator[AioPool]:
    db = Pool(os.environ["BLOG_DATABASE"])
    db.startService()
    await db.when_ready()
    try:
        yield AioPool(db)
    finally:
        await db.stopService()
