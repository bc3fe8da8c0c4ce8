"""A guest book: templates, UI modules, signed cookies, static files and async def in a hundred lines.

It was written for Tornado and moved by changing the imports, and it still runs there with them changed back.
Start it in this folder:

    cycloneish run --app guestbook:make_app
"""

import datetime
import os

from cycloneish.escape import json_decode
from cycloneish.web import Application, HTTPError, RequestHandler, UIModule, authenticated, url

HERE = os.path.dirname(os.path.abspath(__file__))


class Book:
    """The entries, newest first. A real one would ask a database, and so its methods are coroutines."""

    def __init__(self):
        self.entries = []

    async def add(self, guest, text):
        number = len(self.entries) + 1
        written = datetime.datetime.now(datetime.UTC)
        self.entries.insert(0, {"number": number, "guest": guest, "text": text, "written": written})
        return number

    async def page(self, first, size):
        return self.entries[first : first + size]


class BaseHandler(RequestHandler):
    @property
    def book(self):
        return self.settings["book"]

    def get_current_user(self):
        guest = self.get_signed_cookie("guest")
        return guest.decode() if guest else None

    def write_error(self, status_code, **kwargs):
        self.render("error.html", status=status_code, reason=self._reason)


class BookHandler(BaseHandler):
    async def get(self):
        first = max(0, int(self.get_argument("first", "0")))
        self.render("book.html", entries=await self.book.page(first, 10), first=first)

    @authenticated
    async def post(self):
        text = self.get_argument("text")
        if not 0 < len(text) <= 500:
            raise HTTPError(400, reason="An entry has 1 to 500 characters")
        number = await self.book.add(self.current_user, text)
        self.redirect(self.reverse_url("entry", number), status=303)


class EntryHandler(BaseHandler):
    async def get(self, number):
        for entry in await self.book.page(0, 10_000):
            if entry["number"] == int(number):
                return self.render("entry.html", entry=entry)
        raise HTTPError(404)


class SignInHandler(BaseHandler):
    def get(self):
        self.render("sign_in.html", next=self.get_argument("next", "/"))

    def post(self):
        self.set_signed_cookie("guest", self.get_argument("guest"), httponly=True, samesite="Lax")
        target = self.get_argument("next", "/")
        self.redirect(target if target.startswith("/") and not target.startswith("//") else "/")


class ExportHandler(BaseHandler):
    """All entries as lines of text, one piece at a time: flush() waits until the client has taken it."""

    async def get(self):
        self.set_header("Content-Type", "text/plain; charset=UTF-8")
        for entry in await self.book.page(0, 10_000):
            self.write("{number}\t{guest}\t{text}\n".format(**entry))
            await self.flush()


class ApiHandler(BaseHandler):
    """A JSON body in, a JSON body out; no form and no browser, so no XSRF token."""

    def check_xsrf_cookie(self):
        pass

    @authenticated
    async def post(self):
        self.write({"number": await self.book.add(self.current_user, json_decode(self.request.body)["text"])})


class Entry(UIModule):
    def render(self, entry, link=True):
        return self.render_string("modules/entry.html", entry=entry, link=link)

    def embedded_css(self):
        return ".entry { border-left: 3px solid #c60; padding-left: 1em }"


def make_app(**settings):
    routes = [
        url(r"/", BookHandler, name="book"),
        url(r"/entry/(\d+)", EntryHandler, name="entry"),
        url(r"/sign-in", SignInHandler),
        url(r"/export", ExportHandler),
        url(r"/api/entries", ApiHandler),
    ]
    defaults = {
        "book": Book(),
        "cookie_secret": os.environ.get("GUESTBOOK_SECRET") or os.urandom(32).hex(),
        "login_url": "/sign-in",
        "static_path": os.path.join(HERE, "static"),
        "template_path": os.path.join(HERE, "templates"),
        "ui_modules": {"Entry": Entry},
        "xsrf_cookies": True,
    }
    return Application(routes, **{**defaults, **settings})
