"""``fetch_all``: many requests at once, with a bound, and an end to all when one fails."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from twisted.python.failure import Failure

from cycloneish.awaiting import AwaitableDeferred
from cycloneish.httpclient.client import AsyncHTTPClient
from cycloneish.httpclient.request import HTTPRequest
from cycloneish.httpclient.response import HTTPResponse

__all__ = ["fetch_all"]


class _FanOut:
    """The fetches of one call."""

    def __init__(self, client: AsyncHTTPClient, requests: Iterable[Any], limit: int, options: Any) -> None:
        self._client = client
        self._left = enumerate(requests)
        self._limit = limit
        self._options = options
        self._running: set[AwaitableDeferred[HTTPResponse]] = set()
        self._responses: dict[int, HTTPResponse] = {}
        self._over = False
        self._filling = False
        self.done: AwaitableDeferred[list[HTTPResponse]] = AwaitableDeferred(lambda _: self._stop())

    def fill(self) -> None:
        """Start what may run; a loop and no recursion, as a fetch may fail at once."""
        if self._filling:
            return
        self._filling = True
        try:
            while not self._over and len(self._running) < self._limit:
                number, request = next(self._left)
                fetching = self._client.fetch(request, **self._options)
                self._running.add(fetching)
                fetching.addCallbacks(
                    self._succeeded, self._failed, callbackArgs=(number, fetching), errbackArgs=(fetching,)
                )
        except StopIteration:
            if not self._running:
                self._over = True
                self.done.callback([response for _, response in sorted(self._responses.items())])
        except Exception:
            self._end(Failure())
        finally:
            self._filling = False

    def _succeeded(
        self, response: HTTPResponse, number: int, fetching: AwaitableDeferred[HTTPResponse]
    ) -> None:
        self._running.discard(fetching)
        self._responses[number] = response
        self.fill()

    def _failed(self, failure: Failure, fetching: AwaitableDeferred[HTTPResponse]) -> None:
        self._running.discard(fetching)
        self._end(failure)

    def _end(self, failure: Failure) -> None:
        if not self._over:
            self._stop()
            self.done.errback(failure)

    def _stop(self) -> None:
        self._over = True
        for fetching in list(self._running):
            fetching.cancel()


def fetch_all(
    requests: Iterable[str | HTTPRequest],
    limit: int = 10,
    client: AsyncHTTPClient | None = None,
    **options: Any,
) -> AwaitableDeferred[list[HTTPResponse]]:
    """Fetch many things, so many at a time.

    :param requests: URLs or ``HTTPRequest`` objects; taken from the iterable as their turn comes.
    :param limit: how many run at a time; the client's own limit holds as well.
    :param client: ``AsyncHTTPClient()`` by default.
    :param options: further arguments of ``fetch``.
    :returns: fires with the responses, in the order of the requests.  The first error ends it: the others are
        cancelled, and it fails with that error.  Cancelling it cancels all.
    """
    if limit < 1:
        raise ValueError(f"at least one at a time, not {limit}")
    fan_out = _FanOut(client or AsyncHTTPClient(), requests, limit, options)
    fan_out.fill()
    return fan_out.done
