"""Bodies: what a program hands over to bytes and a content type, and the way back.

msgpack is used where it is asked for and installed (``pip install msgpack``).
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import Any

__all__ = ["BYTES", "JSON", "MSGPACK", "TEXT", "decode_body", "encode_body"]

BYTES = "application/octet-stream"
JSON = "application/json"
MSGPACK = "application/msgpack"
TEXT = "text/plain"


def encode_body(body: Any, content_type: str | None) -> tuple[bytes, str]:
    """(bytes, content type) of *body*.

    :raises TypeError: when it cannot be written as *content_type*.
    """
    if isinstance(body, bytes):
        return body, content_type or BYTES
    if isinstance(body, bytearray | memoryview):
        return bytes(body), content_type or BYTES
    if content_type == MSGPACK:
        return _msgpack().packb(body, use_bin_type=True), content_type
    if isinstance(body, str) and content_type != JSON:
        return body.encode(), content_type or TEXT
    if content_type not in (None, JSON):
        raise TypeError(
            f"a body of {type(body).__name__} cannot be sent as {content_type!r}: encode it to bytes first"
        )
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode(), JSON


def decode_body(body: bytes, content_type: str | None) -> Any:
    """The value of *body*; bytes where the content type is none that is known here."""
    if content_type == JSON:
        return json.loads(body)
    if content_type == MSGPACK:
        return _msgpack().unpackb(body, raw=False)
    if content_type == TEXT:
        return body.decode()
    return body


def _msgpack() -> Any:
    try:
        return import_module("msgpack")
    except ImportError:
        raise ImportError("application/msgpack bodies need msgpack: pip install msgpack") from None
