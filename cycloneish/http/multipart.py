"""``multipart/form-data`` bodies read while they arrive, with large files going to disk (RFC 7578).

The web layer makes a :class:`FormDataStream` for a form whose length is unknown or too large to hold, gives
it every piece of the body, and puts the result into the request. Memory stays within :class:`FormLimits`,
whatever is uploaded: a file above a threshold is written to a nameless temporary file by a thread, and the
Deferred that :meth:`FormDataStream.write` returns meanwhile keeps the connection from being read.

The framing is done by the ``multipart`` package; fields mean the same as in
:mod:`cycloneish.httputil.forms`, which reads the small forms.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.threads import deferToThreadPool

from cycloneish.httputil.errors import HTTPInputError
from cycloneish.httputil.forms import HTTPFile, multipart_boundary, part_disposition
from cycloneish.httputil.headers import HTTPHeaders

__all__ = ["FormDataStream", "FormLimits"]

#: Bytes that are collected before a thread is asked to write them.
WRITE_BATCH: Final = 256 * 1024

#: Header fields of one part; RFC 7578 knows three.
_MAX_PART_HEADERS: Final = 16

_HEADER_LINE: Final = re.compile(rb"[A-Za-z0-9_-]+:")


@dataclass(frozen=True, slots=True)
class FormLimits:
    """What one streamed form may hold. Sizes are bytes."""

    max_parts: int = 100
    """Fields and files together; 400."""
    max_part_header_size: int = 10 * 1024
    """Header of one part; 400."""
    max_field_size: int = 1_048_576
    """Value of one field that is no file; 413."""
    max_fields_size: int = 4_194_304
    """Values of all fields that are no files; 413."""
    max_total_size: int | None = None
    """The whole body, when set; 413. The server's limit of the body holds in any case."""
    max_file_memory: int = 262_144
    """A file up to this size stays in memory, a larger one goes to disk."""
    max_files_memory: int = 4_194_304
    """All files that stay in memory; from here on even small ones go to disk."""
    directory: str | None = None
    """Where temporary files are made; the system's place for them by default."""


