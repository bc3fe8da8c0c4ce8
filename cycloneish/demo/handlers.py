"""The pages of the board, one class for each."""

from __future__ import annotations

from typing import Any

from cycloneish import locale
from cycloneish.db.postgres import UniqueViolation
from cycloneish.demo.board import Board, Member, Message
from cycloneish.demo.checks import NAME, NOBODY, hash_password, own_page, password_matches, picture_type
from cycloneish.escape import linkify
from cycloneish.sse import SSEHandler
from cycloneish.web import HTTPError, RequestHandler, authenticated

LONGEST_TEXT = 2000
LARGEST_PICTURE = 3 * 1024 * 1024
LANGUAGES = {"en_US": "English", "de": "Deutsch"}


class Page(RequestHandler):
    """What all pages have in common."""

    current_user: Member | None

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
        self.set_header(
            "Content-Security-Policy",
            "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; "
            "form-action 'self'; base-uri 'none'",
        )
        self.set_header("X-Content-Type-Options", "nosniff")
        self.set_header("Referrer-Policy", "same-origin")

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

    def sign_in(self, number: int) -> None:
        self.set_signed_cookie(
            "member",
            str(number),
            expires_days=30,
            httponly=True,
            samesite="Lax",
            secure=self.request.protocol == "https",
        )
        self.redirect(own_page(self.get_body_argument("next", "/")), status=303)


class BoardHandler(Page):
    """The board: everybody reads, members write."""

    max_body_size = LARGEST_PICTURE + 64 * 1024

    async def get(self) -> None:
        await self.show_board()

    @authenticated
    async def post(self) -> None:
        assert self.current_user is not None
        text = self.get_body_argument("text", "").replace("\r\n", "\n")
        uploads = self.request.files.get("picture", [])
        data = uploads[0].body if uploads else b""
        kind = picture_type(data)
        error = None
        if not text and not data:
            error = self.locale.translate("Write something, or choose a picture.")
        elif len(text) > LONGEST_TEXT:
            error = self.locale.translate("This is too long: %(most)d characters at most.") % {
                "most": LONGEST_TEXT
            }
        elif len(data) > LARGEST_PICTURE:
            error = self.locale.translate("The picture is too large: 3 MB at most.")
        elif data and kind is None:
            error = self.locale.translate("This is no picture: PNG, JPEG, GIF or WebP, please.")
        if error is not None:
            self.set_status(422)
            await self.show_board(text=text, error=error)
            return
        await self.board.post(self.current_user, text, (kind, data) if kind else None)
        self.redirect("/", status=303)

    async def show_board(self, text: str = "", error: str | None = None) -> None:
        before = self.number(self.get_query_argument("before", None))
        messages, older = await self.board.page(before)
        self.render("board.html", messages=messages, before=before, older=older, text=text, error=error)


class JSONHandler(Page):
    """The same for programs."""

    async def get(self) -> None:
        messages, older = await self.board.page(self.number(self.get_query_argument("before", None)))
        self.write(
            {
                "messages": [
                    {
                        "id": message.id,
                        "author": message.author,
                        "text": message.text,
                        "picture": f"/picture/{message.picture_id}" if message.picture_id else None,
                        "written": message.written.isoformat(),
                    }
                    for message in messages
                ],
                "older": f"/messages.json?before={older}" if older else None,
            }
        )


class UpdatesHandler(Page, SSEHandler):
    """New messages as they come; the browser's EventSource holds this open."""

    async def prepare(self) -> None:
        await super().prepare()
        self.seen = self.number(self.last_event_id or self.get_query_argument("after", None))

    async def bind(self) -> None:
        self.board.readers.add(self)
        if self.seen is not None:
            # What was written while the page loaded or the connection was away.
            for message in await self.board.since(self.seen):
                self.show(message)

    def unbind(self) -> None:
        self.board.readers.discard(self)

    def show(self, message: Message) -> None:
        self.send_event(self.render_string("message.html", message=message), eid=message.id)


class PictureHandler(Page):
    async def get(self, number: str) -> None:
        found = await self.board.picture(int(number))
        if found is None:
            raise HTTPError(404)
        kind, data = found
        self.set_header("Content-Type", kind)
        # Whatever is in the file: it is shown as a picture or not at all.
        self.set_header("Content-Security-Policy", "default-src 'none'; sandbox")
        self.set_header("Cache-Control", "public, max-age=31536000, immutable")
        self.write(data)


class SignUpHandler(Page):
    async def get(self) -> None:
        self.show_form()

    async def post(self) -> None:
        _ = self.locale.translate
        name = self.get_body_argument("name", "")
        password = self.get_body_argument("password", "", strip=False)
        if not NAME.fullmatch(name):
            self.show_form(name, _("2 to 30 letters, digits, dots or dashes, please."), "name")
            return
        if not 8 <= len(password) <= 200:
            self.show_form(name, _("At least 8 characters, please."), "password")
            return
        try:
            number = await self.board.add_member(name, await hash_password(password))
        except UniqueViolation:
            self.show_form(name, _("This name is taken."), "name")
            return
        self.sign_in(number)

    def show_form(self, name: str = "", error: str | None = None, field: str = "") -> None:
        if error is not None:
            self.set_status(422)
        after = own_page(self.get_argument("next", "/"))
        self.render("account.html", new=True, name=name, error=error, field=field, after=after)


class SignInHandler(Page):
    async def get(self) -> None:
        self.show_form()

    async def post(self) -> None:
        name = self.get_body_argument("name", "")
        found = await self.board.find_member(name)
        number, stored = found or (None, NOBODY)
        password = self.get_body_argument("password", "", strip=False)[:200]
        if not await password_matches(password, stored) or number is None:
            self.show_form(name, self.locale.translate("Name and password do not match."))
            return
        self.sign_in(number)

    def show_form(self, name: str = "", error: str | None = None) -> None:
        if error is not None:
            self.set_status(422)
        after = own_page(self.get_argument("next", "/"))
        self.render("account.html", new=False, name=name, error=error, field="", after=after)


class SignOutHandler(Page):
    def post(self) -> None:
        self.clear_cookie("member")
        self.redirect("/", status=303)


class LanguageHandler(Page):
    def post(self) -> None:
        code = self.get_body_argument("language", "")
        if code in LANGUAGES:
            self.set_cookie("language", code, expires_days=365, httponly=True, samesite="Lax")
        self.redirect(own_page(self.get_body_argument("next", "/")), status=303)


class NotFoundHandler(Page):
    async def prepare(self) -> None:
        await super().prepare()
        raise HTTPError(404)
