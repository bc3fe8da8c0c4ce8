"""What a started program logs, and where: everything to Twisted's log, requests if asked for.

The library logs through the standard library (``cycloneish.access``, ``.application``, ``.general``), as
Tornado does. The commands have Twisted's log set up, so its loggers are joined to that one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from cycloneish.log import access_log, logging_to_twisted

__all__ = ["set_up"]


def set_up(*, requests: bool) -> Callable[[], None]:
    """Join the standard library's logging to Twisted's log, from ``INFO`` on where nobody set a level.

    :param requests: log every request; otherwise those that failed: 4xx are warnings, 5xx errors.
    :returns: a function that undoes it.
    """
    root = logging.getLogger()
    levels = root.level, access_log.level
    if root.level == logging.WARNING:
        root.setLevel(logging.INFO)
    access_log.setLevel(logging.INFO if requests else logging.WARNING)
    disconnect = logging_to_twisted()

    def undo() -> None:
        disconnect()
        root.setLevel(levels[0])
        access_log.setLevel(levels[1])

    return undo
