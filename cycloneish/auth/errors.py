"""``AuthError``: a sign-in that did not work out."""

from __future__ import annotations

from cycloneish.web import HTTPError

__all__ = ["AuthError"]


class AuthError(HTTPError):
    """What came back from the provider, or from the browser, does not prove who that is.

    Where nobody catches it the answer is 403.  The text goes to the log and holds no secret.

    :param message: what was wrong.

    Counterpart: ``tornado.auth.AuthError``.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(403, "%s", message)
        self.message = message

    def __str__(self) -> str:
        return self.message
