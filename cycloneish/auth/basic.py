"""Basic (RFC 7617) and bearer (RFC 6750) authentication, as decorators for the methods of a handler."""

from __future__ import annotations

import binascii
import functools
import hmac
import re
from base64 import b64decode
from collections.abc import Callable
from typing import Any, TypeVar

from cycloneish.coroutines import is_awaitable
from cycloneish.web import HTTPAuthenticationRequired, RequestHandler

__all__ = ["basic_auth", "bearer_auth", "same_secret"]

M = TypeVar("M", bound=Callable[..., Any])
_TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")


def same_secret(given: str | bytes, known: str | bytes) -> bool:
    """Compare two secrets, in a time that tells nothing about them."""
    first, second = (one.encode() if isinstance(one, str) else one for one in (given, known))
    return hmac.compare_digest(first, second)


def _after_check(
    handler: RequestHandler, user: Any, refuse: Callable[[], Exception], method: Callable[[], Any]
) -> Any:
    """Run the method for *user*, now or when it is known who that is."""
    if is_awaitable(user):

        async def later() -> Any:
            return await _value(_after_check(handler, await user, refuse, method))

        return later()
    if not user:  # also "", which `PASSWORDS.get(name, "") and …` gives for somebody unknown
        raise refuse()
    handler.current_user = user
    return method()


async def _value(result: Any) -> Any:
    return await result if is_awaitable(result) else result


def _credentials(handler: RequestHandler, scheme: str) -> str | None:
    """What follows *scheme* in Authorization; None where it is another scheme."""
    name, _, rest = handler.request.headers.get("Authorization", "").partition(" ")
    return rest.strip(" ") if name.lower() == scheme and rest else None


def basic_auth(check: Callable[[str, str], Any], realm: str = "Restricted Access") -> Callable[[M], M]:
    """Let in only who gives a user name and a password that are right.

    ::

        async def check(name, password):
            user = await find_user(name)
            return user if user and same_secret(password, user.password) else None

        class Private(RequestHandler):
            @basic_auth(check, realm="Accounts")
            def get(self): ...

    :param check: called with name and password; gives the user, or what is false.  It may be ``async def``.
    :param realm: what browsers show.

    The user is the handler's ``current_user``.  Everybody else, also who sends what cannot be read, is
    answered with 401 and a challenge.
    """

    def refuse() -> HTTPAuthenticationRequired:
        return HTTPAuthenticationRequired(realm=realm, charset="UTF-8")

    def decorate(method: M) -> M:
        @functools.wraps(method)
        def wrapper(self: RequestHandler, *args: Any, **kwargs: Any) -> Any:
            given = _credentials(self, "basic")
            try:
                name, colon, password = b64decode(given or "", validate=True).decode().partition(":")
            except (binascii.Error, ValueError):
                raise refuse() from None
            if not colon:
                raise refuse()
            return _after_check(self, check(name, password), refuse, lambda: method(self, *args, **kwargs))

        return wrapper  # type: ignore[return-value]

    return decorate


def bearer_auth(
    check: Callable[[str], Any], realm: str = "api", scope: str | None = None
) -> Callable[[M], M]:
    """Let in only who brings a token that is good.

    :param check: called with the token; gives the user, or what is false.  It may be ``async def``.
    :param realm: for the challenge.
    :param scope: for the challenge: what a token has to be for.
    """
    parameters = {"realm": realm} if scope is None else {"realm": realm, "scope": scope}

    def refuse() -> HTTPAuthenticationRequired:
        return HTTPAuthenticationRequired(auth_type="Bearer", **parameters, error="invalid_token")

    def decorate(method: M) -> M:
        @functools.wraps(method)
        def wrapper(self: RequestHandler, *args: Any, **kwargs: Any) -> Any:
            token = _credentials(self, "bearer")
            if token is None:
                # Who brings no token is not told about an error (RFC 6750 section 3.1).
                raise HTTPAuthenticationRequired(auth_type="Bearer", **parameters)
            if not _TOKEN.fullmatch(token):
                raise refuse()
            return _after_check(self, check(token), refuse, lambda: method(self, *args, **kwargs))

        return wrapper  # type: ignore[return-value]

    return decorate
