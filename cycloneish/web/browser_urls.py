"""URLs as a browser reads them, which is not always as RFC 3986 does.

Whatever sends a redirect whose target comes from a request asks here whether it still leads to the same site:
`cycloneish.web.redirects`, `cycloneish.web.static` and `cycloneish.web.decorators`.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

__all__ = ["has_control_characters", "is_protocol_relative", "site_of"]

# WHATWG URL standard, "basic URL parser": leading and trailing C0 controls and spaces are stripped,
# tabs and line ends are removed wherever they stand.
_C0_AND_SPACE = "".join(map(chr, range(0x21)))
_IGNORED = str.maketrans("", "", "\t\r\n")
_SLASHES = re.compile(r"//+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _as_read(url: str) -> str:
    # A backslash is read as a slash in http URLs, and in those relative to one.
    return url.strip(_C0_AND_SPACE).translate(_IGNORED).replace("\\", "/")


def site_of(url: str) -> tuple[str, str]:
    """Return the scheme and the authority (user, host and port) that a browser finds in *url*, in lower case.

    Both are empty for a URL relative to the site. Raises `ValueError` for what is no URL.
    """
    url = _as_read(url)
    # Before the host a browser skips any number of slashes, where urlsplit sees an empty host in three.
    leading = _SLASHES.match(url)
    if leading is not None:
        url = "//" + url[leading.end() :]
    parts = urlsplit(url)
    return parts.scheme.lower(), parts.netloc.lower()


def is_protocol_relative(path: str) -> bool:
    """Whether a browser takes the beginning of *path* for a host, as in ``//example.com``."""
    return _as_read(path).startswith("//")


def has_control_characters(url: str) -> bool:
    """Whether *url* has a character that may not stand in a header."""
    return _CONTROL.search(url) is not None
