"""What all mixins need: the client, and methods that can be yielded as well as awaited."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, cast

from cycloneish.awaiting import AwaitableDeferred
from cycloneish.coroutines import drive
from cycloneish.httpclient import AsyncHTTPClient
from cycloneish.web import RequestHandler

__all__ = ["ClientMixin", "deferred", "handler_of"]

P = ParamSpec("P")
T = TypeVar("T")


def deferred(method: Callable[P, Awaitable[T]]) -> Callable[P, AwaitableDeferred[T]]:
    """Have an ``async def`` give a Deferred, which ``inlineCallbacks``, ``async def`` and asyncio's tasks
    wait for."""

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> AwaitableDeferred[T]:
        running = drive(method(*args, **kwargs))
        result: AwaitableDeferred[T] = AwaitableDeferred(lambda _: running.cancel())
        running.addBoth(lambda outcome: None if result.called else result.callback(outcome))
        return result

    return wrapper


def handler_of(mixin: object) -> RequestHandler:
    """The handler that a mixin is a part of."""
    return cast(RequestHandler, mixin)


class ClientMixin:
    """Base of the mixins."""

    def get_auth_http_client(self) -> Any:
        """The client that asks the provider; override it to use another one."""
        return AsyncHTTPClient()
