"""`StaticFileHandler`: files from a directory, with ranges, validators and versioned URLs.

Applications route to it; `cycloneish.web.application` does so by itself for the setting `static_path`,
and `RequestHandler.static_url` calls its class methods. Which file may be served is decided in
`cycloneish.web.servable`.
"""

from __future__ import annotations

import datetime
import email.utils
import functools
import hashlib
import mimetypes
import os
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable
from typing import Any, ClassVar, cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.threads import deferToThread

from cycloneish import httputil
from cycloneish.httputil.ranges import _get_content_range, _parse_request_range
from cycloneish.log import gen_log
from cycloneish.web import servable
from cycloneish.web.browser_urls import is_protocol_relative
from cycloneish.web.errors import HTTPError
from cycloneish.web.handler import RequestHandler

__all__ = ["StaticFileHandler"]

# What tells one state of a file from another; None for content that is no file.
_Stamp = tuple[int, ...]

_CHUNK = 256 * 1024  # bytes read per hop to a thread; also what one slow client holds in memory, twice
_READ_AT_ONCE = 256 * 1024  # bytes; up to here reading from the page cache is cheaper than a thread
_SLICE = 64 * 1024  # bytes per item of get_content()

# Types the standard library does not know in every supported version, or that the system's table may spoil.
_WEB_TYPES = {
    ".avif": "image/avif",
    ".css": "text/css",
    ".js": "text/javascript",
    ".map": "application/json",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".webp": "image/webp",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
}


