"""`RequestHandler`: one object per request, from its head to its last byte.

Made by `cycloneish.web.dispatch`, subclassed by every application. What a handler can do besides living
through a request is in the parts it is put together from: `arguments`, `cookies`, `visitor`, `xsrf`,
`response`, `rendering`.

The life of a request, in the order of the methods below::

    initialize → _begin (method, path arguments, XSRF) → prepare → verb method → finish → on_finish

A handler whose methods return None goes this way in plain calls. As soon as one of them returns an awaitable,
the rest of the way is one coroutine, `_continue`, so that context variables set in an `async def prepare` are
seen in the verb method, and the whole request is one asyncio task on the asyncio reactor.
"""

from __future__ import annotations

import traceback
from asyncio import CancelledError as FutureCancelled
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from inspect import isasyncgen, isgenerator
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionClosed, ConnectionDone
from twisted.python.failure import Failure

from cycloneish import httputil
from cycloneish.coroutines import Running, drive, is_awaitable, run, task_is_cancelling
from cycloneish.escape import json_encode, utf8, xhtml_escape
from cycloneish.http.response import WriteDeferred
from cycloneish.iostream import StreamClosedError
from cycloneish.log import app_log, gen_log, safe_log_text
from cycloneish.web.cyclone import CycloneMixin
from cycloneish.web.database import HandlerSession, give_back
from cycloneish.web.debug import render_debug_page
from cycloneish.web.errors import (
    Finish,
    HTTPAuthenticationRequired,
    HTTPError,
    unwrap,
)
from cycloneish.web.rendering import RenderingMixin
from cycloneish.web.response import ResponseMixin
from cycloneish.web.transforms import OutputTransform
from cycloneish.web.xsrf import SAFE_METHODS

if TYPE_CHECKING:
    from cycloneish.web.application import Application

__all__ = ["RequestHandler"]

_Result = Awaitable[Any] | None
_Verb = Callable[..., _Result]

# How a handler ends whose client is gone. None of it is worth a line in the log.
_OVER = (StreamClosedError, CancelledError, FutureCancelled, ConnectionClosed)
_VERBS = {"GET": "get", "HEAD": "head", "POST": "post", "PUT": "put"}


