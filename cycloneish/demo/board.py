"""What the board knows: members, messages and pictures in PostgreSQL, and who is reading right now."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred

from cycloneish.db.postgres import Subscription, Transaction
from cycloneish.db.urls import open_database

PAGE = 20
NEW_MESSAGE = "new_message"

TABLES = """
    select pg_advisory_xact_lock(20181);  -- two programs may start at the same time
    create table if not exists member (
        id bigint generated always as identity primary key,
        name text not null,
        password bytea not null,
        joined timestamptz not null default now()
    );
    create unique index if not exists member_name on member (lower(name));
    create table if not exists picture (
        id bigint generated always as identity primary key,
        type text not null,
        data bytea not null
    );
    create table if not exists message (
        id bigint generated always as identity primary key,
        author_id bigint not null references member,
        text text not null,
        picture_id bigint references picture,
        written timestamptz not null default now()
    );
"""

MESSAGE = """
    select message.id, member.name as author, text, picture_id, written
    from message join member on member.id = author_id
"""


@dataclass
class Member:
    id: int
    name: str


@dataclass
class Message:
    id: int
    author: str
    text: str
    picture_id: int | None
    written: datetime


class Reader(Protocol):
    """Somebody whose page is open."""

    def show(self, message: Message) -> None: ...


class Board(MultiService):
    """The database and the readers: one object for the whole program."""

    def __init__(self, database: str) -> None:
        super().__init__()
        self.db = open_database(database, prepare=self.make_tables)
        self.db.setServiceParent(self)
        self.readers: set[Reader] = set()
        self.newest = 0

    def startService(self) -> Deferred[Subscription]:
        """Start the database, then hear of every message, whichever process wrote it."""
        super().startService()
        return self.db.listen(NEW_MESSAGE, self.announce, on_gap=self.catch_up)

    async def make_tables(self, tx: Transaction) -> None:
        await tx.execute(TABLES)
        self.newest = await tx.fetch_value("select coalesce(max(id), 0) from message")

    # -- members ---------------------------------------------------------------------------------

    def member(self, number: int) -> Deferred[Member | None]:
        return self.db.fetch_one("select id, name from member where id = %s", (number,), into=Member)

    def add_member(self, name: str, password: bytes) -> Deferred[int]:
        return self.db.fetch_value(
            "insert into member (name, password) values (%s, %s) returning id", (name, password)
        )

    def find_member(self, name: str) -> Deferred[Any]:
        return self.db.fetch_one("select id, password from member where lower(name) = lower(%s)", (name,))

    # -- messages --------------------------------------------------------------------------------

    async def page(self, before: int | None) -> tuple[list[Message], int | None]:
        """The newest messages older than *before*, and where the page after them begins."""
        found = await self.db.fetch_all(
            f"{MESSAGE} where %(before)s is null or message.id < %(before)s"
            " order by message.id desc limit %(n)s",
            {"before": before, "n": PAGE + 1},
            into=Message,
        )
        messages = found[:PAGE]
        return messages, messages[-1].id if len(found) > PAGE else None

    def since(self, number: int) -> Deferred[list[Message]]:
        return self.db.fetch_all(
            f"{MESSAGE} where message.id > %s order by message.id limit 100", (number,), into=Message
        )

    async def post(self, author: Member, text: str, picture: tuple[str, bytes] | None) -> int:
        """Store a message with its picture, both or neither, and tell everybody."""
        async with self.db.transaction() as tx:
            picture_id = None
            if picture is not None:
                picture_id = await tx.fetch_value(
                    "insert into picture (type, data) values (%s, %s) returning id", picture
                )
            number: int = await tx.fetch_value(
                "insert into message (author_id, text, picture_id) values (%s, %s, %s) returning id",
                (author.id, text, picture_id),
            )
            await tx.notify(NEW_MESSAGE, str(number))
        return number

    def picture(self, number: int) -> Deferred[Any]:
        return self.db.fetch_one("select type, data from picture where id = %s", (number,))

    # -- the live part ---------------------------------------------------------------------------

    async def announce(self, number: str) -> None:
        """PostgreSQL says that there is a new message: show it to everybody who is reading."""
        message = await self.db.fetch_one(f"{MESSAGE} where message.id = %s", (int(number),), into=Message)
        if message is not None:
            self.show(message)

    async def catch_up(self) -> None:
        """The connection was lost for a while: show what was written meanwhile."""
        for message in await self.since(self.newest):
            self.show(message)

    def show(self, message: Message) -> None:
        self.newest = max(self.newest, message.id)
        for reader in list(self.readers):
            reader.show(message)
