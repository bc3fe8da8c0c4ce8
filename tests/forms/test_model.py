"""Forms out of mapped classes: their fields, and saving them in a real PostgreSQL."""

from __future__ import annotations

import datetime
import decimal
import enum
import uuid
from typing import Any

from sqlalchemy import JSON, ForeignKey, Numeric, SmallInteger, String, Text, UniqueConstraint, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship
from twisted.internet.defer import inlineCallbacks
from twisted.trial.unittest import SynchronousTestCase, TestCase

from cycloneish.db import Database
from cycloneish.forms import Form, IntegerField, ModelForm, StringField, TextAreaField, fields
from tests.db.support import fresh_url
from tests.db.test_database import deferred


class Base(DeclarativeBase):
    pass


class Kind(enum.Enum):
    NOVEL = 1
    POEM = 2


class Author(Base):
    __tablename__ = "author"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(
        String(20), unique=True, info={"label": "Full name", "help": "As printed"}
    )

    def __str__(self) -> str:
        return self.name


class Tag(Base):
    __tablename__ = "tag"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    word: Mapped[str]


class Tagging(Base):
    __tablename__ = "tagging"

    book: Mapped[int] = mapped_column(ForeignKey("book.id"), primary_key=True)
    tag: Mapped[uuid.UUID] = mapped_column(ForeignKey("tag.id"), primary_key=True)


