"""Form bodies in memory: urlencoded and ``multipart/form-data`` (RFC 7578), with their limits.

:class:`~cycloneish.httputil.HTTPServerRequest` calls :func:`parse_body_arguments` when somebody first asks
    for an argument. Large multipart bodies do not come here but go through :mod:`cycloneish.http.multipart`
    while they arrive; both share the syntax below, so that a form means the same whatever its size.
"""

from __future__ import annotations

import dataclasses
import re
from io import BytesIO
from typing import Any, BinaryIO, Final

from cycloneish.escape import parse_qs_bytes
from cycloneish.httputil.errors import HTTPInputError
from cycloneish.httputil.headers import HTTPHeaders, _parse_header
from cycloneish.httputil.pieces import Pieces
from cycloneish.util import ObjectDict

__all__ = [
    "HTTPFile",
    "ParseBodyConfig",
    "ParseMultipartConfig",
    "ParseUrlEncodedConfig",
    "parse_body_arguments",
    "parse_multipart_form_data",
    "set_parse_body_config",
]

#: Longest boundary that is taken. RFC 2046 allows 70; some clients have longer ones.
MAX_BOUNDARY_LENGTH: Final = 256

_MALFORMED: Final = "Invalid multipart/form-data: "
_BOUNDARY: Final = re.compile(r"[\x20-\x7e]*[\x21-\x7e]")
_PART_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9_-]+")
_DRIVE: Final = re.compile(r"[A-Za-z]:")


class HTTPFile(ObjectDict):
    """An uploaded file. Its attributes are dictionary items as well, as in Tornado.

    * ``filename``: as the browser called it, without any directory; never use it as a path all the same.
    * ``body``: the content. Of a file that was streamed to disk it is read anew on every access.
    * ``content_type``: what the browser claims the content to be.
    * ``file``: the content as a binary file object. It stands at the beginning when it is first asked for.
    """

    filename: str
    body: bytes
    content_type: str

    @classmethod
    def _from_file(cls, filename: str, content_type: str, file: BinaryIO) -> HTTPFile:
        """Make one whose content stays in *file*."""
        made = cls(filename=filename, content_type=content_type)
        # Not an item: the file object is no part of the file's value.
        object.__setattr__(made, "_file", file)
        return made

    @property
    def file(self) -> BinaryIO:
        """The content as a seekable binary file object, one and the same on each access."""
        file: BinaryIO | None = self.__dict__.get("_file")
        if file is None:
            file = BytesIO(self["body"])
            object.__setattr__(self, "_file", file)
        return file

    def __missing__(self, key: str) -> Any:
        file = self.__dict__.get("_file")
        if key != "body" or file is None:
            raise KeyError(key)
        position = file.tell()
        try:
            file.seek(0)
            return file.read()
        finally:
            file.seek(position)


@dataclasses.dataclass
class ParseMultipartConfig:
    """Limits of ``multipart/form-data`` bodies."""

    #: ``False`` refuses all such bodies.
    enabled: bool = True
    #: Most parts (fields and files) of one body.
    max_parts: int = 100
    #: Most bytes in the headers of one part.
    max_part_header_size: int = 10 * 1024


@dataclasses.dataclass
class ParseUrlEncodedConfig:
    """Limits of ``application/x-www-form-urlencoded`` bodies, and of query strings."""

    #: Most arguments of one body or query string; 400.
    max_arguments: int = 1000
    #: Most bytes of one body, since decoding it takes its time; 413. What no one asks for an argument of is
    #: not decoded, whatever its size.
    max_body_size: int = 4_194_304


@dataclasses.dataclass
class ParseBodyConfig:
    """Limits of form bodies, one set for each kind."""

    multipart: ParseMultipartConfig = dataclasses.field(default_factory=ParseMultipartConfig)
    urlencoded: ParseUrlEncodedConfig = dataclasses.field(default_factory=ParseUrlEncodedConfig)


_DEFAULT_PARSE_BODY_CONFIG = ParseBodyConfig()


def set_parse_body_config(config: ParseBodyConfig) -> None:
    """Make *config* the limits of all form bodies and query strings in this process."""
    global _DEFAULT_PARSE_BODY_CONFIG
    _DEFAULT_PARSE_BODY_CONFIG = config


