"""The body of a request on its way to a handler: kept in memory, or taken apart while it arrives.

`cycloneish.web.dispatch` asks `body_for` once the head is there. A form with files (multipart/form-data) that
is large, or does not say how large it is, goes through `FormBody`, which spools files to disk; every other
body is kept as it comes, and parsed when the handler asks for an argument. Handlers with
`stream_request_body` take their bodies themselves.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from twisted.internet.defer import Deferred

from cycloneish.http.multipart import FormDataStream, FormLimits
from cycloneish.httputil import HTTPServerRequest
from cycloneish.httputil.pieces import MIN_PIECE, Pieces

__all__ = ["MULTIPART_BUFFER_SIZE", "BufferedBody", "FormBody", "body_for"]

MULTIPART_BUFFER_SIZE = 2 * 1024 * 1024
"""Bytes of a multipart body that are kept in memory, unless the setting `multipart_buffer_size` is there."""


class BufferedBody:
    """A body that is kept in memory as `request.body`."""

    __slots__ = ("chunks",)

    def __init__(self) -> None:
        self.chunks: list[bytes] = []

    def write(self, chunk: bytes) -> None:
        """Take a piece."""
        self.chunks.append(chunk)

    def finish(self, request: HTTPServerRequest) -> None:
        """Give the whole to *request*."""
        chunks = self.chunks
        if len(chunks) == 1:
            request._body = chunks[0]
        elif chunks and sum(map(len, chunks)) >= MIN_PIECE * len(chunks):
            # Not joined before somebody asks: of a form the files are, one by one.
            request._body = Pieces(chunks)
        else:
            request._body = b"".join(chunks)

    def close(self) -> None:
        """Let go of what is there."""
        self.chunks = []


class FormBody:
    """A form that is taken apart while it arrives; `request.body` stays empty.

    :param content_type: the header, with the boundary.
    :raises HTTPInputError: there is no usable boundary in it.
    """

    __slots__ = ("form",)

    def __init__(self, content_type: str, limits: FormLimits) -> None:
        self.form = FormDataStream(content_type, limits)

    def write(self, chunk: bytes) -> Awaitable[Any] | None:
        """Take a piece; a Deferred when a file has to be written first.

        :raises HTTPInputError: it is malformed (400) or over a limit (413).
        """
        return self.form.write(chunk)

    def finish(self, request: HTTPServerRequest) -> Deferred[None] | None:
        """Give fields and files to *request*; a Deferred as for `write`."""
        waiting = self.form.finish()
        if waiting is None:
            self._hand_over(request)
            return None
        return waiting.addCallback(lambda _: self._hand_over(request))

    def _hand_over(self, request: HTTPServerRequest) -> None:
        request._adopt_form(self.form.arguments, self.form.files)

    def close(self) -> None:
        """Close and delete the files that were written."""
        self.form.close()


def body_for(request: HTTPServerRequest, settings: dict[str, Any]) -> BufferedBody | FormBody:
    """Return what the body of *request* goes into.

    :param settings: the application's: `multipart_buffer_size` in bytes, `form_limits`, a `FormLimits`.
    """
    headers = request.headers
    content_type = headers.get("Content-Type", "")
    if content_type[:19].lower() == "multipart/form-data" and "Content-Encoding" not in headers:
        length = headers.get("Content-Length")
        threshold = settings.get("multipart_buffer_size", MULTIPART_BUFFER_SIZE)
        # Of an inflated body (`decompress_request`) only the compressed length is known.
        if (
            length is None
            or not length.isdigit()
            or int(length) > threshold
            or "X-Consumed-Content-Encoding" in headers
        ):
            return FormBody(content_type, settings.get("form_limits") or FormLimits())
    return BufferedBody()
