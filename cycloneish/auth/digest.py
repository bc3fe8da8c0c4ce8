"""Digest authentication for handlers (RFC 7616)."""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

from cycloneish.auth.basic import _after_check, _credentials, same_secret
from cycloneish.coroutines import is_awaitable
from cycloneish.web import HTTPAuthenticationRequired, RequestHandler

__all__ = ["DigestAuth"]

M = TypeVar("M", bound=Callable[..., Any])
_PARAMETER = re.compile(r'[ \t]*([A-Za-z]+\*?)[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))[ \t]*(?:,|$)')
_NEEDED = frozenset({"username", "realm", "nonce", "uri", "response", "qop", "nc", "cnonce"})
_HASHES: dict[str, Callable[[bytes], Any]] = {
    "SHA-256": hashlib.sha256,
    "MD5": hashlib.md5,
    "SHA-512-256": functools.partial(hashlib.new, "sha512_256"),
}  #: Counters by which one nonce may be ahead of what has been seen of it.
_WINDOW = 1024


class _DigestRequired(HTTPAuthenticationRequired):
    """401 with a Digest challenge, whose algorithm and stale stand without quotes."""

    def __init__(self, challenge: str) -> None:
        super().__init__(auth_type="Digest")
        self._challenge = challenge

    @property
    def challenge(self) -> str:
        return self._challenge


class DigestAuth:
    """Lets in only who proves to know the password, without sending it.

    ::

        digest = DigestAuth("Accounts", lambda name: PASSWORDS.get(name))

        class Private(RequestHandler):
            @digest
            def get(self): ...

    :param realm: what browsers show.
    :param password_of: called with the user's name; gives the password, or None.  It may be ``async def``.
    :param algorithm: ``SHA-256``, ``SHA-512-256`` or ``MD5``.
    :param nonce_age: seconds that a nonce is good for.
    :param max_nonces: nonces whose counters are remembered; when there are more, the oldest has to be
        renewed.

    Each nonce is signed, expires, and takes each counter once, so that what was overheard cannot be sent
    again. The counters are in the memory of this process: behind a load balancer, each process asks anew.
    The user's name is the handler's ``current_user``.
    """

    def __init__(
        self,
        realm: str,
        password_of: Callable[[str], Any],
        algorithm: str = "SHA-256",
        nonce_age: float = 300,
        max_nonces: int = 10_000,
    ) -> None:
        if algorithm not in _HASHES:
            raise ValueError(f"unknown algorithm {algorithm!r}: there are {', '.join(_HASHES)}")
        if '"' in realm or "\\" in realm:
            raise ValueError("a realm is without quotes and backslashes")
        self._realm = realm
        self._password_of = password_of
        self._algorithm = algorithm
        self._age = nonce_age
        self._max = max_nonces
        self._key = secrets.token_bytes(32)
        #: For each nonce the highest counter seen, and a bit for each of those below it.
        self._seen: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._now = time.time

    def __call__(self, method: M) -> M:
        """Decorate a method of a handler."""

        @functools.wraps(method)
        def wrapper(handler: RequestHandler, *args: Any, **kwargs: Any) -> Any:
            given = self._parse(handler)
            if given is None:
                raise self._refusal()
            if not self._is_ours(given["nonce"]):
                raise self._refusal(stale=True)
            password = self._password_of(given["username"])
            user: Any = self._checked_later(handler, given, password) if is_awaitable(password) else None
            if user is None:
                user = self._check(handler, given, password)
            return _after_check(handler, user, self._refusal, lambda: method(handler, *args, **kwargs))

        return wrapper  # type: ignore[return-value]

    async def _checked_later(
        self, handler: RequestHandler, given: dict[str, str], password: Any
    ) -> str | None:
        return self._check(handler, given, await password)

    # -- nonces ------------------------------------------------------------------------------------

    def _sign(self, text: str) -> str:
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()[:32]

    def _new_nonce(self) -> str:
        text = f"{int(self._now()):x}-{secrets.token_hex(8)}"
        return f"{text}-{self._sign(text)}"

    def _is_ours(self, nonce: str) -> bool:
        text, _, sign = nonce.rpartition("-")
        if not nonce.isascii() or not same_secret(sign, self._sign(text)):
            return False
        return self._now() - int(text.partition("-")[0], 16) <= self._age

    def _take_counter(self, nonce: str, counter: int) -> bool:
        """Whether *counter* is new for *nonce*; it is used up then."""
        highest, bits = self._seen.pop(nonce, (0, 0))
        fresh = counter > 0
        if counter > highest:
            fresh = fresh and counter - highest <= _WINDOW
            if fresh:
                bits = ((bits << (counter - highest)) | 1) & ((1 << _WINDOW) - 1)
                highest = counter
        else:
            bit = 1 << (highest - counter)
            fresh = fresh and highest - counter < _WINDOW and not bits & bit
            if fresh:
                bits |= bit
        self._seen[nonce] = highest, bits
        while len(self._seen) > self._max:
            # A nonce whose counters are forgotten must not be taken again.
            self._seen.popitem(last=False)
            self._key = secrets.token_bytes(32)
            self._seen.clear()
        return fresh

    # -- what the client sent ----------------------------------------------------------------------

    def _parse(self, handler: RequestHandler) -> dict[str, str] | None:
        """The parameters of Authorization; None where they are not complete or not well-formed."""
        text = _credentials(handler, "digest")
        if text is None or len(text) > 4096:
            return None
        given: dict[str, str] = {}
        position = 0
        while position < len(text):
            match = _PARAMETER.match(text, position)
            if match is None or match[1].lower() in given:
                return None
            value = match[3] if match[2] is None else re.sub(r"\\(.)", r"\1", match[2])
            given[match[1].lower()] = value
            position = match.end()
        if not given.keys() >= _NEEDED or not re.fullmatch(r"[0-9a-fA-F]{8}", given["nc"]):
            return None
        try:
            # What browsers send in UTF-8 arrives as latin-1.
            given["username"] = given["username"].encode("latin-1").decode()
        except UnicodeError:
            return None
        return given

    def _check(self, handler: RequestHandler, given: dict[str, str], password: Any) -> str | None:
        if (
            given["realm"] != self._realm
            or given["qop"] != "auth"
            or given.get("algorithm", "MD5").upper() != self._algorithm
            or given["uri"] != handler.request.uri
        ):
            return None

        def hashed(*parts: str) -> str:
            return str(_HASHES[self._algorithm](":".join(parts).encode()).hexdigest())

        # Somebody unknown takes as long as somebody with another password.
        known = password if isinstance(password, str) else secrets.token_hex(8)
        secret = hashed(given["username"], self._realm, known)
        what = hashed(handler.request.method or "", given["uri"])
        right = hashed(secret, given["nonce"], given["nc"], given["cnonce"], "auth", what)
        if not same_secret(given["response"], right) or not isinstance(password, str):
            return None
        if not self._take_counter(given["nonce"], int(given["nc"], 16)):
            raise self._refusal(stale=True)
        return given["username"]

    def _refusal(self, stale: bool = False) -> _DigestRequired:
        challenge = (
            f'Digest realm="{self._realm}", qop="auth", algorithm={self._algorithm}, '
            f'nonce="{self._new_nonce()}", charset=UTF-8' + (", stale=true" if stale else "")
        )
        return _DigestRequired(challenge)
