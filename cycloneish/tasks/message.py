"""How a task travels: the headers and the body of Celery's message protocol, version 2.

The body is JSON, ``[args, kwargs, embed]``; all else is in the headers, so that a message can be handed on,
delayed or laid aside without its body being read. Source: Celery's documentation, "Message Protocol".
"""

from __future__ import annotations

import json
import math
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

from .errors import MalformedMessage

__all__ = ["Envelope", "TaskMessage", "as_time", "new_id"]

#: Counts how often the message came back because a worker was lost; no header of Celery's.
REDELIVERIES = "x-redeliveries"
CONTENT_TYPE = "application/json"
HIGHEST_PRIORITY = 9


@dataclass(slots=True)
class Envelope:
    """A message as a transport sees it.

    :ivar id: the task's id, for AMQP's ``correlation_id``.
    :ivar headers: strings, numbers, booleans, None, lists and dicts.
    :ivar priority: 0 to 9, higher ones first.
    """

    id: str
    headers: dict[str, Any]
    body: bytes
    priority: int = 0

    def with_headers(self, **headers: Any) -> Envelope:
        """A copy with other headers."""
        return replace(self, headers={**self.headers, **headers})


@dataclass(slots=True)
class TaskMessage:
    """A call of a task.

    :ivar task: the task's name.
    :ivar eta: when to run it, in seconds since 1970; None for at once.
    :ivar expires: when it is not worth running any more, in seconds since 1970.
    :ivar retries: how often it was tried again.
    :ivar root_id: the first of the tasks that led to this one; its own id if it is the first.
    :ivar parent_id: the task that sent this one.
    :ivar time_limit: seconds that it may take, where the sender says so.
    :ivar redeliveries: how often it came back from lost workers.
    """

    task: str
    id: str
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    eta: float | None = None
    expires: float | None = None
    retries: int = 0
    root_id: str | None = None
    parent_id: str | None = None
    time_limit: float | None = None
    priority: int = 0
    redeliveries: int = 0
    embed: dict[str, Any] = field(default_factory=dict)

    def envelope(self, *, show_arguments: bool = False) -> Envelope:
        """The message for a transport.

        :param show_arguments: have the arguments in the headers, too, where tools show them.
        :raises TypeError: for arguments that JSON cannot say.
        :raises ValueError: for NaN, infinity, a circle.
        """
        body = _to_json([list(self.args), dict(self.kwargs), {**_NOTHING_EMBEDDED, **self.embed}])
        headers: dict[str, Any] = {
            "lang": "py",
            "task": self.task,
            "id": self.id,
            "root_id": self.root_id or self.id,
            "parent_id": self.parent_id,
            "group": None,
            "retries": self.retries,
            "eta": _to_iso(self.eta),
            "expires": _to_iso(self.expires),
            "timelimit": [self.time_limit, None],
            "argsrepr": repr(tuple(self.args)) if show_arguments else None,
            "kwargsrepr": repr(dict(self.kwargs)) if show_arguments else None,
            "origin": _origin(os.getpid()),
        }
        if self.redeliveries:
            headers[REDELIVERIES] = self.redeliveries
        return Envelope(self.id, headers, body.encode("ascii"), self.priority)

    @classmethod
    def parse(cls, envelope: Envelope) -> TaskMessage:
        """The call in a message.

        :raises MalformedMessage: when it is none.
        """
        headers = envelope.headers
        try:
            args, kwargs, embed = json.loads(envelope.body)
        except (ValueError, TypeError, RecursionError) as error:
            raise MalformedMessage(f"the body is not [args, kwargs, embed] in JSON: {error}") from None
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise MalformedMessage("the body is not [args, kwargs, embed] in JSON")
        name, number = headers.get("task"), headers.get("id")
        if not isinstance(name, str) or not isinstance(number, str):
            raise MalformedMessage("the headers 'task' and 'id' are missing")
        limits = headers.get("timelimit")
        return cls(
            task=name,
            id=number,
            args=args,
            kwargs=kwargs,
            eta=_from_iso(headers.get("eta")),
            expires=_from_iso(headers.get("expires")),
            retries=_count(headers.get("retries")),
            root_id=_text(headers.get("root_id")),
            parent_id=_text(headers.get("parent_id")),
            time_limit=_seconds(limits[0]) if isinstance(limits, list) and limits else None,
            priority=envelope.priority,
            redeliveries=_count(headers.get(REDELIVERIES)),
            embed=embed if isinstance(embed, dict) else {},
        )


_NOTHING_EMBEDDED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_to_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def new_id() -> str:
    """An id for a task, unlike all others."""
    return str(uuid.uuid4())


def as_time(value: float | datetime, name: str) -> float:
    """Seconds since 1970.

    :param value: these, or a `datetime`; one without a time zone is in UTC.
    :raises TypeError: for anything else.
    """
    if isinstance(value, datetime):
        return (value if value.tzinfo is not None else value.replace(tzinfo=UTC)).timestamp()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{name} is a datetime or a number of seconds since 1970, not {value!r}")
    return float(value)


@cache
def _origin(pid: int) -> str:
    return f"{pid}@{socket.gethostname()}"


def _to_iso(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def _from_iso(text: object) -> float | None:
    if text is None:
        return None
    try:
        return as_time(datetime.fromisoformat(text), "a time")  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        raise MalformedMessage(f"no time in ISO 8601: {text!r:.60}") from None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value >= 0 else 0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and value > 0 else None
