"""What the board keeps in PostgreSQL, as SQLAlchemy maps it; the tables are made by ``migrations/``."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, Identity, Index, LargeBinary, Text, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, str: Text, bytes: LargeBinary, datetime: DateTime(timezone=True)}


class Member(Base):
    __tablename__ = "member"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    name: Mapped[str]
    #: Salt and hash; None for those who sign in elsewhere.
    password: Mapped[bytes | None] = mapped_column(deferred=True)
    github: Mapped[int | None]
    joined: Mapped[datetime] = mapped_column(server_default=func.now())


Index("member_name", func.lower(Member.name), unique=True)
Index("member_github", Member.github, unique=True)


class Picture(Base):
    __tablename__ = "picture"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    type: Mapped[str]
    data: Mapped[bytes] = mapped_column(deferred=True)
    thumbnail: Mapped[bytes | None] = mapped_column(deferred=True)


class Message(Base):
    __tablename__ = "message"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("member.id"))
    text: Mapped[str]
    picture_id: Mapped[int | None] = mapped_column(ForeignKey("picture.id"))
    written: Mapped[datetime] = mapped_column(server_default=func.now())
    link: Mapped[str | None]
    link_title: Mapped[str | None]

    author: Mapped[Member] = relationship(lazy="joined", innerjoin=True)
    picture: Mapped[Picture | None] = relationship()
