"""Digest authentication of a client (RFC 7616): from a challenge to the value of Authorization.

Called by the fetch where ``auth_mode="digest"``.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

__all__ = ["Challenge", "best_challenge", "digest_credentials"]

_ALGORITHMS: Final[dict[str, Callable[[bytes], hashlib._Hash]]] = {
    # In the order of preference.
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data),
    "SHA-256": hashlib.sha256,
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False),
}
#: A scheme, or a parameter with its value, quoted or plain. Matched at one place after the other and never
#: searched for: a server chooses the text, and a search begins anew at each letter.
_ITEM: Final = re.compile(
    r"([A-Za-z0-9!#$%&'*+.^_`|~-]+)" r'(?:[ \t]*(=)[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?'
)
_BETWEEN: Final = re.compile(r"[ \t,]*")
_ESCAPED: Final = re.compile(r"\\(.)")


class Challenge(NamedTuple):
    """What a server asks for in WWW-Authenticate."""

    realm: str
    nonce: str
    algorithm: str
    session: bool
    opaque: str | None
    auth: bool
    userhash: bool
    stale: bool


def _challenges(values: Iterable[str]) -> Iterable[dict[str, str]]:
    """The parameters of each Digest challenge in the header fields."""
    for value in values:
        found: list[tuple[str, dict[str, str]]] = []
        position = 0
        while (position := _BETWEEN.match(value, position).end()) < len(value):  # type: ignore[union-attr]
            item = _ITEM.match(value, position)
            if item is None:
                position += 1
                continue
            position = item.end()
            name, equals, quoted, plain = item.groups()
            if equals is None:
                found.append((name.lower(), {}))
            elif found:
                found[-1][1].setdefault(name.lower(), _ESCAPED.sub(r"\1", quoted) if quoted else plain or "")
        yield from (parameters for scheme, parameters in found if scheme == "digest")


def best_challenge(values: Iterable[str]) -> Challenge | None:
    """The strongest Digest challenge that can be answered, of the WWW-Authenticate fields."""
    best: tuple[int, Challenge] | None = None
    names = list(_ALGORITHMS)
    for given in _challenges(values):
        algorithm = given.get("algorithm", "MD5").upper()
        session = algorithm.endswith("-SESS")
        algorithm = algorithm.removesuffix("-SESS")
        qop = [one.strip().lower() for one in given.get("qop", "").split(",") if one.strip()]
        if algorithm not in _ALGORITHMS or "nonce" not in given or (qop and "auth" not in qop):
            continue
        challenge = Challenge(
            given.get("realm", ""),
            given["nonce"],
            algorithm,
            session,
            given.get("opaque"),
            bool(qop),
            given.get("userhash", "").lower() == "true",
            given.get("stale", "").lower() == "true",
        )
        rank = names.index(algorithm)
        if best is None or rank < best[0]:
            best = rank, challenge
    return None if best is None else best[1]


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def digest_credentials(
    challenge: Challenge,
    username: str,
    password: str,
    method: str,
    path: str,
    cnonce: str | None = None,
    count: int = 1,
) -> str:
    """The value of Authorization that answers *challenge*.

    :param path: the target of the request as it stands in the request line.
    :param cnonce: random by default.
    :param count: how often the nonce was used, this time included.
    """
    function = _ALGORITHMS[challenge.algorithm]

    def hashed(*parts: str) -> str:
        return function(":".join(parts).encode()).hexdigest()

    cnonce = cnonce or secrets.token_hex(16)
    nc = f"{count:08x}"
    secret = hashed(username, challenge.realm, password)
    if challenge.session:
        secret = hashed(secret, challenge.nonce, cnonce)
    what = hashed(method, path)
    if challenge.auth:
        response = hashed(secret, challenge.nonce, nc, cnonce, "auth", what)
    else:
        response = hashed(secret, challenge.nonce, what)
    name = hashed(username, challenge.realm) if challenge.userhash else username
    fields = [
        f"username={_quoted(name)}",
        f"realm={_quoted(challenge.realm)}",
        f"nonce={_quoted(challenge.nonce)}",
        f"uri={_quoted(path)}",
        f"algorithm={challenge.algorithm}{'-sess' if challenge.session else ''}",
        f'response="{response}"',
    ]
    if challenge.auth:
        fields += ["qop=auth", f"nc={nc}", f'cnonce="{cnonce}"']
    elif challenge.session:
        fields.append(f'cnonce="{cnonce}"')
    if challenge.opaque is not None:
        fields.append(f"opaque={_quoted(challenge.opaque)}")
    if challenge.userhash:
        fields.append("userhash=true")
    return "Digest " + ", ".join(fields)