class RequestHandler(RenderingMixin, ResponseMixin, CycloneMixin):
    """Base of all handlers. Subclasses define `get`, `post` and so on, and override what they need of the
    rest.

    Verb methods, `prepare` and `data_received` may be plain functions, `@inlineCallbacks`, `async def`, or
    return any Deferred or awaitable; when it is done, the response is finished. `initialize`, not `__init__`,
    takes the arguments of the route.

    Counterpart: `tornado.web.RequestHandler`.
    """

    SUPPORTED_METHODS: ClassVar[tuple[str, ...]] = (
        "GET",
        "HEAD",
        "POST",
        "DELETE",
        "PATCH",
        "PUT",
        "OPTIONS",
    )
    """The methods that are answered at all; others get 405."""

    max_body_size: int | None = None
    """Bytes of body, after decompression, that this handler takes; more is answered with 413. None: the
    setting of this name, else the server's limit. A handler that streams its body can also call
    `set_max_body_size` in `prepare`."""

    cancel_on_disconnect: bool | None = None
    """Whether to cancel the handler's Deferred (or task) when the client goes away, and with it the query or
    request it waits for. None: the setting of this name, else False, as work once begun may have to be
    finished."""

    db: Any = HandlerSession()
    """The database session of this request, made when it is first asked for, of the setting `database`. What
    is not committed when the handler is done is rolled back."""

    path_args: list[str]
    """The unnamed groups of the route's pattern."""
    path_kwargs: dict[str, str]
    """The named groups of the route's pattern."""

    # Defaults stand on the class, so that making a handler does not pay for them.
    _stream_request_body: ClassVar[bool] = False
    _transforms: Sequence[OutputTransform] = ()
    _headers_written = False
    _finished = False
    _concluded = False
    _auto_finish = True
    _client_gone = False
    _watching = False
    _running: Running | None = None
    _session: Any = None
    _prepared: Deferred[None] | None = None
    _body_arrived: Deferred[None] | None = None
    _on_conclusion: Callable[[], Any] | None = None
    # What `prepare` has left, or a verb method that does not finish; what comes from the connection later
    # (pieces of the body, its end) is taken in it.
    _context: Context | None = None

    def __init__(self, application: Application, request: httputil.HTTPServerRequest, **kwargs: Any) -> None:
        super().__init__()
        self.application = application
        self.request = request
        self.clear()
        self.initialize(**kwargs)

    # -- what applications override ----------------------------------------------------------------

    def _initialize(self, **kwargs: Any) -> None:
        if kwargs:
            raise TypeError(
                f"the route of {type(self).__name__} has arguments for an initialize() it does not define: "
                f"{', '.join(kwargs)}"
            )

    initialize: Callable[..., None] = _initialize
    """Takes the dictionary of the route as keyword arguments; called first, for every request."""

    def _unimplemented_method(self, *args: str, **kwargs: str) -> Any:
        return self.default(*args, **kwargs)

    head: _Verb = _unimplemented_method
    get: _Verb = _unimplemented_method
    post: _Verb = _unimplemented_method
    delete: _Verb = _unimplemented_method
    patch: _Verb = _unimplemented_method
    put: _Verb = _unimplemented_method
    options: _Verb = _unimplemented_method

    def prepare(self) -> _Result:
        """Called before the verb method, which is left out if this finishes the response."""
        return None

    def data_received(self, chunk: bytes) -> _Result:
        """Takes a piece of the body, with `stream_request_body`. Nothing more is read until it is done."""
        raise NotImplementedError

    def on_finish(self) -> None:
        """Called once, after the response or when the client is gone. For logging and cleaning up."""

    def on_connection_close(self, *args: Any, **kwargs: Any) -> None:
        """Called once if the client closes the connection before the response is complete.

        Only an asynchronous handler can live that long. What it writes from then on is dropped; awaiting
        `flush()` raises `StreamClosedError`.
        """

    # -- the way through ---------------------------------------------------------------------------

    def _execute(self, args: Sequence[bytes], kwargs: dict[str, bytes]) -> None:
        """Answer a request whose body is there."""
        try:
            self._begin(args, kwargs)
            waiting = self.prepare()
            if waiting is not None and not _is_done(waiting):
                self._wait(waiting, preparing=True)
            elif not self._finished:
                self._call_verb()
        except (Exception, FutureCancelled) as error:
            self._handle_request_exception(error)

    def _execute_head(self, args: Sequence[bytes], kwargs: dict[str, bytes]) -> Deferred[None] | None:
        """Begin a request whose body will go to `data_received`; the Deferred fires when it may come."""
        self._watch_connection()
        try:
            self._begin(args, kwargs)
            waiting = self.prepare()
            if waiting is not None and not _is_done(waiting):
                prepared: Deferred[None] = Deferred()
                self._prepared = prepared
                self._body_arrived = Deferred()
                self._wait(waiting, preparing=True)
                return prepared
        except (Exception, FutureCancelled) as error:
            self._handle_request_exception(error)
        self._context = copy_context()
        return None

    def _execute_body(self) -> None:
        """Go on with such a request when the body is complete."""
        arrived = self._body_arrived
        if arrived is not None:
            if not arrived.called:
                arrived.callback(None)
        elif not self._finished:
            try:
                self._call_verb()
            except (Exception, FutureCancelled) as error:
                self._handle_request_exception(error)

    def _receive(self, chunk: bytes) -> Deferred[None] | None:
        """Hand a piece of the body to `data_received`; the Deferred fires when the next one may come."""
        try:
            waiting = self.data_received(chunk)
        except (Exception, FutureCancelled) as error:
            self._handle_request_exception(error)
            return None
        if waiting is None or _is_done(waiting):
            return None
        receiving = drive(self._wait_for_piece(waiting))
        if self._running is None and not receiving.called:
            self._running = receiving
            receiving.addBoth(self._ended)
        return receiving

    async def _wait_for_piece(self, waiting: Awaitable[Any]) -> None:
        try:
            await waiting
        except (Exception, FutureCancelled) as error:
            self._handle_request_exception(error)

    def _begin(self, args: Sequence[bytes], kwargs: dict[str, bytes]) -> None:
        method = self.request.method
        if method not in self.SUPPORTED_METHODS:
            raise HTTPError(405)
        self.path_args = [self.decode_argument(value) for value in args] if args else []
        self.path_kwargs = (
            {name: self.decode_argument(value, name=name) for name, value in kwargs.items()} if kwargs else {}
        )
        if method not in SAFE_METHODS:
            self._cross_origin_protection()

    def _verb(self) -> _Verb:
        method = self.request.method
        return getattr(self, _VERBS.get(method) or method.lower())  # type: ignore[no-any-return]

    def _call_verb(self) -> None:
        waiting = self._verb()(*self.path_args, **self.path_kwargs)
        if waiting is not None and not _is_done(waiting):
            self._wait(waiting, preparing=False)
        elif self._finished:
            pass
        elif self._auto_finish:
            self.finish()
        else:
            self._watch_connection()
            self._context = copy_context()

    def _wait(self, waiting: Awaitable[Any], preparing: bool) -> None:
        """Leave the rest of the way to a coroutine, which waits for what a method returned."""
        if not is_awaitable(waiting):
            method = f"{type(self).__name__}.{'prepare' if preparing else self.request.method.lower()}()"
            if isgenerator(waiting) or isasyncgen(waiting):
                raise TypeError(
                    f"{method} has a yield and is a generator: decorate it with @inlineCallbacks, or make it "
                    "async def with await"
                )
            raise TypeError(
                f"{method} returned {waiting!r:.80}; methods return None or something to wait for, and write "
                "the response"
            )
        self._watch_connection()
        self._context = copy_context()
        running = run(self._continue(waiting, preparing))
        if not running.called:
            self._running = running
            if self._client_gone and self._cancels():
                running.cancel()
        running.addBoth(self._ended)

    async def _continue(self, waiting: Awaitable[Any], preparing: bool) -> None:
        try:
            await waiting
            if preparing:
                self._context = copy_context()
                if self._prepared is not None and self._body_arrived is not None:
                    self._prepared.callback(None)
                    await self._body_arrived
                if self._finished:
                    return
                result = self._verb()(*self.path_args, **self.path_kwargs)
                if result is not None:
                    await result
            if self._auto_finish and not self._finished:
                self.finish()
        except FutureCancelled as error:
            if not task_is_cancelling():  # something it waited for was cancelled: an error like any other
                self._handle_request_exception(error)
                return
            if not self._finished and not self._client_gone:
                self.send_error(500)
            raise
        except Exception as error:
            self._handle_request_exception(error)

    def _ended(self, result: Failure | None) -> None:
        self._running = None
        if self._prepared is not None and not self._prepared.called:
            self._prepared.callback(None)
        if self._client_gone:
            self._own_context().run(self._conclude)
        if self._session is not None and self._concluded:
            give_back(self)
        if isinstance(result, Failure) and not result.check(*_OVER):
            app_log.error("Uncaught exception %s", self._request_summary(), exc_info=result.value)

    # -- the client --------------------------------------------------------------------------------

    def _watch_connection(self) -> None:
        """Ask to hear when the client goes away; not worth it for a handler that never waits."""
        if not self._watching and not self._finished:
            self._watching = True
            self._connection().set_close_callback(self._connection_closed)

    def _connection_closed(self) -> None:
        if self._client_gone or self._finished:
            return
        self._client_gone = True
        self._own_context().run(self._hear_of_close)

    def _own_context(self, otherwise: Context | None = None) -> Context:
        """A context for what comes from the connection: a copy, as code may still run in it."""
        context = self._context or otherwise
        return copy_context() if context is None else context.copy()

    def _hear_of_close(self) -> None:
        try:
            self.on_connection_close()
        except Exception:
            app_log.error(
                "Uncaught exception in on_connection_close %s", self._request_summary(), exc_info=True
            )
        # From here on, for whoever asked the request.
        self.request._request_done(Failure(ConnectionDone()))
        arrived = self._body_arrived
        if arrived is not None and not arrived.called:
            arrived.errback(StreamClosedError())
        if self._running is None:
            # Nobody is at work who could finish it.
            self._conclude()
        elif self._cancels():
            self._running.cancel()

    def _cancels(self) -> bool:
        if self.cancel_on_disconnect is None:
            return bool(self.application.settings.get("cancel_on_disconnect"))
        return self.cancel_on_disconnect

    def notifyFinish(self) -> Deferred[None]:
        """A Deferred that fires after the response, and fails when the client goes away before (Cyclone)."""
        return self.request.notifyFinish()

    def set_max_body_size(self, max_body_size: int) -> None:
        """Raise or lower the limit for the body of this request; to be called in `prepare` of a handler that
        streams it.

        :param max_body_size: bytes, after decompression.
        """
        self._connection().set_max_body_size(max_body_size)

    def _connection(self) -> httputil.HTTPConnection:
        connection = self.request.connection
        if connection is None:
            raise RuntimeError(f"{self.request!r} has no connection to answer on")
        return connection

    # -- output ------------------------------------------------------------------------------------

    def write(self, chunk: str | bytes | dict[str, Any]) -> None:
        """Add to the response; sent with `flush` or `finish`.

        :param chunk: text (sent as UTF-8), bytes, or a dictionary, which is sent as JSON with its content
            type. Lists are refused, as a list of JSON could be read by a script of another site in old
            browsers.
        """
        if self._finished:
            if self._client_gone:
                return
            raise RuntimeError("Cannot write() after finish()")
        if isinstance(chunk, str):
            self._write_buffer.append(chunk.encode())
        elif isinstance(chunk, bytes):
            self._write_buffer.append(chunk)
        elif isinstance(chunk, dict):
            self._write_buffer.append(json_encode(chunk).encode())
            self._headers._values["Content-Type"] = "application/json; charset=UTF-8"
        elif isinstance(chunk, list):
            if self.serialize_lists:
                self._write_buffer.append(json_encode(chunk).encode())
                self._headers._values["Content-Type"] = "application/json; charset=UTF-8"
                return
            raise TypeError(
                "write() does not take lists: put them into a dictionary, as in write({'items': [...]})"
            )
        else:
            raise TypeError(f"write() takes text, bytes and dictionaries, not {type(chunk).__name__}")

    def redirect(self, url: str, permanent: bool = False, status: int | None = None) -> None:
        """Send the client to another URL and finish.

        :param url: absolute, or relative to this one.
        :param permanent: 301 rather than 302.
        :param status: another status of 300 to 399.
        :raises ValueError: *url* has line ends or other control characters.
        """
        if self._headers_written:
            raise RuntimeError("Cannot redirect after headers have been written")
        if status is None:
            status = 301 if permanent else 302
        elif not 300 <= status <= 399:
            raise ValueError(f"{status} is no status of a redirect, which are 300 to 399")
        self.set_status(status)
        self.set_header("Location", utf8(url))
        self.finish()

    def flush(self, include_footers: bool = False) -> Deferred[None]:
        """Send what was written so far, after the head if that is not sent yet.

        :returns: a Deferred that fires when the client (or its kernel) is ready for more. It fails with
            `StreamClosedError` if there is no client any more; to look at it is not needed.
        """
        buffer = self._write_buffer
        chunk = buffer[0] if len(buffer) == 1 else b"".join(buffer)
        self._write_buffer = []
        if self._concluded:
            return _gone()
        request = self.request
        connection = request.connection or self._connection()
        if self._headers_written:
            for transform in self._transforms:
                chunk = transform.transform_chunk(chunk, include_footers)
            if not chunk or request.method == "HEAD":
                return succeed(None)
            return connection.write(chunk)
        self._headers_written = True
        if self.no_keep_alive:
            self._headers._values["Connection"] = "close"
        for transform in self._transforms:
            self._status_code, self._headers, chunk = transform.transform_first_chunk(
                self._status_code, self._headers, chunk, include_footers
            )
        if self._new_cookie is not None:
            for cookie in self._new_cookie.values():
                self.add_header("Set-Cookie", cookie.OutputString())
        return connection.write_headers(
            self._start_line(), self._headers, b"" if request.method == "HEAD" else chunk
        )

    def finish(self, chunk: str | bytes | dict[str, Any] | None = None) -> Deferred[None]:
        """Complete the response.

        A GET or HEAD that is answered with 200 and not flushed before gets an *Etag*, or becomes a 304 if the
        client has the same already.

        :param chunk: to be written before, as by `write`.
        :returns: a Deferred that fires when all is handed to the client; it fails with `StreamClosedError` if
            there is none. To look at it is not needed.
        """
        if self._finished:
            if self._client_gone:
                return _gone()
            raise RuntimeError("finish() called twice")
        if chunk is not None:
            self.write(chunk)
        connection = self.request.connection or self._connection()
        if not self._headers_written:
            self._complete_head()
        if self._watching:
            # Also lets the handler go while the connection is kept alive.
            self._watching = False
            connection.set_close_callback(None)
        sent = self.flush(include_footers=True)
        connection.finish()
        self._finished = True
        self._conclude()
        return sent

    def _complete_head(self) -> None:
        """Add what can be told when the whole body is there: *Etag* and *Content-Length*."""
        values = self._headers._values
        request = self.request
        if self._status_code == 200 and "Etag" not in values and request.method in ("GET", "HEAD"):
            self.set_etag_header()
            if "If-None-Match" in request.headers._values and self.check_etag_header():
                self._write_buffer = []
                self.set_status(304)
        status = self._status_code
        if status in (204, 304) or 100 <= status < 200:
            if self._write_buffer:
                raise RuntimeError(f"Cannot send body with status code HTTP{status}")
            self._clear_representation_headers()
        elif "Content-Length" not in values:
            buffer = self._write_buffer
            values["Content-Length"] = str(len(buffer[0]) if len(buffer) == 1 else sum(map(len, buffer)))

    def _conclude(self) -> None:
        """Do, once, what comes after the response or in place of it."""
        if self._concluded:
            return
        answered = self._finished
        self._concluded = self._finished = True
        try:
            if answered:
                self.request._request_done()
                self._log()
            else:
                # The client may still hold its half of the connection open.
                self._connection().finish()
        except httputil.HTTPOutputError:
            pass  # less than was announced, but nobody is there to miss it
        except Exception:
            app_log.error("Uncaught exception after the response %s", self._request_summary(), exc_info=True)
        try:
            self.on_finish()
        except Exception:
            app_log.error("Uncaught exception in on_finish %s", self._request_summary(), exc_info=True)
        if self._session is not None and self._running is None:
            give_back(self)
        # Bound methods and modules point back here; without them no garbage collector is needed.
        self._ui = self._active_modules = None
        if self._on_conclusion is not None:
            self._on_conclusion()
        if self._body_arrived is not None and not self._body_arrived.called:
            # Answered before the body was there; the coroutine that waits for it has nothing left to do.
            self._body_arrived.callback(None)

    def detach(self) -> Any:
        """Take the transport over, for another protocol. Nothing more happens to this request by itself."""
        self._finished = True
        return self._connection().detach()

    def _log(self) -> None:
        self.application.log_request(self)

    def _request_summary(self) -> str:
        request = self.request
        return f"{request.method} {request.uri} ({request.remote_ip})"

    # -- errors ------------------------------------------------------------------------------------

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Answer with an error page in place of what was written, and finish.

        If the head is sent already, the response is cut off.

        :param kwargs: for `write_error`; `reason` is that of the status line.
        """
        if self._headers_written:
            gen_log.error("Cannot send error response after headers written")
            if not self._finished:
                # The length will be wrong, but the connection has to be let go.
                try:
                    self.finish()
                except Exception:
                    gen_log.error("Failed to flush partial response", exc_info=True)
                    self._conclude()
            return
        self.clear()
        error = kwargs["exc_info"][1] if "exc_info" in kwargs else None
        reason = error.reason if isinstance(error, HTTPError) and error.reason else kwargs.get("reason")
        self.set_status(status_code, reason=reason)
        if isinstance(error, HTTPAuthenticationRequired):
            self.set_header("WWW-Authenticate", error.challenge)
        elif status_code == 405:
            self.set_header("Allow", ", ".join(self._implemented_methods()))
        try:
            if status_code != 304:
                self.write_error(status_code, **kwargs)
        except Exception:
            app_log.error("Uncaught exception in write_error", exc_info=True)
        if not self._finished:
            self.finish()

    def _implemented_methods(self) -> list[str]:
        # RFC 9110, section 15.5.6, wants them named.
        unimplemented = RequestHandler._unimplemented_method
        return [
            method
            for method in self.SUPPORTED_METHODS
            if getattr(type(self), method.lower(), unimplemented) is not unimplemented
        ]

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write the error page; override for another one.

        :param kwargs: `exc_info` is there if an exception was the reason, an `HTTPError` too. It is not the
            one that `sys.exc_info()` returns.
        """
        if status_code in (204, 304) or 100 <= status_code < 200:
            self.finish()
        elif "exc_info" in kwargs and self.application.settings.get("serve_traceback"):
            if "text/html" in self.request.headers.get("Accept", ""):
                self.finish(render_debug_page(self, kwargs["exc_info"]))
            else:
                self.set_header("Content-Type", "text/plain; charset=UTF-8")
                self.finish("".join(traceback.format_exception(*kwargs["exc_info"])))
        else:
            title = f"{status_code}: {xhtml_escape(self._reason)}"
            self.finish(f"<html><title>{title}</title><body>{title}</body></html>")

    def log_exception(
        self, typ: type[BaseException] | None, value: BaseException | None, tb: TracebackType | None
    ) -> None:
        """Log an exception that ended the request; override for another way.

        An `HTTPError` is a warning in one line, if it has a message; everything else an error with its
        traceback.
        """
        if isinstance(value, HTTPError):
            message = value.get_message()
            if message:
                # The message often quotes the request, and not every log has our formatter.
                summary = self._request_summary()
                gen_log.warning("%d %s: %s", value.status_code, summary, safe_log_text(message))
        else:
            app_log.error("Uncaught exception %s\n%r", self._request_summary(), self.request, exc_info=value)

    def _handle_request_exception(self, error: BaseException) -> None:
        error = unwrap(error)
        if self._client_gone and isinstance(error, _OVER):
            self._conclude()
            return
        try:
            if isinstance(error, Finish):
                if not self._finished:
                    self.finish(*error.args)
                return
            exc_info = (type(error), error, error.__traceback__)
            try:
                self.log_exception(*exc_info)
            except Exception:
                app_log.error("Error in exception logger", exc_info=True)
            if not self._finished:
                self.send_error(error.status_code if isinstance(error, HTTPError) else 500, exc_info=exc_info)
        except Exception:
            app_log.error("Exception in exception handler", exc_info=True)
            self._send_bare_error()

    def _send_bare_error(self) -> None:
        """Answer without anything that was overridden, so that the client does not wait for ever."""
        if self._concluded:
            return
        connection = self._connection()
        try:
            if not self._headers_written:
                self._headers_written = True
                self.set_status(500)
                connection.write_headers(
                    self._start_line(), httputil.HTTPHeaders({"Content-Length": "0"}), b""
                )
            connection.finish()
        except Exception:
            gen_log.error("Failed to flush partial response", exc_info=True)
        self._conclude()


def _gone() -> Deferred[None]:
    """Fails with `StreamClosedError`, but only when somebody looks: otherwise there is nothing to log."""
    gone = WriteDeferred()
    gone.lose()
    return gone


def _is_done(waiting: Any) -> bool:
    """Whether *waiting* is a Deferred that has nothing to wait for, so that no coroutine is needed."""
    return (
        isinstance(waiting, Deferred)
        and waiting.called
        and not waiting.paused
        and not isinstance(waiting.result, Failure | Deferred)
    )
