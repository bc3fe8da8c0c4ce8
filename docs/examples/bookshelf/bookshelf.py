"""A shelf of books: models, a migration, a form out of a model, and pages.

cycloneish run --app bookshelf:make_app --schema upgrade
"""

from __future__ import annotations

import os
from pathlib import Path

from models import Author, Book
from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from cycloneish.db import Database
from cycloneish.forms import DataRequired, Form, FormMixin, Length, ModelForm, StringField, uimodules
from cycloneish.web import Application, HTTPError, RequestHandler

HERE = Path(__file__).parent


class BookForm(ModelForm):
    """The title comes from the model; an author is a name, who may be new."""

    author = StringField("Author", [DataRequired(), Length(max=80)])

    class Meta:
        model = Book
        only = ["title"]


class ShelfHandler(FormMixin, RequestHandler):
    """All authors with their books, and a form for one more."""

    form_class = BookForm

    async def show_form(self, form: Form) -> None:
        query = select(Author).options(selectinload(Author.books)).order_by(Author.name)
        authors = (await self.db.scalars(query)).all()
        await self.render("shelf.html", authors=authors, form=form)

    async def form_valid(self, form: Form) -> None:
        name = form["author"].data
        author = await self.db.scalar(select(Author).where(Author.name == name))
        self.db.add(Book(title=form["title"].data, author=author or Author(name=name)))
        await self.db.commit()
        self.redirect("/", status=303)


class AuthorHandler(RequestHandler):
    """One author, as JSON."""

    async def get(self, ident: str) -> None:
        author = await self.db.get(Author, int(ident))
        if author is None:
            raise HTTPError(404)
        books = await self.db.load(author, "books")
        self.write({"name": author.name, "books": [book.title for book in books]})


def longest_titles(session: Session) -> dict[str, str]:
    """Plain SQLAlchemy: each author's longest title, the books loaded as they are asked for."""
    authors = session.scalars(select(Author).order_by(Author.name))
    return {author.name: max((book.title for book in author.books), key=len) for author in authors}


class LongestHandler(RequestHandler):
    """What a function in a straight line found out."""

    async def get(self) -> None:
        self.write(await self.settings["database"].run(longest_titles, read_only=True))


def make_app() -> Application:
    return Application(
        [(r"/", ShelfHandler), (r"/author/([0-9]+)", AuthorHandler), (r"/longest", LongestHandler)],
        template_path=HERE / "templates",
        ui_modules=uimodules,
        xsrf_cookies=True,
        database=Database(os.environ.get("DATABASE_URL", "embedded:bookshelf-data")),
    )
