"""``AsyncHTTPClient``, the class that programs name, and ``HTTPClient``, which blocks.

Which class does the work is chosen by ``configure``; there is ``SimpleAsyncHTTPClient``, and whatever a
program brings.
"""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, cast

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.python import threadable
from twisted.python.failure import Failure

from cycloneish.awaiting import AwaitableDeferred
from cycloneish.coroutines import running_loop
from cycloneish.httpclient.request import HTTPRequest, _RequestProxy
from cycloneish.httpclient.response import HTTPResponse
from cycloneish.httputil import HTTPHeaders
from cycloneish.util import Configurable, import_object

__all__ = ["AsyncHTTPClient", "HTTPClient", "close_shared_clients"]


def _global_reactor() -> Any:
    from twisted.internet import reactor

    return reactor


class AsyncHTTPClient(Configurable):
    """A client that does not block.

    ::

        client = AsyncHTTPClient()
        response = await client.fetch("https://example.com/")
        print(response.code, response.body)

    Calling the class gives the one client of the reactor, however often it is called; ``force_instance=True``
    makes one of its own, which is to be closed.  Further arguments are those of the class that ``configure``
    chose, see ``SimpleAsyncHTTPClient``.  Counterpart: ``tornado.httpclient.AsyncHTTPClient``.
    """

    _instance_cache: Any

    @classmethod
    def configurable_base(cls) -> type[Configurable]:
        return AsyncHTTPClient

    @classmethod
    def configurable_default(cls) -> type[Configurable]:
        # Loaded by name when the first client is made: HTTPRequest alone needs no client.
        return cast("type[Configurable]", import_object("cycloneish.httpclient.simple.SimpleAsyncHTTPClient"))

    @classmethod
    def _async_clients(cls) -> Any:
        name = "_async_client_dict_" + cls.__name__
        if name not in vars(cls):
            setattr(cls, name, weakref.WeakKeyDictionary())
        return vars(cls)[name]

    def __new__(cls, force_instance: bool = False, **kwargs: Any) -> AsyncHTTPClient:
        if force_instance:
            instance: AsyncHTTPClient = super().__new__(cls, **kwargs)
            instance._instance_cache = None
            return instance
        key = kwargs.get("reactor") or running_loop() or _global_reactor()
        cache = cls._async_clients()
        cached: AsyncHTTPClient | None = cache.get(key)
        if cached is None:
            cached = super().__new__(cls, **kwargs)
            cached._instance_cache = cache
            cached._cache_key = weakref.ref(key)
            cache[key] = cached
        return cached

    _cache_key: Any = None

    def _initialize(self, defaults: dict[str, Any] | None = None, reactor: Any = None) -> None:
        self.reactor = reactor if reactor is not None else _global_reactor()
        self.defaults = {**HTTPRequest._DEFAULTS, **(defaults or {})}
        self._closed = False

    initialize: Callable[..., None] = _initialize

    def close(self) -> Deferred[None] | None:
        """Close the connections; the client cannot be used afterwards.

        Only a client made with ``force_instance=True`` needs it, and a program that stops its reactor.
        """
        if self._closed:
            return None
        self._closed = True
        if self._instance_cache is not None:
            self._instance_cache.pop(self._cache_key(), None)
        return None

    def fetch(
        self, request: str | HTTPRequest, raise_error: bool = True, **kwargs: Any
    ) -> AwaitableDeferred[HTTPResponse]:
        """Fetch something.

        :param request: a URL, or an ``HTTPRequest``.
        :param raise_error: fail with ``HTTPClientError`` where the status is not one of success; errors that
            leave no response fail in any case.
        :param kwargs: further arguments of ``HTTPRequest``, where a URL is given.
        :returns: fires with the ``HTTPResponse``.  Cancelling it closes the connection.  It fails with
            ``HTTPTimeoutError``, ``HTTPStreamClosedError``, ``OSError`` (``ssl.SSLError``,
            ``socket.gaierror``), or ``ValueError`` for a request that cannot be sent.
        """
        if self._closed:
            raise RuntimeError("fetch() called on closed AsyncHTTPClient")
        if not isinstance(request, HTTPRequest):
            request = HTTPRequest(url=request, **kwargs)
        elif kwargs:
            raise ValueError("kwargs can't be used if request is an HTTPRequest object")
        running: list[Any] = []

        def cancel(_: object) -> None:
            if running and running[0] is not None:
                running[0].cancel()

        deferred: AwaitableDeferred[HTTPResponse] = AwaitableDeferred(cancel)

        def ended(response: HTTPResponse) -> None:
            if deferred.called:
                return
            error = response.error
            if error is not None and (raise_error or not response._error_is_response_code):
                deferred.errback(Failure(error))
            else:
                deferred.callback(response)

        running.append(self.fetch_impl(cast(Any, _RequestProxy(request, self.defaults)), ended))
        return deferred

    def fetch_json(self, request: str | HTTPRequest, **kwargs: Any) -> AwaitableDeferred[Any]:
        """Fetch something that is JSON, and read it.

        The arguments are those of :meth:`fetch`; the request says that it would like JSON.

        :returns: fires with the value.  It fails like :meth:`fetch`, and with ``ValueError`` for what is no
            JSON.
        """
        if not isinstance(request, HTTPRequest):
            raise_error = kwargs.pop("raise_error", True)
            request = HTTPRequest(request, **kwargs)
            kwargs = {"raise_error": raise_error}
        headers = HTTPHeaders(request.headers)
        if "Accept" not in headers:
            headers["Accept"] = "application/json"
            request = copy.copy(request)
            request.headers = headers
        fetching = self.fetch(request, **kwargs)
        return cast("AwaitableDeferred[Any]", fetching.addCallback(HTTPResponse.json))

    def fetch_impl(self, request: HTTPRequest, callback: Callable[[HTTPResponse], None]) -> Any:
        """Do the work; a class that is to be configured overrides this.

        :param request: with the attributes of ``HTTPRequest``, defaults filled in.
        :param callback: to be called with the response, once.
        :returns: None, or something with ``cancel()``.
        """
        raise NotImplementedError


