"""When to try again: asked for with ``HTTPRequest(retry=Retry())`` or in the ``defaults`` of a client."""

from __future__ import annotations

import random
import time
from collections.abc import Collection
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from cycloneish.httputil import HTTPHeaders

__all__ = ["Retry"]

#: Methods that may be repeated without harm (RFC 9110 section 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})


@dataclass(frozen=True)
class Retry:
    """Try again after a failure, with growing pauses.

    The body of a ``body_producer`` is not sent again, and a response that a ``streaming_callback`` has seen a
    part of is not fetched again.
    """

    attempts: int = 3
    """Requests in all, the first one included."""
    backoff: float = 0.1
    """Seconds before the second; twice as long before the next, and so on.  Each pause is cut by a random
    part of up to a half, so that clients that failed together do not come back together."""
    max_backoff: float = 10.0
    """The longest pause in seconds, also where the server asks for a longer one in Retry-After."""
    statuses: Collection[int] = frozenset({502, 503, 504})
    """Responses that count as failures."""
    methods: Collection[str] = IDEMPOTENT
    """Methods that may be repeated."""

    def pause(self, attempt: int, headers: HTTPHeaders | None = None) -> float:
        """Seconds to wait after the request number *attempt*, counted from 1.

        :param headers: those of the response, whose Retry-After is obeyed.
        """
        wanted = min(self.max_backoff, self.backoff * 2 ** (attempt - 1)) * random.uniform(0.5, 1.0)  # noqa: S311
        asked = _retry_after(headers) if headers is not None else 0.0
        return float(min(self.max_backoff, max(wanted, asked)))


def _retry_after(headers: HTTPHeaders) -> float:
    """Seconds in Retry-After (RFC 9110 section 10.2.3); 0 where there is none, or nonsense."""
    value = headers.get("Retry-After")
    if value is None:
        return 0.0
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0