class FormDataStream:
    """Parses one ``multipart/form-data`` body that arrives in pieces.

    :param content_type: value of the request's Content-Type header.
    :param limits: see :class:`FormLimits`.
    :param reactor: whose threads write to disk; the global one by default.
    :raises HTTPInputError: the content type is another one or has no usable boundary.

    After :meth:`finish`, ``arguments`` and ``files`` hold the result, in the shape of
    :class:`~cycloneish.httputil.HTTPServerRequest`'s ``body_arguments`` and ``files``. :meth:`close` must
    be called in the end, also after an error: it gives the disk space back.
    """

    def __init__(self, content_type: str, limits: FormLimits | None = None, *, reactor: Any = None) -> None:
        self.arguments: dict[str, list[bytes]] = {}
        self.files: dict[str, list[HTTPFile]] = {}
        self._limits = limits = limits or FormLimits()
        self._reactor = reactor
        boundary = multipart_boundary(content_type)
        self._opening = b"--" + boundary
        self._terminator = b"\r\n--" + boundary + b"--"
        self._parser = _Parser(boundary, limits)
        # The first bytes, until there are enough of them to see the boundary.
        self._head: bytes | None = b""
        # The last bytes handed to the parser, as the terminator may come in two pieces.
        self._tail = b""
        self._epilogue: bytes | None = None
        self._received = 0
        self._fields_size = 0
        self._files_memory = 0
        # The first bytes of a part, until it is clear that they are no boundary.
        self._part_head: bytes | None = None
        self._field: bytearray | None = None
        self._upload: _Upload | None = None
        self._uploads: list[tuple[str, _Upload]] = []
        self._unwritten: list[tuple[_Upload, bytearray]] = []
        self._unwritten_size = 0
        # One thread at a time, in the order of the pieces.
        self._lock = DeferredLock()
        self._closed = False

    def write(self, data: bytes) -> Deferred[None] | None:
        """Take the next piece of the body.

        :returns: ``None``, or a Deferred that fires when data went to disk; wait for it before the next
            piece, or memory is not bounded. It fails with ``OSError`` when the disk is full.
        :raises HTTPInputError: the body is malformed (400) or over a limit (413). Pieces after that are
            ignored.
        """
        if self._closed:
            return None
        try:
            self._received += len(data)
            total = self._limits.max_total_size
            if total is not None and self._received > total:
                raise _too_large("multipart/form-data body too large")
            self._frame(data)
        except HTTPInputError:
            self.close()
            raise
        return self._write_out() if self._unwritten_size >= WRITE_BATCH else None

    def finish(self) -> Deferred[None] | None:
        """Take note that the body is complete, and fill :attr:`arguments` and :attr:`files`.

        :returns: ``None``, or a Deferred that fires when the last data is on disk.
        :raises HTTPInputError: the final boundary is missing.
        """
        if self._closed:
            return None
        try:
            self._parser.close()
        except MultipartError as error:
            self.close()
            raise _malformed("no final boundary found") from error
        if self._unwritten or self._lock.locked:
            return self._write_out().addCallback(lambda _: self._collect())
        self._collect()
        return None

    def close(self) -> None:
        """Forget everything and remove the temporary files, now or as soon as no thread uses them."""
        if self._closed:
            return
        self._closed = True
        self._unwritten.clear()
        self._parser.close(check_complete=False)
        uploads = [upload for _, upload in self._uploads]
        self._uploads.clear()
        self._lock.run(_close_all, uploads)

    def _frame(self, data: bytes) -> None:
        """See to what the parser is lenient about: nothing before the first boundary or after the last."""
        if self._head is not None:
            self._head += data
            data = self._head
            if len(data) < len(self._opening) + (4 if data[:1] == b"\r" else 2):
                return
            if not data.startswith((self._opening, b"\r\n" + self._opening)):
                raise _malformed("no boundary at its start")
            self._head = None
            # A form without any part has no line end before its only boundary.
            self._tail = b"\r\n"
        if self._epilogue is None:
            end = self._end_in(data)
            self._feed(data if end < 0 else data[:end])
            if end < 0:
                return
            self._epilogue = b""
            data = data[end:]
        self._epilogue += data[:5]
        # Some clients end with an empty line too many, see httputil.forms.
        if len(self._epilogue) > 4 or self._epilogue.strip(b"\r\n"):
            raise _malformed("data after the final boundary")

    def _end_in(self, data: bytes) -> int:
        """Return where the terminator ends in *data*, or -1."""
        terminator = self._terminator
        seam = self._tail + data[: len(terminator) - 1]
        found = seam.find(terminator)
        if found >= 0:
            return found + len(terminator) - len(self._tail)
        self._tail = (self._tail + data if len(data) < len(terminator) else data)[1 - len(terminator) :]
        found = data.find(terminator)
        return found if found < 0 else found + len(terminator)

    def _feed(self, data: bytes) -> None:
        try:
            for event in self._parser.parse(data):
                if event is None:
                    self._part_ended()
                elif isinstance(event, bytes):
                    self._part_data(event)
                else:
                    self._part_began(event)
        except ParserLimitReached as error:
            raise _malformed(str(error)) from error
        except MultipartError as error:
            raise _malformed(str(error.args[0])) from error

    def _part_began(self, segment: MultipartSegment) -> None:
        self._part_head = b""
        if segment.filename is None:
            self._field = bytearray()
        else:
            self._upload = _Upload(segment.filename, segment.content_type, self._limits.directory)
            self._uploads.append((segment.name, self._upload))

    def _part_data(self, piece: bytes) -> None:
        if self._part_head is not None:
            self._part_head += piece[: len(self._opening)]
            if self._part_head.startswith(self._opening):
                # Behind the empty line of a header this may be meant as a boundary (RFC 2046 lets a part
                # have no body), but the parser takes it for content. Better none than two readings.
                raise _malformed("a boundary without its line end")
            if len(self._part_head) >= len(self._opening):
                self._part_head = None
        upload = self._upload
        if upload is None:
            self._field_data(piece)
            return
        upload.size += len(piece)
        if not upload.spooled:
            limits = self._limits
            if (
                upload.size <= limits.max_file_memory
                and self._files_memory + len(piece) <= limits.max_files_memory
            ):
                self._files_memory += len(piece)
                upload.content += piece
                return
            upload.spooled = True
            self._files_memory -= len(upload.content)
            self._to_disk(upload, upload.content)
            upload.content = bytearray()
        self._to_disk(upload, piece)

    def _field_data(self, piece: bytes) -> None:
        self._fields_size += len(piece)
        if self._field is None:
            return
        self._field += piece
        limits = self._limits
        if self._fields_size > limits.max_fields_size:
            raise _too_large("multipart/form-data fields too large")
        if self._parser.part_size > limits.max_field_size:
            raise _too_large("multipart/form-data field too large")

    def _part_ended(self) -> None:
        if self._field is not None:
            self.arguments.setdefault(self._parser.part_name, []).append(bytes(self._field))
        self._field = self._upload = None

    def _to_disk(self, upload: _Upload, content: bytes | bytearray) -> None:
        self._unwritten_size += len(content)
        # Joined, as a body that comes byte by byte would otherwise take many times its size in small objects.
        if self._unwritten and self._unwritten[-1][0] is upload:
            self._unwritten[-1][1].extend(content)
        else:
            self._unwritten.append((upload, bytearray(content)))

    def _write_out(self) -> Deferred[None]:
        batch = self._unwritten
        self._unwritten = []
        self._unwritten_size = 0
        reactor = self._reactor
        if reactor is None:
            # Here and not above: importing it installs it.
            from twisted.internet import reactor
        written = self._lock.run(deferToThreadPool, reactor, reactor.getThreadPool(), _write_all, batch)
        done: Deferred[None] = Deferred()

        def tell(result: Any) -> None:
            if not done.called:
                done.callback(result)

        # Not handed out itself: cancelling it would release the lock while the thread still writes.
        written.addBoth(tell)
        return done

    def _collect(self) -> None:
        # Closed while a thread wrote: the request is gone.
        if not self._closed:
            for name, upload in self._uploads:
                self.files.setdefault(name, []).append(upload.as_file())


