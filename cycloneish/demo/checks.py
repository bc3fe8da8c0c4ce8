"""Passwords, pictures and links: what comes from outside and must not be believed as it is."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import unicodedata
from urllib.parse import urlsplit

from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThread

SALT = 16
# Hashing takes 16 MB and 50 ms on purpose; more than four at a time would only fill the memory.
hashing = DeferredSemaphore(4)
# What an unknown member's password is compared with, so that the answer takes as long.
NOBODY = os.urandom(SALT + 32)

PICTURES = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/webp": re.compile(rb"RIFF.{4}WEBP", re.DOTALL),
}


def _scrypt(password: str, salt: bytes) -> bytes:
    normal = unicodedata.normalize("NFKC", password).encode()
    return hashlib.scrypt(normal, salt=salt, n=2**14, r=8, p=1, dklen=32)


def hash_password(password: str) -> Deferred[bytes]:
    """Salt and hash, made in a thread."""
    salt = os.urandom(SALT)
    return hashing.run(deferToThread, lambda: salt + _scrypt(password, salt))


def password_matches(password: str, stored: bytes) -> Deferred[bool]:
    """Whether *stored* was made from *password*; takes the same time either way."""
    salt, expected = stored[:SALT], stored[SALT:]
    return hashing.run(deferToThread, lambda: hmac.compare_digest(_scrypt(password, salt), expected))


def picture_type(data: bytes) -> str | None:
    """The type of a picture by its first bytes: a name or a header can say anything."""
    return next((kind for kind, magic in PICTURES.items() if magic.match(data)), None)


def own_page(url: str) -> str:
    """*url* if it is a path on this site, else the front page: ``next`` comes from the address bar."""
    if re.match(r"/(?![/\\])[\x21-\x7e]*\Z", url) and "\\" not in url and not urlsplit(url).netloc:
        return url
    return "/"
