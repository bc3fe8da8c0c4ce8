"""The pages of the board, one class for each."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import IntegrityError

from cycloneish import locale
from cycloneish.demo.board import Board
from cycloneish.demo.checks import NOBODY, hash_password, own_page, password_matches
from cycloneish.demo.forms import LARGEST_PICTURE, LONGEST_TEXT, Account, Compose, NewAccount
from cycloneish.demo.models import Member, Message, Picture
from cycloneish.escape import linkify
from cycloneish.forms import FormMixin
from cycloneish.sse import SSEHandler
from cycloneish.web import HTTPError, RequestHandler, SecurityHeadersMixin, authenticated
from cycloneish.websocket import WebSocketHandler

LANGUAGES = {"en_US": "English", "de": "Deutsch"}


class Page(SecurityHeadersMixin, RequestHandler):
    """What all pages have in common."""

    current_user: Member | None
    content_security_policy = (
        "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; form-action 'self'; "
        "base-uri 'none'"
    )
    referrer_policy = "same-origin"
    hsts_max_age = None

    @property
    def board(self) -> Board:
        board: Board = self.settings["board"]
        return board

    async def prepare(self) -> None:
        self.current_user = None
        cookie = self.get_signed_cookie("member")
        if cookie is not None:
            self.current_user = await self.board.member(int(cookie))

    def get_user_locale(self) -> locale.Locale | None:
        code = self.get_cookie("language")
        return locale.get(code) if code in LANGUAGES else None

    def get_template_namespace(self) -> dict[str, Any]:
        return super().get_template_namespace() | {
            "languages": LANGUAGES,
            "linkify": linkify,
            "longest_text": LONGEST_TEXT,
        }

    def set_default_headers(self) -> None:
        self.set_header("Cache-Control", "private, no-cache")
        super().set_default_headers()

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        if self.settings.get("serve_traceback"):
            super().write_error(status_code, **kwargs)
            return
        self.set_header("Content-Type", "text/html; charset=UTF-8")
        self.render("error.html", status=status_code)

    def number(self, text: str | None) -> int | None:
        """*text* from outside, which has to be the number of a message where it is given."""
        if text is None:
            return None
        if not (text.isascii() and text.isdecimal() and len(text) <= 18):
            raise HTTPError(400, "not the number of a message")
        return int(text)

    @property
    def next_page(self) -> str:
        """Where the visitor wanted to go, if that is on this site."""
        return own_page(self.get_argument("next", "/"))

    def sign_in(self, number: int) -> None:
        self.set_signed_cookie(
            "member",
            str(number),
            expires_days=30,
            httponly=True,
            samesite="Lax",
            secure=self.request.protocol == "https",
        )
        self.redirect(self.next_page, status=303)


class BoardHandler(FormMixin, Page):
    """The board: everybody reads, members write."""

    max_body_size = LARGEST_PICTURE + 64 * 1024
    form_class = Compose

    @authenticated
    def post(self) -> Any:
        return super().post()

    async def form_valid(self, form: Any) -> None:
        assert self.current_user is not None
        picture = None
        if form.picture_type is not None:
            picture = Picture(type=form.picture_type, data=form.picture.data.body)
        await self.board.post(self.db, self.current_user, form.text.data, picture)
        self.redirect("/", status=303)

    async def show_form(self, form: Any) -> None:
        before = self.number(self.get_query_argument("before", None))
        messages, older = await self.board.page(before)
        await self.render("board.html", form=form, messages=messages, before=before, older=older)


class JSONHandler(Page):
    """The same for programs."""

    async def get(self) -> None:
        messages, older = await self.board.page(self.number(self.get_query_argument("before", None)))
        self.write(
            {
                "messages": [
                    {
                        "id": message.id,
                        "author": message.author.name,
                        "text": message.text,
                        "picture": f"/picture/{message.picture_id}" if message.picture_id else None,
                        "link": {"url": message.link, "title": message.link_title} if message.link else None,
                        "written": message.written.isoformat(),
                    }
                    for message in messages
                ],
                "older": f"/messages.json?before={older}" if older else None,
            }
        )


class Live(Page):
    """A page that shows new messages as they come."""

    async def prepare(self) -> None:
        await super().prepare()
        self.seen = self.number(self.get_query_argument("after", None))

    async def begin(self) -> None:
        self.board.readers.add(self)
        if self.seen is not None:
            # What was written while the page loaded or the connection was away.
            for message in await self.board.since(self.seen):
                self.show(message)

    def end(self) -> None:
        self.board.readers.discard(self)

    def html(self, message: Message) -> bytes:
        return self.render_string("message.html", message=message)

    def show(self, message: Message) -> None:
        raise NotImplementedError


class LiveHandler(Live, WebSocketHandler):
    """Over a WebSocket."""

    async def open(self) -> None:
        await self.begin()

    def on_close(self) -> None:
        self.end()

    def show(self, message: Message) -> None:
        self.write_message({"id": message.id, "html": self.html(message).decode()})


class UpdatesHandler(Live, SSEHandler):
    """Over server-sent events, where a WebSocket does not get through."""

    async def prepare(self) -> None:
        await super().prepare()
        self.seen = self.number(self.last_event_id) if self.last_event_id else self.seen

    async def bind(self) -> None:
        await self.begin()

    def unbind(self) -> None:
        self.end()

    def show(self, message: Message) -> None:
        self.send_event(self.html(message), eid=message.id)


class PictureHandler(Page):
    async def get(self, number: str, small: str | None = None) -> None:
        picture = await self.board.picture(int(number), small=small is not None)
        if picture is None:
            raise HTTPError(404)
        if small is not None and picture.thumbnail is None:
            self.redirect(f"/picture/{number}")
            return
        self.set_header("Content-Type", picture.type if small is None else "image/webp")
        # Whatever is in the file: it is shown as a picture or not at all.
        self.set_header("Content-Security-Policy", "default-src 'none'; sandbox")
        self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        self.write(picture.data if small is None else picture.thumbnail)  # type: ignore[arg-type]


class SignUpHandler(FormMixin, Page):
    form_class = NewAccount
    template_name = "account.html"
    new = True

    async def form_valid(self, form: Any) -> None:
        member = Member(name=form.name.data, password=await hash_password(form.password.data))
        self.db.add(member)
        try:
            await self.db.commit()
        except IntegrityError:  # somebody was faster
            form.name.errors = [self.locale.translate("This name is taken.")]
            await self.form_invalid(form)
            return
        self.sign_in(member.id)


class SignInHandler(FormMixin, Page):
    form_class = Account
    template_name = "account.html"
    new = False

    async def form_valid(self, form: Any) -> None:
        member = await self.board.find_member(form.name.data)
        stored = None if member is None else member.password
        # Somebody unknown, or with no password, is to take as long as everybody else.
        matches = await password_matches(form.password.data, stored or NOBODY)
        if member is None or stored is None or not matches:
            form.form_errors = [self.locale.translate("Name and password do not match.")]
            await self.form_invalid(form)
            return
        self.sign_in(member.id)


class SignOutHandler(Page):
    def post(self) -> None:
        self.clear_cookie("member")
        self.redirect("/", status=303)


class LanguageHandler(Page):
    def post(self) -> None:
        code = self.get_body_argument("language", "")
        if code in LANGUAGES:
            self.set_cookie("language", code, expires_days=365, httponly=True, samesite="Lax")
        self.redirect(self.next_page, status=303)


class NotFoundHandler(Page):
    async def prepare(self) -> None:
        await super().prepare()
        raise HTTPError(404)