def close_shared_clients() -> Deferred[None]:
    """Close the clients that calling a class has made; the next call makes a new one.

    For tests, after which nothing may be left on the reactor.

    :returns: fires when their idle connections are gone.
    """
    classes: list[type[AsyncHTTPClient]] = [AsyncHTTPClient, *AsyncHTTPClient.__subclasses__()]
    clients = [client for one in classes for client in list(one._async_clients().values())]
    closing = DeferredList([maybeDeferred(client.close) for client in clients], consumeErrors=True)
    return closing.addCallback(lambda _: None)


class HTTPClient:
    """A client that blocks until the response is there.

    For scripts, and for threads: it runs a reactor of its own in a thread of its own, so it works whether or
    not the program's reactor runs.  Called in the reactor's thread it holds up everything else.

    :param async_client_class: does the work; ``AsyncHTTPClient`` by default.
    :param kwargs: further arguments for it.

    Counterpart: ``tornado.httpclient.HTTPClient``.
    """

    def __init__(self, async_client_class: type[AsyncHTTPClient] | None = None, **kwargs: Any) -> None:
        self._class = async_client_class or AsyncHTTPClient
        self._arguments = kwargs
        self._lock = threading.Lock()
        self._client: AsyncHTTPClient | None = None
        self._reactor: Any = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def __enter__(self) -> HTTPClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fetch(self, request: str | HTTPRequest, **kwargs: Any) -> HTTPResponse:
        """Fetch something.

        The arguments, the result and the errors are those of ``AsyncHTTPClient.fetch``.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("fetch() called on closed HTTPClient")
            if self._thread is None:
                self._start()
        result: Future[HTTPResponse] = Future()

        def begin() -> None:
            assert self._client is not None
            fetching = maybeDeferred(self._client.fetch, request, **kwargs)
            fetching.addCallbacks(result.set_result, lambda failure: result.set_exception(failure.value))

        self._reactor.callFromThread(begin)
        return result.result()

    def _start(self) -> None:
        # Not the installed reactor, which is one for the whole process.
        from twisted.internet.selectreactor import SelectReactor

        self._reactor = SelectReactor()
        ready = threading.Event()

        def run() -> None:
            # A reactor that starts says which thread is the one for I/O; the program's own must keep that.
            before = threadable.ioThread

            def running() -> None:
                threadable.ioThread = before
                ready.set()

            self._reactor.callWhenRunning(running)
            self._reactor.run(installSignalHandlers=False)

        self._thread = threading.Thread(target=run, name="cycloneish HTTPClient", daemon=True)
        self._thread.start()
        ready.wait()
        self._client = self._class(force_instance=True, reactor=self._reactor, **self._arguments)

    def close(self) -> None:
        """Close the connections and end the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._reactor.callFromThread(self._stop)
            thread.join(5)

    def _stop(self) -> None:
        if self._client is not None:
            self._client.close()
        self._reactor.stop()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # noqa: S110  (the interpreter is going down)
            pass
