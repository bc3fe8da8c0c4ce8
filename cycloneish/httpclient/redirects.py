"""What a redirect turns a request into (RFC 9110 section 15.4), and what it must not carry along.

Called by the fetch.
"""

from __future__ import annotations

import copy
import re
from typing import Any, Final
from urllib.parse import urljoin, urlsplit, urlunsplit

from cycloneish.httpclient.heads import Target, parse_url
from cycloneish.httpclient.request import HTTPRequest
from cycloneish.httputil import HTTPHeaders

__all__ = ["REDIRECTS", "is_secret", "redirected"]

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

#: Header fields that are credentials by their names, whoever made the name up: X-Api-Key, X-Auth-Token, …
_SECRET: Final = re.compile(
    r"cookie2?\Z|auth|token|secret|password|passwd|credential|session|signature|api-?key|access-?key|private-?key"
    r"|csrf|xsrf",
    re.IGNORECASE,
)
_ABOUT_THE_BODY: Final = (
    "Content-Length",
    "Content-Type",
    "Content-Encoding",
    "Content-Language",
    "Content-Location",
    "Digest",
    "Content-Digest",
    "Transfer-Encoding",
    "Expect",
)


def is_secret(name: str) -> bool:
    """Whether the header field *name* is for the server only to which it was sent."""
    return _SECRET.search(name) is not None


def redirected(request: HTTPRequest, target: Target, code: int, location: str) -> HTTPRequest:
    """The request that follows the answer *code* to *request*.

    To another origin (scheme, host or port) go no credentials: neither the options for them, nor header
    fields that hold them.  What was dropped is not put back when a later redirect returns.

    :param target: where *request* went.
    :raises ValueError: *location* is no http or https URL, or none at all.
    """
    new = copy.copy(request)
    new.headers = HTTPHeaders(request.headers)
    base = f"{target.scheme}://{target.authority}{target.path}"
    url = urljoin(base, location)
    parts = urlsplit(url)
    # Credentials in a Location would be the server's choice, not the program's.
    url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    to = parse_url(url)
    new.url = url
    new.headers.pop("Host", None)
    if to.origin != target.origin:
        _drop_secrets(new)
    elif target.username is not None:
        new.auth_username, new.auth_password = target.username, target.password or ""
    if (code == 303 and request.method != "HEAD") or (code in (301, 302) and request.method == "POST"):
        new.method = "GET"
        new.body = None
        new.body_producer = None
        new.expect_100_continue = False
        for name in _ABOUT_THE_BODY:
            new.headers.pop(name, None)
    return new


def _drop_secrets(request: Any) -> None:
    # Not None: that would bring in the defaults of the client, which were meant for the first origin.
    request.auth_username = request.auth_password = ""
    for name in list(request.headers):
        if is_secret(name):
            del request.headers[name]
