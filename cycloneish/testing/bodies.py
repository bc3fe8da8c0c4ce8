"""Request bodies for tests: JSON, forms and file uploads.

:class:`~cycloneish.testing.Client` calls :func:`make_body`.
"""

from __future__ import annotations

import json as json_module
import mimetypes
import os
import secrets
from collections.abc import Iterable, Mapping
from typing import IO, Any, TypeAlias
from urllib.parse import urlencode

from cycloneish.escape import utf8

__all__ = ["Fields", "FileSpec", "Files", "encode_multipart", "make_body"]

#: Names and values; a value may be a list of values.
Fields: TypeAlias = Mapping[str, Any] | Iterable[tuple[str, Any]]
#: Contents; or file name and contents; or those and a content type. Contents may be an open binary file.
FileSpec: TypeAlias = (
    bytes | str | IO[bytes] | tuple[str, bytes | str | IO[bytes]] | tuple[str, bytes | str | IO[bytes], str]
)
#: Files by field name; a list of pairs to send several under one name.
Files: TypeAlias = Mapping[str, FileSpec | list[FileSpec]] | Iterable[tuple[str, FileSpec]]


def make_body(
    body: bytes | str | None, json: Any, form: Fields | None, files: Files | None
) -> tuple[bytes | None, str | None]:
    """The body and its content type, from whichever argument is given.

    :param json: any value that :mod:`json` takes; ``...`` stands for none, as None is a value.
    :raises TypeError: when more than one kind is given; *form* and *files* go together.
    """
    kinds = (body is not None) + (json is not ...) + (form is not None or files is not None)
    if kinds > 1:
        raise TypeError("give one of body, json, and form with files")
    if json is not ...:
        return json_module.dumps(json).encode(), "application/json"
    if files is not None:
        return encode_multipart(form or (), files)
    if form is not None:
        return urlencode(_pairs(form)).encode(), "application/x-www-form-urlencoded"
    return (utf8(body), None) if body is not None else (None, None)


def encode_multipart(form: Fields, files: Files) -> tuple[bytes, str]:
    """A ``multipart/form-data`` body and its content type, the way browsers write it (RFC 7578)."""
    boundary = f"----cycloneish{secrets.token_hex(12)}"
    parts: list[bytes] = []

    def add(header: str, content: bytes) -> None:
        parts.append(f"--{boundary}\r\nContent-Disposition: form-data; {header}\r\n\r\n".encode() + content)

    for name, value in _pairs(form):
        add(f'name="{_quoted(name)}"', value if isinstance(value, bytes) else str(value).encode())
    for name, spec in _file_pairs(files):
        filename, content, content_type = _file(spec)
        add(
            f'name="{_quoted(name)}"; filename="{_quoted(filename)}"\r\nContent-Type: {content_type}', content
        )
    parts.append(f"--{boundary}--\r\n".encode())
    return b"\r\n".join(parts), f"multipart/form-data; boundary={boundary}"


def _pairs(fields: Fields) -> list[tuple[str, Any]]:
    pairs = fields.items() if isinstance(fields, Mapping) else fields
    return [
        (name, one)
        for name, value in pairs
        for one in (value if isinstance(value, list | tuple) else [value])
    ]


def _file_pairs(files: Files) -> list[tuple[str, FileSpec]]:
    if not isinstance(files, Mapping):
        return list(files)
    return [
        (name, spec)
        for name, value in files.items()
        for spec in (value if isinstance(value, list) else [value])
    ]


def _file(spec: FileSpec) -> tuple[str, bytes, str]:
    content_type = None
    if isinstance(spec, tuple):
        filename, source = spec[0], spec[1]
        if len(spec) == 3:
            content_type = spec[2]
    else:
        source = spec
        name = getattr(spec, "name", None)
        filename = os.path.basename(name) if isinstance(name, str) else "file"
    content = utf8(source) if isinstance(source, bytes | str) else source.read()
    return filename, content, content_type or mimetypes.guess_type(filename)[0] or "application/octet-stream"


def _quoted(name: str) -> str:
    # As the HTML standard says; everything else stays as it is.
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")