def get_parse_body_config() -> ParseBodyConfig:
    """Return the limits now in force."""
    return _DEFAULT_PARSE_BODY_CONFIG


def parse_body_arguments(
    content_type: str,
    body: bytes | Pieces,
    arguments: dict[str, list[bytes]],
    files: dict[str, list[HTTPFile]],
    headers: HTTPHeaders | None = None,
    *,
    config: ParseBodyConfig | None = None,
    _strict: bool = False,
) -> None:
    """Parse a form body into *arguments* and *files*, which are added to; other content types add nothing.

    :param content_type: the whole header value; a multipart body finds its boundary there.
    :param headers: the request's headers, for their ``Content-Encoding``: an encoded body is refused.
    :param config: the limits, by default those of :func:`set_parse_body_config`.
    :raises HTTPInputError: the body is malformed or over a limit.
    """
    media_type = content_type.partition(";")[0].strip(" \t").lower()
    if media_type == "application/x-www-form-urlencoded":
        _refuse_encoded(headers)
        limits = config or _DEFAULT_PARSE_BODY_CONFIG
        if len(body) > limits.urlencoded.max_body_size:
            raise HTTPInputError("x-www-form-urlencoded body too large", status=413)
        if isinstance(body, Pieces):
            body = body.join()
        if body.count(b"&") >= limits.urlencoded.max_arguments:
            raise HTTPInputError("Invalid x-www-form-urlencoded body: Max number of fields exceeded")
        fields = parse_qs_bytes(body, keep_blank_values=True)
        if not arguments:
            arguments.update(fields)
            return
        for name, values in fields.items():
            arguments.setdefault(name, []).extend(values)
    elif media_type.startswith("multipart/form-data"):
        _refuse_encoded(headers)
        limits = config or _DEFAULT_PARSE_BODY_CONFIG
        try:
            boundary = multipart_boundary(content_type)
            parse_multipart_form_data(
                boundary, body, arguments, files, config=limits.multipart, _strict=_strict
            )
        except HTTPInputError as error:
            text = str(error).removeprefix(_MALFORMED)
            raise HTTPInputError(_MALFORMED + text, status=error.status) from error


def _refuse_encoded(headers: HTTPHeaders | None) -> None:
    if headers and (encoding := headers.get("Content-Encoding")) is not None:
        raise HTTPInputError(f"Unsupported Content-Encoding: {encoding}")


def multipart_boundary(content_type: str) -> bytes:
    """Return the boundary that a ``multipart/form-data`` content type names.

    :raises HTTPInputError: it is another type, or the boundary is missing, too long or not printable ASCII.
    """
    media_type, parameters = _parse_header(content_type)
    if media_type.lower() != "multipart/form-data":
        raise HTTPInputError("Invalid content type")
    boundary = parameters.get("boundary")
    if not boundary:
        raise HTTPInputError("multipart boundary not found")
    if len(boundary) > MAX_BOUNDARY_LENGTH:
        raise HTTPInputError("multipart boundary too long")
    if not _BOUNDARY.fullmatch(boundary):
        raise HTTPInputError("Invalid multipart boundary")
    return boundary.encode("ascii")


def part_disposition(headers: HTTPHeaders, *, strict: bool) -> tuple[str, str | None, str]:
    """Return field name, file name (``None`` for a plain field) and content type of one part.

    :param strict: leave ``filename*`` alone, which RFC 7578 section 4.2 forbids, and cut the file name down
        to its last component.
    :raises HTTPInputError: it is no form-data part, or has no name.
    """
    value = headers.get("Content-Disposition", "")
    if strict and "*" in value:
        disposition, parameters = _parse_header(value, extended=False)
    else:
        disposition, parameters = _parse_header(value)
    if disposition.lower() != "form-data":
        raise HTTPInputError("multipart/form-data part is not form-data")
    name = parameters.get("name")
    if not name:
        raise HTTPInputError("multipart/form-data missing name")
    # A browser sends an empty file name when no file was chosen; that is a field, as in Tornado.
    filename = parameters.get("filename") or None
    if filename is not None and strict:
        filename = base_name(filename)
    return name, filename, headers.get("Content-Type", "application/unknown")