class StaticFileHandler(RequestHandler):
    """Serves the files of one directory.

    An application with the setting `static_path` has one under `static_url_prefix` (`/static/`); more
    are routed by hand, with one group in the pattern::

        Application([(r"/downloads/(.*)", StaticFileHandler, {"path": "/srv/downloads"})])

    Arguments of the route: *path* is the directory; *default_filename* (such as `index.html`) is served
    for a directory; *allowed_symlink_directory*, a path or a list of paths, is where symbolic links may
    lead, the directory itself unless given (a list replaces it, so it has to name it as well).

    Served are regular files inside the directory. What lies outside, by `..` or by a symbolic link, is
    answered with 403, whether or not it exists; a file that may not be read is answered as one that is
    missing, with 404. Devices, FIFOs and sockets are never opened.

    Answers carry `ETag` and `Last-Modified`, honour `If-None-Match`, `If-Modified-Since`, `Range` (one
    range) and `If-Range`, and with a version in the URL (`?v=...`, see `RequestHandler.static_url`) may
    be cached for ten years. Small files are read at once; bigger ones in a thread, part by part, no
    faster than the client takes them.

    To serve from somewhere else than a directory, override `get_absolute_path`,
    `validate_absolute_path`, `get_content`, `get_content_size` and `get_modified_time`; to name
    versions differently, `make_static_url`, `parse_url_path`, `get_version` or `get_content_version`;
    for headers of your own, `set_extra_headers` and `get_cache_time`. The class methods have to stay
    class methods.

    Counterpart: `tornado.web.StaticFileHandler`.
    """

    CACHE_MAX_AGE = 86400 * 365 * 10
    """Seconds a versioned URL may be cached: ten years."""

    MAX_VERSION_CONTENT_SIZE = 64 * 1024 * 1024
    """Bytes; bigger content gets no version in its URL, and an `ETag` from size and time, not a hash."""

    MAX_CACHED_VERSIONS = 10000
    """How many versions are remembered; the one that was not used for longest goes first."""

    allowed_symlink_directory: str | list[str] | None = None

    # From content to (version, stamp of the file it was made from), least recently used first.
    _static_hashes: ClassVar[dict[str, tuple[str | None, _Stamp | None]]] = {}
    _lock = threading.Lock()
    # False once a subclass brings its own: only then the slower, general way is taken.
    _reads_files: ClassVar[bool] = True
    _own_get: ClassVar[bool] = False

    root: str
    default_filename: str | None
    path: str
    absolute_path: str | None
    modified: datetime.datetime | None
    _stat_result: os.stat_result | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        base = StaticFileHandler
        cls._reads_files = (
            getattr(cls.get_content, "__func__", None) is base.get_content.__func__  # type: ignore[attr-defined]
            and cls.validate_absolute_path is base.validate_absolute_path
            and cls.get_content_size is base.get_content_size
        )
        cls._own_get = cls.get is not base.get or cls.head is not base.head

    def initialize(
        self,
        path: str,
        default_filename: str | None = None,
        allowed_symlink_directory: str | list[str] | None = None,
    ) -> None:
        """Take the arguments of the route; see the class."""
        self.root = path
        self.default_filename = default_filename
        self.allowed_symlink_directory = allowed_symlink_directory

    @classmethod
    def reset(cls) -> None:
        """Forget all versions; the next use of a file hashes it again."""
        with cls._lock:
            cls._static_hashes = {}

    # -- answering ---------------------------------------------------------------------------------

    def head(self, path: str) -> Awaitable[None] | None:
        """Answer with the headers of `get`."""
        return self.get(path, include_body=False)

    def get(self, path: str, include_body: bool = True) -> Awaitable[None] | None:
        """Answer with the file, a part of it, 304 or 416.

        The result can be awaited by an overriding method. Without one, a file that needs no waiting
        returns None.
        """
        result = self._serve(path, include_body)
        if result is None and self._own_get:
            return succeed(None)
        return result

    def _serve(self, path: str, include_body: bool) -> Awaitable[None] | None:
        self.path = self.parse_url_path(path)
        absolute_path = self.get_absolute_path(self.root, self.path)
        self.absolute_path = self.validate_absolute_path(self.root, absolute_path)
        if self.absolute_path is None:
            return None
        self.modified = self.get_modified_time()
        if self._needs_hashing():
            return self._hash_and_send(include_body)
        return self._send(include_body)

    async def _hash_and_send(self, include_body: bool) -> None:
        await deferToThread(self._get_cached_version, cast("str", self.absolute_path), self._stamp())
        waiting = self._send(include_body)
        if waiting is not None:
            await waiting

    def _send(self, include_body: bool) -> Awaitable[None] | None:
        self.set_headers()
        if self.should_return_304():
            self.set_status(304)
            return None
        size = self.get_content_size()
        part: tuple[int, int] | None = None
        range_header = self.request.headers.get("Range")
        if range_header and self._if_range_holds():
            try:
                part = _requested_part(range_header, size)
            except _UnsatisfiableRangeError:
                self.set_status(416)
                self.set_header("Content-Type", "text/plain")
                self.set_header("Content-Range", f"bytes */{size}")
                return None
        start, end = part or (0, size)
        if part is not None:
            self.set_status(206)
            self.set_header("Content-Range", _get_content_range(start, end, size))
        self.set_header("Content-Length", str(end - start))
        if not include_body:
            return None
        if not self._reads_files:
            return self._send_content(*(part or (None, None)))
        if end - start > _READ_AT_ONCE:
            return self._send_in_parts(start, end)
        self.write(_read_at_once(cast("str", self.absolute_path), start, end - start))
        if self._transforms and end - start < _READ_AT_ONCE // 64:
            # Sent as a piece, it is compressed however short it is (with compress_response), as in Tornado.
            self.flush()
        return None

    async def _send_content(self, start: int | None, end: int | None) -> None:
        """Send what a subclass's `get_content` returns."""
        content: Iterable[bytes] | bytes = self.get_content(cast("str", self.absolute_path), start, end)
        if isinstance(content, bytes):
            self.write(content)
            return
        for chunk in content:
            self.write(chunk)
            await self.flush()

    async def _send_in_parts(self, position: int, end: int) -> None:
        """Send a big file: a thread reads the next part while the client takes the one before."""
        # Not in a thread: were this cancelled meanwhile, nobody would close what the thread opened.
        file = servable.open_regular(cast("str", self.absolute_path))
        upcoming: Deferred[bytes] | None = None
        try:
            upcoming = deferToThread(os.pread, file, min(_CHUNK, end - position), position)
            while upcoming is not None:
                chunk = await upcoming
                upcoming = None
                if not chunk:
                    raise httputil.HTTPOutputError(f"{self.path} became shorter while it was sent")
                position += len(chunk)
                self.write(chunk)
                flushed = self.flush()
                if position < end:
                    upcoming = deferToThread(os.pread, file, min(_CHUNK, end - position), position)
                await flushed
        finally:
            if upcoming is None:
                os.close(file)
            else:
                # Left early with a read under way: its number must not be given to another file before
                # it ends.
                upcoming.addBoth(lambda _: os.close(file))

    # -- headers -----------------------------------------------------------------------------------

    def set_headers(self) -> None:
        """Set the headers that describe the content and how long it may be cached."""
        self.set_header("Accept-Ranges", "bytes")
        self.set_etag_header()
        if self.modified is not None:
            self.set_header("Last-Modified", _http_date(self.modified))
        content_type = self.get_content_type()
        if content_type:
            self.set_header("Content-Type", content_type)
        cache_time = self.get_cache_time(self.path, self.modified, content_type)
        if cache_time > 0:
            expires = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=cache_time)
            self.set_header("Expires", expires)
            self.set_header("Cache-Control", f"max-age={cache_time}")
        self.set_extra_headers(self.path)

    def set_extra_headers(self, path: str) -> None:
        """Override to add headers for *path* (as from `parse_url_path`); the default adds none."""

    def get_cache_time(self, path: str, modified: datetime.datetime | None, mime_type: str) -> int:
        """Return for how many seconds the answer may be cached; 0 leaves it to the browser.

        The default is `CACHE_MAX_AGE` when the URL has the argument `v`, else 0.
        """
        return self.CACHE_MAX_AGE if "v" in self.request.arguments else 0

    def get_content_type(self) -> str:
        """Return the `Content-Type`, by the file's name.

        A compressed file keeps its own type, as the content is sent as it is (RFC 6713 for gzip).
        """
        return _content_type(cast("str", self.absolute_path))

    def compute_etag(self) -> str | None:
        """Return the `ETag`: the version of the file, which is that of the whole even when a part is sent."""
        absolute_path = cast("str", self.absolute_path)
        stamp = self._stamp()
        if self._reads_files and self._stat().st_size > self.MAX_VERSION_CONTENT_SIZE:
            stat = self._stat()
            return f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
        version = self._get_cached_version(absolute_path, stamp)
        return f'"{version}"' if version else None

    def should_return_304(self) -> bool:
        """Whether the client has this version already, by `If-None-Match` or else by `If-Modified-Since`."""
        headers = self.request.headers
        if headers.get("If-None-Match"):
            return self.check_etag_header()
        since = headers.get("If-Modified-Since")
        if since is None or self.modified is None:
            return False
        if since == _http_date(self.modified):
            return True
        date = _parse_date(since)
        return date is not None and date >= _aware(self.modified)

    def _if_range_holds(self) -> bool:
        """Whether the client's part is of this version; else it needs the whole (RFC 9110, 13.1.5)."""
        condition = self.request.headers.get("If-Range")
        if condition is None:
            return True
        condition = condition.strip()
        if condition.startswith(('"', "W/")):
            # A weak tag never matches here: parts of two such versions do not fit together.
            return condition == self.compute_etag()
        return self.modified is not None and condition == _http_date(self.modified)

    # -- from URL to file --------------------------------------------------------------------------

    def parse_url_path(self, url_path: str) -> str:
        """Turn the path in the URL, without the prefix, into a file path relative to the directory."""
        return url_path if os.path.sep == "/" else url_path.replace("/", os.path.sep)

    @classmethod
    def get_absolute_path(cls, root: str, path: str) -> str:
        """Return where *path* is, below the directory *root*; nothing is touched on disk.

        Raises `HTTPError` (403) when *path*, as written, leaves the directory. This also keeps
        `static_url` inside.
        """
        absolute_path = os.path.abspath(os.path.join(root, path))
        servable.directory_of(root, absolute_path, path)
        return absolute_path

    def validate_absolute_path(self, root: str, absolute_path: str) -> str | None:
        """Return the file to serve for *absolute_path*, or None when a redirect was sent instead.

        Raises `HTTPError`: 404 for what is missing or may not be read, 403 for what lies outside *root*
        or is no regular file.
        """
        directory = servable.directory_of(root, absolute_path, self.path)
        allowed = self.allowed_symlink_directory or directory
        allowed_directories = (allowed,) if isinstance(allowed, str) else tuple(allowed)
        found, stat = servable.resolve(absolute_path, allowed_directories, self.path)
        if self.default_filename is not None and stat is not None and servable.is_directory(stat):
            # Reached only when the directory itself may be served: else the redirect would tell that it
            # exists.
            if not self.request.path.endswith("/"):
                if is_protocol_relative(self.request.path):
                    raise HTTPError(403, "cannot redirect path with two initial slashes")
                self.redirect(self.request.path + "/", permanent=True)
                return None
            default = os.path.join(found, self.default_filename)
            found, stat = servable.resolve(default, allowed_directories, self.path)
        self._stat_result = servable.require_regular_file(stat, self.path)
        return found

    def _stat(self) -> os.stat_result:
        # A subclass may have validated the path in its own way.
        if self._stat_result is None:
            self._stat_result = os.stat(cast("str", self.absolute_path))
        return self._stat_result

    def _stamp(self) -> _Stamp | None:
        return _stamp_of(self._stat_result) if self._stat_result is not None else None

    def get_content_size(self) -> int:
        """Return the size of the whole content in bytes."""
        return self._stat().st_size

    def get_modified_time(self) -> datetime.datetime | None:
        """Return when the content was last changed, in whole seconds, or None if that is not known."""
        return _moment(int(self._stat().st_mtime))

    @classmethod
    def get_content(
        cls, abspath: str, start: int | None = None, end: int | None = None
    ) -> Generator[bytes, None, None] | bytes:
        """Return the content at *abspath*, or its bytes from *start* to before *end*, in pieces or whole.

        Raises `HTTPError` for what is no regular file.
        """
        return _file_slices(abspath, start or 0, end)

    # -- versions ----------------------------------------------------------------------------------

    @classmethod
    def make_static_url(cls, settings: dict[str, Any], path: str, include_version: bool = True) -> str:
        """Return the URL of the static file *path*, relative to the host, with its version unless refused."""
        url: str = settings.get("static_url_prefix", "/static/") + path
        version = cls.get_version(settings, path) if include_version else None
        return f"{url}?v={version}" if version else url

    @classmethod
    def get_version(cls, settings: dict[str, Any], path: str) -> str | None:
        """Return the version of the static file *path*, or None if it has none.

        *path* should be a known file, not something a client sent. Versions are remembered
        (`MAX_CACHED_VERSIONS`) until the file is served in a newer state or `reset` is called.
        """
        return cls._get_cached_version(cls.get_absolute_path(settings["static_path"], path))

    @classmethod
    def get_content_version(cls, abspath: str) -> str:
        """Return the version of the content at *abspath*; the default is its SHA-512, in hexadecimal digits.

        Raises `ValueError` for content above `MAX_VERSION_CONTENT_SIZE`, as hashing it would hold up
        everybody.
        """
        content = cls.get_content(abspath)
        hasher = hashlib.sha512()
        size = 0
        try:
            for chunk in [content] if isinstance(content, bytes) else content:
                size += len(chunk)
                if size > cls.MAX_VERSION_CONTENT_SIZE:
                    raise ValueError(f"content is larger than {cls.MAX_VERSION_CONTENT_SIZE} bytes")
                hasher.update(chunk)
        finally:
            close: Callable[[], None] | None = getattr(content, "close", None)
            if close is not None:
                close()
        return hasher.hexdigest()

    @classmethod
    def _get_cached_version(cls, abs_path: str, stamp: _Stamp | None = None) -> str | None:
        """Return the version of *abs_path*, made anew when *stamp* shows that the file has changed."""
        with cls._lock:
            known = cls._static_hashes.pop(abs_path, None)
            if known is not None:
                cls._static_hashes[abs_path] = known
        if known is not None and (stamp is None or known[1] is None or stamp == known[1]):
            return known[0]
        if stamp is None:
            stamp = _stamp_of_path(abs_path)
        try:
            version: str | None = cls.get_content_version(abs_path)
        except Exception as error:
            gen_log.error("Could not open static file %r: %s", abs_path, error)
            version = None
        with cls._lock:
            hashes = cls._static_hashes
            hashes.pop(abs_path, None)
            while hashes and len(hashes) >= cls.MAX_CACHED_VERSIONS:
                del hashes[next(iter(hashes))]
            hashes[abs_path] = (version, stamp)
        return version or None

    def _needs_hashing(self) -> bool:
        """Whether the `ETag` has to be made from so many bytes that it had better be made in a thread."""
        if not self._reads_files:
            return False
        size = self._stat().st_size
        if not _READ_AT_ONCE < size <= self.MAX_VERSION_CONTENT_SIZE:
            return False
        known = self._static_hashes.get(cast("str", self.absolute_path))
        return known is None or known[1] != self._stamp()


