"""Signed values: bytes that come back from a client unchanged, or not at all.

Used by the web layer for signed cookies. The two formats are Tornado's, byte for byte, so that both
frameworks read each other's cookies while they share a secret.

Version 1 is ``value|timestamp|signature`` with HMAC-SHA1, read only where a caller asks for it. Version 2 is

    ``2|1:0|10:1300000000|3:key|8:dmFsdWU=|signature``

that is the version, the key version, the time of signing in seconds since the epoch, the name and the value
in base64, each but the first with its length, and the HMAC-SHA256 in hexadecimal of all before it. The name
is signed too, so a value cannot be moved to another name.

Keys are rotated by giving a dictionary from key version to secret instead of one secret, and signing with
the newest.

Nothing here raises for what a client may send: it is ``None`` then. Signatures are compared in constant
time, and neither values nor secrets are logged.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping
from typing import Final

from cycloneish.escape import utf8
from cycloneish.log import gen_log

__all__ = [
    "DEFAULT_SIGNED_VALUE_MIN_VERSION",
    "DEFAULT_SIGNED_VALUE_VERSION",
    "MAX_SUPPORTED_SIGNED_VALUE_VERSION",
    "MIN_SUPPORTED_SIGNED_VALUE_VERSION",
    "Secret",
    "create_signed_value",
    "decode_signed_value",
    "get_signature_key_version",
]

#: One secret, or several by key version.
Secret = str | bytes | Mapping[int, str | bytes]

MIN_SUPPORTED_SIGNED_VALUE_VERSION: Final = 1
MAX_SUPPORTED_SIGNED_VALUE_VERSION: Final = 2
#: Version that is written when the caller names none.
DEFAULT_SIGNED_VALUE_VERSION: Final = 2
#: Oldest version that is read when the caller names none.
DEFAULT_SIGNED_VALUE_MIN_VERSION: Final = 1

_DAY: Final = 86400
#: How far in the future a version 1 timestamp may lie. Its signature has no separators, so digits of the
#: value could be moved to the timestamp.
_MAX_FUTURE: Final = 31 * _DAY
_NUMBER: Final = re.compile(rb"[0-9]{1,20}")
# Version 1 begins with base64, which may look like a number; three digits and fewer it cannot be.
_VERSION: Final = re.compile(rb"([1-9][0-9]{0,2})\|")


def create_signed_value(
    secret: Secret,
    name: str,
    value: str | bytes,
    version: int | None = None,
    clock: Callable[[], float] | None = None,
    key_version: int | None = None,
) -> bytes:
    """Sign *value* under *name*.

    :param version: format, 1 or 2; 2 by default.
    :param clock: gives the time in seconds since the epoch; ``time.time`` by default.
    :param key_version: which secret to sign with when *secret* is a mapping.
    :raises ValueError: unknown version, version 1 with a mapping, or no *key_version* for a mapping.
    :raises KeyError: *key_version* is not in the mapping.
    """
    if version is None:
        version = DEFAULT_SIGNED_VALUE_VERSION
    timestamp = b"%d" % int((clock or time.time)())
    encoded = base64.b64encode(utf8(value))
    if version == 1:
        if not isinstance(secret, str | bytes):
            raise ValueError("several keys need signed values of version 2")
        return b"|".join([encoded, timestamp, _create_signature_v1(secret, name, encoded, timestamp)])
    if version != 2:
        raise ValueError(f"Unsupported version {version}")
    fields = (b"%d" % (key_version or 0), timestamp, utf8(name), encoded)
    to_sign = b"2|" + b"".join([b"%d:%s|" % (len(field), field) for field in fields])
    if not isinstance(secret, str | bytes):
        if key_version is None:
            raise ValueError("Key version must be set when there are several keys")
        secret = secret[key_version]
    return to_sign + _create_signature_v2(secret, to_sign)


def decode_signed_value(
    secret: Secret,
    name: str,
    value: str | bytes | None,
    max_age_days: float = 31,
    clock: Callable[[], float] | None = None,
    min_version: int | None = None,
) -> bytes | None:
    """Return what was signed under *name*, or ``None`` when *value* is malformed, forged or too old.

    :param max_age_days: oldest signature that counts, in days.
    :param clock: gives the time in seconds since the epoch; ``time.time`` by default.
    :param min_version: oldest format that is read.
    :raises ValueError: *min_version* is one that does not exist yet.
    """
    if min_version is None:
        min_version = DEFAULT_SIGNED_VALUE_MIN_VERSION
    if min_version > MAX_SUPPORTED_SIGNED_VALUE_VERSION:
        raise ValueError(f"Unsupported min_version {min_version}")
    if not value:
        return None
    try:
        signed = utf8(value)
    except UnicodeEncodeError:
        return None
    version = _get_version(signed)
    if version < min_version:
        return None
    now = (clock or time.time)()
    if version == 1:
        return _decode_v1(secret, name, signed, max_age_days, now)
    if version == 2:
        return _decode_v2(secret, name, signed, max_age_days, now)
    return None


def get_signature_key_version(value: str | bytes) -> int | None:
    """Return the key version that *value* claims, unverified; ``None`` when it has none or is malformed."""
    try:
        signed = utf8(value)
    except UnicodeEncodeError:
        return None
    if _get_version(signed) != 2:
        return None
    fields = _split_v2(signed)
    return None if fields is None else fields[0]


def _get_version(value: bytes) -> int:
    match = _VERSION.match(value)
    return 1 if match is None else int(match[1])


def _decode_v1(secret: Secret, name: str, value: bytes, max_age_days: float, now: float) -> bytes | None:
    # There were no key versions in these days, so several keys cannot be meant.
    if not isinstance(secret, str | bytes):
        return None
    parts = value.split(b"|")
    if len(parts) != 3:
        return None
    encoded, timestamp, signature = parts
    if not hmac.compare_digest(signature, _create_signature_v1(secret, name, encoded, timestamp)):
        gen_log.warning("Invalid cookie signature (cookie %r)", name)
        return None
    if not _NUMBER.fullmatch(timestamp):
        return None
    signed_at = int(timestamp)
    if signed_at < now - max_age_days * _DAY:
        gen_log.warning("Expired cookie %r", name)
        return None
    if signed_at > now + _MAX_FUTURE:
        gen_log.warning("Cookie timestamp in future; possible tampering (cookie %r)", name)
        return None
    if timestamp.startswith(b"0"):
        gen_log.warning("Tampered cookie %r", name)
        return None
    return _from_base64(encoded)


def _decode_v2(secret: Secret, name: str, value: bytes, max_age_days: float, now: float) -> bytes | None:
    fields = _split_v2(value)
    if fields is None:
        return None
    key_version, timestamp, signed_name, encoded, signature = fields
    if not isinstance(secret, str | bytes):
        key = secret.get(key_version)
        if key is None:
            return None
        secret = key
    if not signature:
        return None
    expected = _create_signature_v2(secret, value[: -len(signature)])
    if not hmac.compare_digest(signature, expected) or signed_name != utf8(name):
        return None
    if not _NUMBER.fullmatch(timestamp) or int(timestamp) < now - max_age_days * _DAY:
        return None
    return _from_base64(encoded)


def _split_v2(value: bytes) -> tuple[int, bytes, bytes, bytes, bytes] | None:
    fields = []
    position = 2
    for _ in range(4):
        colon = value.find(b":", position, position + 21)
        digits = value[position:colon]
        if colon < 0 or not digits.isdigit():
            return None
        end = colon + 1 + int(digits)
        if value[end : end + 1] != b"|":
            return None
        fields.append(value[colon + 1 : end])
        position = end + 1
    key_version, timestamp, name, encoded = fields
    if not _NUMBER.fullmatch(key_version):
        return None
    return int(key_version), timestamp, name, encoded, value[position:]


def _from_base64(encoded: bytes) -> bytes | None:
    try:
        return base64.b64decode(encoded)
    except (binascii.Error, ValueError):
        return None


def _create_signature_v1(secret: str | bytes, *parts: str | bytes) -> bytes:
    # SHA-1 is what version 1 is made with; as an HMAC it has no known weakness.
    digest = hmac.new(utf8(secret), digestmod=hashlib.sha1)
    for part in parts:
        digest.update(utf8(part))
    return digest.hexdigest().encode("ascii")


def _create_signature_v2(secret: str | bytes, s: bytes) -> bytes:
    return hmac.new(utf8(secret), s, hashlib.sha256).hexdigest().encode("ascii")