class Book(Base):
    __tablename__ = "book"
    __table_args__ = (UniqueConstraint("title", "year"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(30))
    year: Mapped[int] = mapped_column(SmallInteger)
    kind: Mapped[Kind] = mapped_column(default=Kind.NOVEL)
    price: Mapped[decimal.Decimal | None] = mapped_column(Numeric(6, 2))
    blurb: Mapped[str | None] = mapped_column(Text)
    printed: Mapped[bool]
    day: Mapped[datetime.date | None]
    isbn: Mapped[uuid.UUID | None]
    extra: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    author_id: Mapped[int] = mapped_column(ForeignKey("author.id"))
    author: Mapped[Author] = relationship()
    tags: Mapped[list[Tag]] = relationship(secondary="tagging")


class AuthorForm(ModelForm):
    class Meta:
        model = Author


class BookForm(ModelForm):
    class Meta:
        model = Book


class Sent(dict[str, list[str]]):
    """Fields as a request brings them."""

    def getlist(self, name: str) -> list[str]:
        return self.get(name, [])


def sent(**values: str | list[str]) -> Sent:
    return Sent({name: value if isinstance(value, list) else [value] for name, value in values.items()})


class Fields(SynchronousTestCase):
    def test_of_columns(self) -> None:
        form = BookForm()
        self.assertEqual(
            {name: type(field).__name__ for name, field in form._fields.items()},
            {
                "title": "StringField",
                "year": "IntegerField",
                "kind": "SelectField",
                "price": "DecimalField",
                "blurb": "TextAreaField",
                "printed": "BooleanField",
                "day": "DateField",
                "isbn": "StringField",
                "author": "ModelSelectField",
                "tags": "ModelSelectMultipleField",
            },
        )
        self.assertTrue(form.title.flags.required)
        self.assertEqual(form.title.flags.maxlength, 30)
        self.assertEqual((form.year.flags.min, form.year.flags.max), (-(2**15), 2**15 - 1))
        self.assertFalse(form.price.flags.required)
        self.assertEqual(form.kind.data, Kind.NOVEL)
        self.assertIn('selected value="NOVEL"', form.kind())
        author = AuthorForm()
        self.assertEqual((author.name.label.text, author.name.description), ("Full name", "As printed"))

    def test_chosen(self) -> None:
        class Chosen(ModelForm):
            blurb = StringField("Mine")

            class Meta:
                model = Book
                only = ["blurb", "title", "author_id"]
                field_args = {"title": {"label": "Name of it"}}

        form = Chosen()
        self.assertEqual(set(form._fields), {"blurb", "title", "author_id"})
        self.assertIs(type(form.blurb), StringField("x").field_class)
        self.assertEqual(form.title.label.text, "Name of it")

        class Others(ModelForm):
            class Meta:
                model = Book
                exclude = ["blurb", "tags", "author"]

        self.assertNotIn("blurb", Others()._fields)
        self.assertIs(AuthorForm().meta.model, Author)

    def test_a_wrong_name_is_told(self) -> None:
        with self.assertRaisesRegex(TypeError, "Book has no titel"):

            class Wrong(ModelForm):
                class Meta:
                    model = Book
                    only = ["titel"]

    def test_values(self) -> None:
        class Plain(ModelForm):
            class Meta:
                model = Book
                exclude = ["author", "tags"]

        def check(**values: str) -> Form:
            given = {"title": "T", "year": "2000", "kind": "POEM", **values}
            form = Plain(formdata=sent(**given))
            form._unique_names = lambda: iter(())  # type: ignore[method-assign]
            form.good = self.successResultOf(form.validate())
            return form

        form = check(price="1.50", isbn="12345678-1234-5678-1234-567812345678", blurb="")
        self.assertTrue(form.good, form.errors)
        book = Book()
        form.populate_obj(book)
        self.assertEqual((book.kind, book.price, book.blurb), (Kind.POEM, decimal.Decimal("1.50"), None))
        self.assertEqual(book.isbn, uuid.UUID("12345678-1234-5678-1234-567812345678"))
        for wrong in (
            {"year": "40000"},
            {"price": "12345678"},
            {"kind": "SONG"},
            {"title": "x" * 31},
            {"title": "a\0b"},
            {"isbn": "7"},
            {"day": "yesterday"},
        ):
            self.assertEqual(set(check(**wrong).errors), set(wrong))
        self.assertTrue(isinstance(Plain().blurb, TextAreaField("x").field_class))
        self.assertTrue(issubclass(fields.IntegerField("x").field_class, IntegerField("x").field_class))


class Saving(TestCase):
    @inlineCallbacks
    def setUp(self) -> Any:
        self.db = Database(
            fresh_url(), prepare=lambda db: db.run(lambda s: Base.metadata.create_all(s.connection()))
        )
        self.db.startService()
        self.addCleanup(self.db.stopService)
        yield self.db.when_ready()

    @deferred
    async def test_unique(self) -> None:
        async with self.db.session() as session:
            form = AuthorForm(session=session, formdata=sent(name="Ada"))
            self.assertTrue(await form.validate())
            ada = await form.save()
            await session.commit()
            self.assertEqual((await session.scalars(select(Author.name))).all(), ["Ada"])
            again = AuthorForm(session=session, formdata=sent(name="Ada"))
            self.assertFalse(await again.validate())
            self.assertEqual(again.errors, {"name": ["This is taken already."]})
            # Itself is not in its own way.
            same = AuthorForm(session=session, obj=ada, formdata=sent(name="Ada"))
            self.assertTrue(await same.validate())
            self.assertIs(await same.save(), ada)

    @deferred
    async def test_what_came_in_between(self) -> None:
        async with self.db.session() as session:
            form = AuthorForm(session=session, formdata=sent(name="Ada"))
            self.assertTrue(await form.validate())
            await self.db.run(lambda other: other.add(Author(name="Ada")))
            self.assertIs(await form.save(), None)
            self.assertEqual(form.errors, {"name": ["This is taken already."]})
            # The session goes on.
            self.assertEqual((await session.scalars(select(Author.name))).all(), ["Ada"])

            class Loose(ModelForm):
                class Meta:
                    model = Book
                    only = ["title", "year", "kind"]

            loose = Loose(session=session, formdata=sent(title="T", year="1", kind="NOVEL"))
            self.assertTrue(await loose.validate(), loose.errors)
            with self.assertRaises(IntegrityError):
                await loose.save()

    @deferred
    async def test_choices(self) -> None:
        async with self.db.session() as session:
            session.add_all([Author(name="Bob"), Author(name="Ada"), Tag(word="a"), Tag(word="b")])
            await session.commit()
            tags = (await session.scalars(select(Tag))).all()
            ada = (await session.scalars(select(Author).where(Author.name == "Ada"))).one()
            values = {"title": "T", "year": "1999", "kind": "NOVEL", "tags": [str(tag.id) for tag in tags]}
            form = BookForm(session=session, formdata=sent(**values, author=str(ada.id)))
            await form.load_choices()
            self.assertIn(f'value="{ada.id}">Ada<', form.author())
            self.assertTrue(await form.validate(), form.errors)
            book = await form.save()
            await session.commit()
            self.assertIs(book.author, ada)
            self.assertEqual(set(book.tags), set(tags))
            shown = BookForm(session=session, obj=book)
            await shown.load_choices()
            self.assertEqual(shown.author.data, str(ada.id))
            self.assertEqual(shown.tags().count("selected"), 2)
            for wrong in (
                {"author": "999"},
                {"author": "x"},
                {"author": "1,2"},
                {"author": "9" * 30},
                {"tags": ["1"]},
            ):
                form = BookForm(
                    session=session, formdata=sent(**{**values, "author": str(ada.id), "year": "1", **wrong})
                )
                self.assertFalse(await form.validate())
                self.assertEqual(set(form.errors), set(wrong), wrong)
            form = BookForm(session=session, formdata=sent(**values, author=str(ada.id)))
            self.assertFalse(await form.validate())
            self.assertEqual(form.form_errors, ["There is one with the same Title, Year already."])
