"""Mapped classes for the tests of the ORM: users who write posts that carry tags."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase):
    """What the classes share."""


tagged = Table(
    "tagged",
    Base.metadata,
    Column("post_id", ForeignKey("post.id", ondelete="cascade"), primary_key=True),
    Column("tag_id", ForeignKey("tag.id"), primary_key=True),
)


class User(Base):
    """Somebody with a name of their own."""

    __tablename__ = "member"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    posts: Mapped[list[Post]] = relationship(
        back_populates="user", cascade="all, delete-orphan", order_by="Post.id"
    )


class Post(Base):
    """What somebody wrote."""

    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("member.id"))
    title: Mapped[str]
    user: Mapped[User] = relationship(back_populates="posts")
    tags: Mapped[list[Tag]] = relationship(secondary=tagged, order_by="Tag.id")


class Tag(Base):
    """A word on a post."""

    __tablename__ = "tag"
    id: Mapped[int] = mapped_column(primary_key=True)
    word: Mapped[str] = mapped_column(unique=True)


def ann() -> User:
    """A user with two posts."""
    tag = Tag(word="new")
    return User(name="ann", posts=[Post(title="first", tags=[tag]), Post(title="second")])
