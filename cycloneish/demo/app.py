"""Puts the board together: settings, routes, and the service that runs as long as the program does."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from cycloneish import locale
from cycloneish.demo.board import Board
from cycloneish.demo.handlers import (
    BoardHandler,
    JSONHandler,
    LanguageHandler,
    LiveHandler,
    NotFoundHandler,
    PictureHandler,
    SignInHandler,
    SignOutHandler,
    SignUpHandler,
    UpdatesHandler,
)
from cycloneish.demo.sign_in import GitHubHandler, github_settings
from cycloneish.forms import uimodules
from cycloneish.web import Application

HERE = Path(__file__).parent
#: The style sheet goes by elements, and needs a few names only.
FORM_CLASSES = {
    **dict.fromkeys(("field", "label", "input", "invalid"), ""),
    "error": "error",
    "errors": "error",
    "help": "hint",
}


def make_app(
    data: str = "roundtable-data", database: str | None = None, amqp: str | None = None
) -> Application:
    """The application.

    :param data: the folder for what has to outlive the program; made when missing.
    :param database: the URL of a PostgreSQL database; by default a private one in *data*.
    :param amqp: the URL of a broker, which several processes with the same *database* and *data* share.
    """
    folder = Path(data).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    locale.load_translations(str(HERE / "translations"))
    board = Board(database or f"embedded://{folder}", amqp)
    app = Application(
        [
            (r"/", BoardHandler),
            (r"/messages\.json", JSONHandler),
            (r"/live", LiveHandler),
            (r"/updates", UpdatesHandler),
            (r"/picture/([0-9]{1,18})(/small)?", PictureHandler),
            (r"/sign-up", SignUpHandler),
            (r"/sign-in", SignInHandler),
            (r"/sign-in/github", GitHubHandler),
            (r"/sign-out", SignOutHandler),
            (r"/language", LanguageHandler),
        ],
        board=board,
        database=board.db,
        ui_modules=uimodules,
        form_classes=FORM_CLASSES,
        cookie_secret=cookie_secret(folder / "cookie-secret"),
        xsrf_cookies=True,
        xsrf_cookie_kwargs={"httponly": True, "samesite": "Lax"},
        login_url="/sign-in",
        template_path=str(HERE / "templates"),
        static_path=str(HERE / "static"),
        default_handler_class=NotFoundHandler,
        compress_response=True,
        cancel_on_disconnect=True,
        **github_settings(),
    )
    # Started before the port opens, stopped after the last request.
    app.service = board
    return app


def cookie_secret(file: Path) -> str:
    """The secret that signs cookies, kept so that nobody is signed out by a restart."""
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(32))
    except FileExistsError:
        pass
    return file.read_text()