class _UnsatisfiableRangeError(ValueError):
    """The range asks for bytes that the content does not have."""


def _requested_part(range_header: str, size: int) -> tuple[int, int] | None:
    """Return first byte and end (exclusive) of the part of *size* bytes that the header asks for.

    None means the whole: the header is malformed, names several ranges (RFC 9110, section 14.2 lets us
    ignore those) or asks for everything; Chrome refuses to play audio when `bytes=0-` is answered with
    206.
    """
    requested = _parse_request_range(range_header)
    if requested is None:
        return None
    start, end = requested
    if start is not None and start < 0:
        start = max(0, start + size)
    if end == 0 or (start is not None and (start >= size or (end is not None and start >= end))):
        raise _UnsatisfiableRangeError(range_header)
    start = start or 0
    end = size if end is None else min(end, size)
    return None if (start, end) == (0, size) else (start, end)


def _stamp_of(stat: os.stat_result) -> _Stamp:
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _stamp_of_path(path: str) -> _Stamp | None:
    try:
        return _stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None


def _read_at_once(path: str, start: int, length: int) -> bytes:
    file = servable.open_regular(path)
    try:
        content = os.pread(file, length, start)
    finally:
        os.close(file)
    if len(content) != length:
        raise httputil.HTTPOutputError(f"{path} became shorter while it was sent")
    return content


def _file_slices(path: str, start: int, end: int | None) -> Generator[bytes, None, None]:
    file = servable.open_regular(path)
    try:
        position = start
        while end is None or position < end:
            chunk = os.pread(file, _SLICE if end is None else min(_SLICE, end - position), position)
            if not chunk:
                return
            position += len(chunk)
            yield chunk
    finally:
        os.close(file)


@functools.lru_cache(maxsize=4096)
def _content_type(path: str) -> str:
    mime_type, encoding = mimetypes.guess_type(path)
    if encoding == "gzip":
        return "application/gzip"
    if encoding is not None:
        return "application/octet-stream"
    suffix = os.path.splitext(path)[1].lower()
    return _WEB_TYPES.get(suffix) or mime_type or "application/octet-stream"


@functools.lru_cache(maxsize=4096)
def _moment(seconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)


@functools.lru_cache(maxsize=4096)
def _http_date(moment: datetime.datetime) -> str:
    return httputil.format_timestamp(moment)


def _aware(moment: datetime.datetime) -> datetime.datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)


def _parse_date(text: str) -> datetime.datetime | None:
    try:
        return _aware(email.utils.parsedate_to_datetime(text))
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