class _Parser(PushMultipartParser):  # type: ignore[misc]
    """The package's parser, with our reading of the header of a part."""

    def __init__(self, boundary: bytes, limits: FormLimits) -> None:
        super().__init__(
            boundary,
            max_header_size=limits.max_part_header_size,
            max_header_count=_MAX_PART_HEADERS,
            max_segment_count=limits.max_parts,
            strict=True,
        )
        self._max_part_header_size = limits.max_part_header_size
        self._part: MultipartSegment | None = None

    @property
    def part_name(self) -> str:
        """Field name of the part that is being read."""
        return "" if self._part is None else str(self._part.name)

    @property
    def part_size(self) -> int:
        """Bytes of the part that is being read, so far."""
        return 0 if self._part is None else int(self._part.bytes_received)

    def _on_segment_headerline(self, line: bytes) -> None:
        # The package forgives white space, line ends and boundaries here, and a parser in front of us may
        # not.
        if not _HEADER_LINE.match(line) or line.startswith(b"--" + self.boundary):
            raise HTTPInputError("Invalid multipart/form-data: malformed part header")
        super()._on_segment_headerline(line)

    def _create_segment(self, headerlist: list[tuple[str, str]]) -> MultipartSegment:
        # ": " and the line end are four bytes.
        if sum(len(n.encode()) + len(v.encode()) + 4 for n, v in headerlist) > self._max_part_header_size:
            raise HTTPInputError("multipart/form-data part header too large")
        headers = HTTPHeaders()
        for name, value in headerlist:
            headers.add(name, value.strip(" \t"), _chars_are_bytes=False)
        part = MultipartSegment([])
        part.headerlist = headerlist
        part.name, part.filename, part.content_type = part_disposition(headers, strict=True)
        self._part = part
        return part


class _Upload:
    """One file on its way in."""

    __slots__ = ("_directory", "_file", "content", "content_type", "filename", "size", "spooled")

    def __init__(self, filename: str, content_type: str, directory: str | None) -> None:
        self.filename = filename
        self.content_type = content_type
        self.size = 0
        #: What stays in memory.
        self.content = bytearray()
        self.spooled = False
        self._directory = directory
        self._file: BinaryIO | None = None

    def append(self, content: bytearray) -> None:
        """Write to disk; in a thread. The file has no name, so that nothing can be left behind."""
        if self._file is None:
            self._file = cast(BinaryIO, tempfile.TemporaryFile(dir=self._directory))  # noqa: SIM115
        self._file.write(content)
        # A full disk must show here, and not when the file is closed.
        self._file.flush()

    def as_file(self) -> HTTPFile:
        """Return the file as handlers get it."""
        if self._file is None:
            return HTTPFile(filename=self.filename, body=bytes(self.content), content_type=self.content_type)
        self._file.seek(0)
        return HTTPFile._from_file(self.filename, self.content_type, self._file)

    def close(self) -> None:
        """Give the disk space back."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError:
                # What could not be written before cannot be written now.
                pass


def _write_all(batch: list[tuple[_Upload, bytearray]]) -> None:
    for upload, content in batch:
        upload.append(content)


def _close_all(uploads: list[_Upload]) -> None:
    for upload in uploads:
        upload.close()


def _malformed(reason: str) -> HTTPInputError:
    return HTTPInputError(f"Invalid multipart/form-data: {reason}")


def _too_large(reason: str) -> HTTPInputError:
    return HTTPInputError(reason, status=413)
