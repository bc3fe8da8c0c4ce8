"""What happens to a response between the handler and the connection: compression.

`Application` holds the list of transforms; `RequestHandler.flush` runs each of them over the head with the
first piece of the body, and over every later piece.
"""

from __future__ import annotations

import re
import zlib

from cycloneish.httputil import HTTPHeaders, HTTPServerRequest

__all__ = ["ChunkedTransferEncoding", "GZipContentEncoding", "OutputTransform"]

# RFC 9110, section 12.5.3.
_CODING = re.compile(
    r"(?:^|,)[ \t]*(gzip|x-gzip|\*)[ \t]*(?:;[ \t]*q=([0-9.]+)[ \t]*)?(?=,|$)", re.IGNORECASE
)
_GZIP_FORMAT = 31  # window bits of zlib: 15, and 16 for a gzip header and trailer


class OutputTransform:
    """Changes responses; one object per request. Counterpart: `tornado.web.OutputTransform`."""

    def __init__(self, request: HTTPServerRequest) -> None:
        pass

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Change the head and the first piece; *finishing* if there is no other."""
        return status_code, headers, chunk

    def transform_chunk(self, chunk: bytes, finishing: bool) -> bytes:
        """Change a later piece; *finishing* if it is the last."""
        return chunk


class ChunkedTransferEncoding(OutputTransform):
    """Leaves responses as they are: the engine sends what has no length in chunks. For lists of transforms
    written for Cyclone, which has a transform of this name to do that."""


class GZipContentEncoding(OutputTransform):
    """Compresses text for clients that take gzip; on by the setting `compress_response`.

    Left as they are: types that are compressed already (images, archives, films), responses that have an
    encoding, and whole responses below `MIN_LENGTH`. A streamed response is compressed and flushed piece by
    piece.

    Counterpart: `tornado.web.GZipContentEncoding`.
    """

    CONTENT_TYPES = {
        "application/atom+xml",
        "application/javascript",
        "application/json",
        "application/ld+json",
        "application/manifest+json",
        "application/rss+xml",
        "application/wasm",
        "application/x-javascript",
        "application/xhtml+xml",
        "application/xml",
        "image/svg+xml",
    }
    """Types that are compressed besides `text/*`."""

    GZIP_LEVEL = 6
    """From 1, fast, to 9, small."""

    MIN_LENGTH = 1024
    """Bytes; a smaller whole response is not worth the header."""

    def __init__(self, request: HTTPServerRequest) -> None:
        self._gzipping = _accepts_gzip(request.headers.get("Accept-Encoding", ""))

    def _compressible_type(self, ctype: str) -> bool:
        return ctype.startswith("text/") or ctype in self.CONTENT_TYPES

    def transform_first_chunk(
        self, status_code: int, headers: HTTPHeaders, chunk: bytes, finishing: bool
    ) -> tuple[int, HTTPHeaders, bytes]:
        """Decide whether to compress, say so in the headers, and compress the first piece."""
        # Also where nothing is compressed: a cache must not give this answer to another client.
        vary = headers.get("Vary")
        headers["Vary"] = f"{vary}, Accept-Encoding" if vary else "Accept-Encoding"
        if not self._gzipping:
            return status_code, headers, chunk
        ctype = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        self._gzipping = (
            self._compressible_type(ctype)
            and (not finishing or len(chunk) >= self.MIN_LENGTH)
            and "Content-Encoding" not in headers
            # A part of a file is a part of its uncompressed bytes.
            and status_code not in (204, 206, 304)
        )
        if not self._gzipping:
            return status_code, headers, chunk
        self._compressor = zlib.compressobj(self.GZIP_LEVEL, zlib.DEFLATED, _GZIP_FORMAT)
        headers["Content-Encoding"] = "gzip"
        etag = headers.get("Etag")
        if etag is not None and not etag.startswith("W/"):
            # Other bytes, so no longer the same by a strong comparison (RFC 9110, section 8.8.3.3).
            headers["Etag"] = f"W/{etag}"
        chunk = self.transform_chunk(chunk, finishing)
        if "Content-Length" in headers:
            if finishing:
                headers["Content-Length"] = str(len(chunk))
            else:
                # Nobody knows it yet; the connection sends the body chunked.
                del headers["Content-Length"]
        return status_code, headers, chunk

    def transform_chunk(self, chunk: bytes, finishing: bool) -> bytes:
        """Compress a piece, so that the client can read all of it at once."""
        if not self._gzipping:
            return chunk
        compressed = self._compressor.compress(chunk)
        return compressed + self._compressor.flush(zlib.Z_FINISH if finishing else zlib.Z_SYNC_FLUSH)


def _accepts_gzip(header: str) -> bool:
    if not header:
        return False
    if header == "gzip" or header.startswith(("gzip, ", "gzip,")):
        return True  # what browsers send
    any_coding = False
    for match in _CODING.finditer(header):
        try:
            accepted = float(match[2]) > 0 if match[2] else True
        except ValueError:
            accepted = False
        if match[1] != "*":
            return accepted
        any_coding = accepted
    return any_coding