def base_name(filename: str) -> str:
    """Return the last component of a file name from a client, whatever system it comes from.

    >>> base_name("../../etc/passwd"), base_name("C:\\\\docs\\\\a.txt"), base_name("..")
    ('passwd', 'a.txt', 'unnamed')
    """
    name = filename.replace("\\", "/").rpartition("/")[2]
    name = _DRIVE.sub("", name, count=1) if _DRIVE.match(name) else name
    name = "".join([c for c in name if c.isprintable()]).strip()
    return "unnamed" if name in ("", ".", "..") else name


def parse_multipart_form_data(
    boundary: bytes,
    data: bytes | Pieces,
    arguments: dict[str, list[bytes]],
    files: dict[str, list[HTTPFile]],
    *,
    config: ParseMultipartConfig | None = None,
    _strict: bool = False,
) -> None:
    """Parse a ``multipart/form-data`` body into *arguments* and *files*, which are added to.

    :param boundary: without its leading dashes; quotes around it are taken off.
    :param config: the limits, by default those of :func:`set_parse_body_config`.
    :raises HTTPInputError: the body is malformed or over a limit. Then what came before the error may have
        been added already.
    """
    if config is None:
        config = _DEFAULT_PARSE_BODY_CONFIG.multipart
    if not config.enabled:
        raise HTTPInputError("multipart/form-data parsing is disabled")
    if len(boundary) >= 2 and boundary[:1] == boundary[-1:] == b'"':
        boundary = boundary[1:-1]
    if not boundary:
        raise HTTPInputError("multipart boundary not found")
    if not isinstance(data, Pieces):
        data = Pieces([data])
    delimiter = b"\r\n--" + boundary
    if data.startswith(delimiter[2:]):
        position = len(delimiter) - 2
    elif data.startswith(delimiter):
        position = len(delimiter)
    else:
        raise HTTPInputError(_MALFORMED + "no boundary at its start")
    parts = 0
    while (tail := data[position : position + 2]) != b"--":
        if tail != b"\r\n":
            raise HTTPInputError(_MALFORMED + "unexpected bytes after a boundary")
        parts += 1
        if parts > config.max_parts:
            raise HTTPInputError("multipart/form-data has too many parts")
        position += 2
        headers_end = _headers_end(data, position, config.max_part_header_size)
        block = data[position:headers_end]
        if delimiter in block:
            raise HTTPInputError("multipart/form-data missing headers")
        headers = _part_headers(block)
        name, filename, content_type = part_disposition(headers, strict=_strict)
        start = headers_end + 4
        # An empty body may share its line end with the one that closes the headers.
        end = data.find(delimiter, start - 2)
        if end < 0:
            raise HTTPInputError(_MALFORMED + "no final boundary found")
        value = data[start:end]
        position = end + len(delimiter)
        if filename is None:
            arguments.setdefault(name, []).append(value)
        else:
            files.setdefault(name, []).append(
                HTTPFile(filename=filename, body=value, content_type=content_type)
            )
    epilogue = data[position + 2 : position + 7]
    # Some clients end with an empty line too many. All else behind the end is somebody's trick.
    if len(epilogue) > 4 or epilogue.strip(b"\r\n"):
        raise HTTPInputError(_MALFORMED + "data after the final boundary")


def _headers_end(data: Pieces, start: int, limit: int) -> int:
    if data.startswith(b"\r\n", start):
        raise HTTPInputError("multipart/form-data missing headers")
    end = data.find(b"\r\n\r\n", start, start + limit + 4)
    if end < 0:
        if len(data) - start > limit:
            raise HTTPInputError("multipart/form-data part header too large")
        raise HTTPInputError("multipart/form-data missing headers")
    return end


def _part_headers(block: bytes) -> HTTPHeaders:
    try:
        # Names of fields and files are UTF-8 here (RFC 7578 section 5.1.2), unlike in the head of a request.
        text = block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise HTTPInputError("multipart/form-data part header is not UTF-8") from error
    headers = HTTPHeaders()
    for line in text.split("\r\n"):
        name, colon, value = line.partition(":")
        if not colon or not _PART_HEADER_NAME.fullmatch(name):
            raise HTTPInputError("malformed multipart/form-data part header")
        headers.add(name, value.strip(" \t"), _chars_are_bytes=False)
    return headers
