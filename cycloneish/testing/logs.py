""":class:`ExpectLog`: a message that a test wants to see in the log, and nobody else."""

from __future__ import annotations

import logging
import re
import warnings
from types import TracebackType

from cycloneish.log import app_log

__all__ = ["ExpectLog"]

_SHOWN = 10


class ExpectLog(logging.Filter):
    """Take expected messages out of a log; fail when none came.

    ::

        with ExpectLog("cycloneish.application", "Uncaught exception"):
            yield self.fetch("/broken")

    :param logger: the logger or its name, ``""`` for the root.
    :param regex: matched at the start of each message; those that match go no further.
    :param required: whether leaving the ``with`` block without a match is an error.
    :param level: match this level alone, and have the logger let it through for as long.
    :raises AssertionError: on leaving, when nothing matched. The error names what was logged instead.

    :ivar matched: number of messages that matched.
    :ivar logged_stack: whether a message had a traceback with it.
    :ivar deprecated_level_matched: number of matches below WARNING although no *level* was given. When there
        are no others, leaving warns: whether such messages are logged at all depends on who runs the test.

    Not for use by several threads at once. Tornado: ``tornado.testing.ExpectLog``.
    """

    def __init__(
        self, logger: logging.Logger | str, regex: str, required: bool = True, level: int | None = None
    ) -> None:
        super().__init__()
        self.logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self.regex = re.compile(regex)
        self.required = required
        self.level = level
        self.matched = 0
        self.deprecated_level_matched = 0
        self.logged_stack = False
        self._others: list[str] = []
        self.orig_level: int | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info:
            self.logged_stack = True
        message = record.getMessage()
        if not self.regex.match(message):
            self._others.append(message)
            return True
        if self.level is None:
            if record.levelno < logging.WARNING:
                self.deprecated_level_matched += 1
        elif record.levelno != self.level:
            app_log.warning(
                "Expected log message %r came with level %s, not %s",
                message,
                record.levelname,
                logging.getLevelName(self.level),
            )
            return True
        self.matched += 1
        return False

    def __enter__(self) -> ExpectLog:
        if self.level is not None and self.level < self.logger.getEffectiveLevel():
            self.orig_level = self.logger.level
            self.logger.setLevel(self.level)
        self.logger.addFilter(self)
        return self

    def __exit__(
        self,
        typ: type[BaseException] | None,
        value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.logger.removeFilter(self)
        if self.orig_level is not None:
            self.logger.setLevel(self.orig_level)
            self.orig_level = None
        if typ is not None or not self.required:
            return
        if not self.matched:
            raise AssertionError(self._what_came_instead())
        if self.deprecated_level_matched >= self.matched:
            warnings.warn(
                "ExpectLog matched below WARNING without a level argument", DeprecationWarning, stacklevel=2
            )

    def _what_came_instead(self) -> str:
        text = (
            "did not get expected log message: "
            f"nothing on {self.logger.name!r} matched {self.regex.pattern!r}"
        )
        if not self._others:
            return f"{text}, and nothing else came"
        shown = "".join(f"\n  {message}" for message in self._others[:_SHOWN])
        more = f"\n  and {len(self._others) - _SHOWN} more" if len(self._others) > _SHOWN else ""
        return f"{text}; what came was{shown}{more}"
