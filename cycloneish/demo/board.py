"""What the board knows: members, messages and pictures in PostgreSQL, and who is reading right now."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import ColumnElement, func, select, true
from sqlalchemy.orm import undefer
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from cycloneish.bus import open_bus
from cycloneish.coroutines import drive
from cycloneish.db import Database
from cycloneish.db.migrations import Migrations
from cycloneish.demo.jobs import Jobs
from cycloneish.demo.models import Member, Message, Picture

PAGE = 20
#: The channel of the bus on which the numbers of new and changed messages are told.
MESSAGES = "messages"

log = logging.getLogger("cycloneish.demo")


class Reader(Protocol):
    """Somebody whose page is open."""

    def show(self, message: Message) -> None: ...


class Board(MultiService):
    """The database, the bus, the background jobs and the readers: one object for the whole program.

    :param database: its URL.
    :param amqp: the URL of a broker, over which several processes share the live part and the jobs; without,
        PostgreSQL carries the live part where several processes may have the database.
    """

    def __init__(self, database: str, amqp: str | None = None) -> None:
        super().__init__()
        self.db = Database(database, prepare=upgrade)
        self.db.setServiceParent(self)
        own = database.startswith("embedded:")  # by one process alone
        self.bus = open_bus(amqp or ("memory:" if own else self.db.pool))
        self.bus.setServiceParent(self)
        self.jobs = Jobs(self, amqp or "memory:")
        self.jobs.setServiceParent(self)
        self.readers: set[Reader] = set()
        self.newest = 0

    def startService(self) -> Deferred[None]:
        """Start the database, then hear of every message, whichever process wrote it."""
        super().startService()
        return drive(self._begin())

    async def _begin(self) -> None:
        await self.db.when_ready()
        self.newest = await self.db.fetch_value(select(func.coalesce(func.max(Message.id), 0)))
        await self.bus.subscribe(
            MESSAGES, lambda told: self.announce(told.data), on_gap=lambda _: self.catch_up()
        )

    # -- members ---------------------------------------------------------------------------------

    def member(self, number: int) -> Deferred[Member | None]:
        return self.db.fetch_value(select(Member).where(Member.id == number))

    def find_member(self, name: str) -> Deferred[Member | None]:
        found = select(Member).where(func.lower(Member.name) == func.lower(name))
        return self.db.fetch_value(found.options(undefer(Member.password)))

    # -- messages --------------------------------------------------------------------------------

    async def page(self, before: int | None) -> tuple[list[Message], int | None]:
        """The newest messages older than *before*, and where the page after them begins."""
        older = Message.id < before if before is not None else true()
        found = await self.messages(older, Message.id.desc(), PAGE + 1)
        return found[:PAGE], found[PAGE - 1].id if len(found) > PAGE else None

    def since(self, number: int) -> Deferred[list[Message]]:
        return self.messages(Message.id > number, Message.id.asc(), 100)

    def messages(self, wanted: ColumnElement[bool], order: Any, most: int) -> Deferred[list[Message]]:
        return self.db.fetch_values(select(Message).where(wanted).order_by(order).limit(most))

    async def post(self, session: Any, author: Member, text: str, picture: Picture | None) -> Message:
        """Store a message with its picture, both or neither; then tell everybody, and have the rest done."""
        message = Message(author_id=author.id, text=text, picture=picture)
        session.add(message)
        await session.commit()
        await self.tell(message.id)
        await self.jobs.look_after(message.id, text, message.picture_id)
        return message

    async def tell(self, number: int) -> None:
        """Say that message *number* is new or has changed; it is stored, whatever becomes of that."""
        try:
            await self.bus.publish(MESSAGES, number)
        except Exception:
            log.exception("message %d is stored, but readers will not see it by themselves", number)

    def picture(self, number: int, small: bool = False) -> Deferred[Picture | None]:
        wanted = undefer(Picture.thumbnail) if small else undefer(Picture.data)
        return self.db.fetch_value(select(Picture).where(Picture.id == number).options(wanted))

    # -- the live part ---------------------------------------------------------------------------

    async def announce(self, number: int) -> None:
        """Somebody says that a message is new or has changed: show it to everybody who is reading."""
        message = await self.db.fetch_value(select(Message).where(Message.id == number))
        if message is not None:
            self.show(message)

    async def catch_up(self) -> None:
        """Messages were missed: show what was written meanwhile."""
        for message in await self.since(self.newest):
            self.show(message)

    def show(self, message: Message) -> None:
        self.newest = max(self.newest, message.id)
        for reader in list(self.readers):
            reader.show(message)


async def upgrade(database: Database) -> None:
    """Bring the tables to what this version of the board wants."""
    await database.run_connection(Migrations(Path(__file__).parent / "migrations").upgrade)
