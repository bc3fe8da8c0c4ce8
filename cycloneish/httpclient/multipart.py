"""Bodies of forms: urlencoded, and multipart with files (RFC 7578).

Used by ``HTTPRequest``, and by the mixins of ``auth`` that upload.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlencode

from cycloneish.escape import utf8
from cycloneish.httputil.grammar import CONTROL

__all__ = ["FileParts", "encode_form", "encode_multipart"]

#: Files by field: ``(name, content)`` or ``(name, content, content type)``, or a list of these.
FileParts = Mapping[str, Any]


def _pairs(fields: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> Iterable[tuple[str, Any]]:
    for name, value in fields.items() if isinstance(fields, Mapping) else fields:
        for one in value if isinstance(value, list | tuple) else (value,):
            yield name, one


def encode_form(fields: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> bytes:
    """Encode fields as ``application/x-www-form-urlencoded``; a list gives its field several times."""
    return urlencode(list(_pairs(fields))).encode("ascii")


def _quoted(value: str) -> bytes:
    """A field or file name in its quotes, as HTML has browsers write it.

    :raises ValueError: it has a control character, with which it could break out of its header.
    """
    if CONTROL.search(value):
        raise ValueError(f"control character in a name of a multipart body: {value[:100]!r}")
    return b'"' + value.replace('"', "%22").encode() + b'"'


def encode_multipart(
    fields: Mapping[str, Any] | Iterable[tuple[str, Any]], files: FileParts, boundary: str | None = None
) -> tuple[bytes, str]:
    """Encode fields and files as ``multipart/form-data``.

    :param fields: values are text, bytes or numbers; a list gives its field several times.
    :param files: by field: ``(name, content)``, ``(name, content, content type)``, or a list of these.
    :param boundary: a random one by default.
    :returns: the body and its Content-Type.
    :raises ValueError: control characters in a name or content type.
    """
    boundary = boundary or secrets.token_hex(16)
    parts: list[bytes] = []
    start = b"--" + boundary.encode("ascii") + b"\r\nContent-Disposition: form-data; name="
    for name, value in _pairs(fields):
        content = value if isinstance(value, bytes) else str(value).encode()
        parts += [start, _quoted(name), b"\r\n\r\n", content, b"\r\n"]
    for name, value in files.items():
        for filename, content, *rest in value if isinstance(value, list) else [value]:
            content_type = rest[0] if rest else "application/octet-stream"
            if CONTROL.search(content_type):
                raise ValueError(f"control character in a content type: {content_type[:100]!r}")
            parts += [start, _quoted(name), b"; filename=", _quoted(filename), b"\r\nContent-Type: "]
            parts += [content_type.encode("latin-1"), b"\r\n\r\n", utf8(content), b"\r\n"]
    parts.append(b"--" + boundary.encode("ascii") + b"--\r\n")
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"
