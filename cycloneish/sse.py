"""Server-sent events: a handler that keeps a response open and sends events to a browser's `EventSource`.

Applications subclass `SSEHandler`. Source of the format: the HTML standard, "Server-sent events".
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Awaitable
from typing import Any, ClassVar, cast

from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from cycloneish.coroutines import is_awaitable
from cycloneish.escape import json_encode
from cycloneish.httputil import HTTPConnection
from cycloneish.iostream import StreamClosedError
from cycloneish.log import app_log
from cycloneish.web.handler import RequestHandler
from cycloneish.web.mount import break_off

__all__ = ["EventLog", "SSEHandler", "format_comment", "format_event"]

_LINE_END = re.compile(r"\r\n|\r|\n")


def format_event(
    message: object, event: str | None = None, eid: str | int | None = None, retry: int | None = None
) -> bytes:
    """Return an event as it goes over the wire.

    :param message: the data: text of any number of lines, bytes of UTF-8, or anything else, which is
        sent as JSON.
    :param event: the type, for `addEventListener`; a browser takes `message` unless given.
    :param eid: the id, which the browser sends back in *Last-Event-ID* when it connects again.
    :param retry: milliseconds that the browser waits before it connects again.
    :raises ValueError: *event* or *eid* has a line end, or *eid* a NUL, or *retry* is no whole number from 0.
    """
    if isinstance(message, bytes):
        message = message.decode()
    text = message if isinstance(message, str) else json_encode(message)
    lines = []
    if event is not None:
        if _LINE_END.search(event):
            raise ValueError(f"the type of an event cannot have a line end: {event!r}")
        lines.append(f"event: {event}\n")
    if eid is not None:
        eid = str(eid)
        if _LINE_END.search(eid) or "\0" in eid:
            raise ValueError(f"the id of an event cannot have a line end or NUL: {eid!r}")
        lines.append(f"id: {eid}\n")
    if retry is not None:
        if isinstance(retry, bool) or not isinstance(retry, int) or retry < 0:
            raise ValueError(f"retry is a whole number of milliseconds from 0, not {retry!r}")
        lines.append(f"retry: {retry}\n")
    lines.extend([f"data: {line}\n" for line in _LINE_END.split(text)])
    lines.append("\n")
    return "".join(lines).encode()


def format_comment(text: str = "") -> bytes:
    """Return a comment, which a browser ignores, as it goes over the wire."""
    return ("".join([f": {line}\n" for line in _LINE_END.split(text)]) + "\n").encode()


class EventLog:
    """The last events of a stream, with ids, for browsers that connect again.

    ::

        log = EventLog()

        class News(SSEHandler):
            def replay(self, last_event_id):
                for event in log.since(last_event_id):
                    self.send_raw(event)

            def bind(self):
                readers.add(self)

        def publish(title):
            event = log.append({"title": title}, event="headline")
            for reader in list(readers):
                reader.send_raw(event)

    :param size: events that are kept.
    """

    def __init__(self, size: int = 1000) -> None:
        self._events: deque[tuple[int, bytes]] = deque(maxlen=size)
        # Ids of another run of the program mean nothing here.
        self._run = f"{int(time.time()):x}"
        self._next = 1

    def append(self, message: object, event: str | None = None) -> bytes:
        """Keep an event; for the parameters see `format_event`.

        :returns: the event as it goes over the wire, for `SSEHandler.send_raw`.
        """
        number = self._next
        self._next += 1
        data = format_event(message, event, f"{self._run}-{number}")
        self._events.append((number, data))
        return data

    def since(self, last_event_id: str | None) -> list[bytes]:
        """The events behind the one of this id; all that are kept, if it is not known or too long ago."""
        run, _, number = (last_event_id or "").partition("-")
        seen = int(number) if run == self._run and number.isascii() and number.isdigit() else 0
        return [data for own, data in self._events if own > seen]


class SSEHandler(RequestHandler):
    """Keeps the response to a GET open and sends events in it.

    ::

        class News(SSEHandler):
            def bind(self):
                newsroom.add(self)

            def unbind(self):
                newsroom.discard(self)

        for reader in list(newsroom):
            reader.send_event({"title": "..."}, event="headline", eid=17)

    `bind` is called when the head of the response is out, `unbind` exactly once when the client is
    gone, `close` was called, or the program stops. An event for a client that is gone is dropped
    quietly.

    `send_event` returns a Deferred that fires when the client has taken the event so far that the next
    may follow; who sends much, waits for it. Of a client that is slower than what it is sent, at most
    `max_buffered` bytes are kept: then the connection is closed, the browser connects again, and says
    in `last_event_id` where it was.

    Counterpart: `cyclone.sse.SSEHandler`, whose `sendEvent` is here as well.
    """

    heartbeat_interval: ClassVar[float | None] = 15.0
    """Seconds after which a comment is sent if no event was: proxies keep the connection then, a dead one is
    noticed. None sends none."""

    max_buffered: ClassVar[int] = 1024 * 1024
    """Bytes of events that may wait for a slow client."""

    retry: ClassVar[int | None] = None
    """Milliseconds that browsers are told to wait before they connect again; None leaves it to them."""

    _closed: Deferred[None] | None = None
    _open = False
    _was_bound = False
    _heartbeat: IDelayedCall | None = None
    _shutdown_trigger: Any = None
    _unsent = 0

    # -- for subclasses ----------------------------------------------------------------------------

    def bind(self) -> Awaitable[None] | None:
        """Override: the client is there, have events sent to it. May be asynchronous."""
        return None

    def unbind(self) -> None:
        """Override: send nothing any more."""

    def replay(self, last_event_id: str) -> Awaitable[None] | None:
        """Override: the browser was connected before, and had the event of this id last; send what it missed.

        Called before `bind`, which waits for it if it is asynchronous. `EventLog` keeps what may be missed.
        """
        return None

    @property
    def last_event_id(self) -> str | None:
        """The id of the last event that the browser has, if it was connected before.

        From the header *Last-Event-ID*, or the argument `lastEventId` of scripts that stand in for a browser.
        None if there is neither.
        """
        last = self.request.headers.get("Last-Event-ID")
        return last if last is not None else self.get_query_argument("lastEventId", None)

    @property
    def is_open(self) -> bool:
        """Whether events can be sent."""
        return self._open

    def send_event(
        self,
        message: object,
        event: str | None = None,
        eid: str | int | None = None,
        retry: int | None = None,
    ) -> Deferred[None]:
        """Send an event; for the parameters see `format_event`.

        :returns: a Deferred that fires when the next event may follow, and at once when the client is gone.
        """
        return self._send(format_event(message, event, eid, retry))

    def sendEvent(
        self,
        message: object,
        event: str | None = None,
        eid: str | int | None = None,
        retry: int | None = None,
    ) -> Deferred[None]:
        """`send_event` under Cyclone's name."""
        return self.send_event(message, event, eid, retry)

    def send_raw(self, data: bytes) -> Deferred[None]:
        """Send an event that `format_event` or an `EventLog` has formatted, for many readers at once."""
        return self._send(data)

    def send_comment(self, text: str = "") -> Deferred[None]:
        """Send something that the browser ignores."""
        return self._send(format_comment(text))

    def close(self) -> None:
        """End the response. A browser connects again after a while, unless it is answered with 204 then."""
        self._end()

    # -- the life of a response --------------------------------------------------------------------

    def set_default_headers(self) -> None:
        """Set the headers that make a response an event stream."""
        self.set_header("Content-Type", "text/event-stream; charset=utf-8")
        self.set_header("Cache-Control", "no-cache, no-transform")
        # nginx would otherwise wait for a buffer to fill.
        self.set_header("X-Accel-Buffering", "no")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Write the error page, which is no event stream."""
        self.set_header("Content-Type", "text/html; charset=UTF-8")
        super().write_error(status_code, **kwargs)

    async def get(self, *args: str, **kwargs: str) -> None:
        """Open the stream and keep it open until the client goes or `close` is called."""
        self._closed = Deferred(self._cancelled)
        self._open = True
        try:
            await self.flush()
            self._reset_heartbeat()
            self._end_with_the_program()
            if self.retry is not None:
                self._send(f"retry: {int(self.retry)}\n\n".encode())
            last = self.last_event_id
            replayed = self.replay(last) if last is not None else None
            if replayed is not None and is_awaitable(replayed):
                await replayed
            if self._open:
                self._was_bound = True
                bound = self.bind()
                if bound is not None and is_awaitable(bound):
                    await bound
            if self._open:
                await self._closed
        except (StreamClosedError, CancelledError):
            pass
        finally:
            self._end()

    def on_connection_close(self, *args: Any, **kwargs: Any) -> None:
        """Notice that the client is gone."""
        self._end()
        self.on_connection_closed(*args, **kwargs)
        super().on_connection_close(*args, **kwargs)

    def on_connection_closed(self, *args: Any, **kwargs: Any) -> None:
        """Override: the client is gone (Cyclone); `unbind` has been called."""

    @property
    def transport(self) -> Any:
        """The transport of the connection (Cyclone); to send, there is `send_event`."""
        return getattr(getattr(self.request.connection, "stream", None), "transport", None)

    def _cancelled(self, _closed: Deferred[None]) -> None:
        self._end()

    def _end(self) -> None:
        if not self._open:
            return
        self._open = False
        if self._heartbeat is not None and self._heartbeat.active():
            self._heartbeat.cancel()
        self._heartbeat = None
        if self._shutdown_trigger is not None:
            trigger, self._shutdown_trigger = self._shutdown_trigger, None
            cast("Any", self._reactor()).removeSystemEventTrigger(trigger)
        if self._was_bound:
            try:
                self.unbind()
            except Exception:
                app_log.error("Uncaught exception in unbind of %r", self.request, exc_info=True)
        closed = self._closed
        if closed is not None and not closed.called:
            closed.callback(None)

    # -- sending -----------------------------------------------------------------------------------

    def _send(self, data: bytes) -> Deferred[None]:
        if not self._open:
            return succeed(None)
        if self._unsent and self._unsent + len(data) > self.max_buffered:
            app_log.info("closing an event stream: its client is too slow (%s)", self.request.remote_ip)
            self._break_off()
            return succeed(None)
        self._reset_heartbeat()
        self.write(data)
        flushed = self.flush()
        if flushed.called:
            return succeed(None)
        self._unsent += len(data)
        taken: Deferred[None] = Deferred()

        def done(_result: object) -> None:
            self._unsent -= len(data)
            if not taken.called:
                taken.callback(None)

        flushed.addBoth(done)
        return taken

    def _break_off(self) -> None:
        # Not by `finish`: what is buffered would still have to go out first.
        self._end()
        break_off(cast("HTTPConnection", self.request.connection))

    # -- time --------------------------------------------------------------------------------------

    def _reactor(self) -> IReactorTime:
        reactor = self.settings.get("reactor")
        if reactor is None:
            from twisted.internet import reactor
        return cast("IReactorTime", reactor)

    def _reset_heartbeat(self) -> None:
        interval = self.heartbeat_interval
        if not interval:
            return
        if self._heartbeat is not None and self._heartbeat.active():
            self._heartbeat.reset(interval)
        elif self._open:
            self._heartbeat = self._reactor().callLater(interval, self._beat)

    def _beat(self) -> None:
        self._heartbeat = None
        self._reset_heartbeat()
        self.send_comment()

    def _end_with_the_program(self) -> None:
        # An open stream would keep a stopping server waiting for its end.
        add_trigger = getattr(self._reactor(), "addSystemEventTrigger", None)
        if add_trigger is not None:
            self._shutdown_trigger = add_trigger("before", "shutdown", self.close)
