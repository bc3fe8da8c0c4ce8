"""Logging: the three loggers, the formatter of Tornado's look, and the bridge to ``twisted.logger``.

Everything in the package logs through the standard library's loggers here: ``access_log`` has a line per
request, ``app_log`` what application code did not catch, ``gen_log`` everything else. `cycloneish.options`
sets them up from the command line; the ``twistd`` plugin connects them with Twisted's log. The names are
those of Tornado's ``tornado.log``; the bridge is ours.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Literal

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    formatEvent,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = [
    "LogFormatter",
    "LoggingObserver",
    "TwistedLogHandler",
    "access_log",
    "app_log",
    "define_logging_options",
    "enable_pretty_logging",
    "gen_log",
    "logging_to_twisted",
    "safe_log_text",
    "set_global_options",
    "twisted_to_logging",
]

access_log = logging.getLogger("cycloneish.access")
app_log = logging.getLogger("cycloneish.application")
gen_log = logging.getLogger("cycloneish.general")

#: A package that colours old Windows consoles; not used here, but Tornado has the name.
colorama: Any = None


# ------------------------------------------------------------------ text from strangers


def safe_log_text(text: str) -> str:
    r"""Text from outside, fit for one line of a log: what is not printable is written as an escape.

    Line breaks would forge log lines, and control characters command the terminal of whoever reads them
    (CWE-117, CWE-150). Both, and the invisible characters that turn the direction of writing, become
    ``\n``, ``\x1b``, ``\u202e``. Clean text costs one call.
    """
    if text.isprintable():
        return text
    return _escaped(text, "")


def _escaped(text: str, keep: str) -> str:
    return "".join(
        [c if c in keep or c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text]
    )


def _without_commands(text: str) -> str:
    """A message or traceback without terminal commands; it may have several lines, and tabs in them."""
    return text if text.isprintable() else _escaped(text, "\n\t\xa0")


# ------------------------------------------------------------------ the formatter


def _stderr_has_colors() -> bool:
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "") in ("", "dumb"):
        return False
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):
        # None in a windowless program, or closed.
        return False


class LogFormatter(logging.Formatter):
    """One line per record, with level, time and place, coloured where the terminal has colours.

    :param fmt: the record's format; ``%(color)s`` and ``%(end_color)s`` enclose what is coloured.
    :param datefmt: the format of ``%(asctime)s``, as for `time.strftime`.
    :param style: ``%``, ``{`` or ``$``, as for `logging.Formatter`.
    :param color: colour at all. It is only done when stderr is a terminal, ``TERM`` is not ``dumb`` and
        ``NO_COLOR`` is not set.
    :param colors: ANSI colour numbers (0 to 7) by level.

    Continued lines are indented, so that no message can pretend to be a record of its own, and terminal
    commands in messages and tracebacks are written as escapes. Counterpart: ``tornado.log.LogFormatter``.
    """

    DEFAULT_FORMAT = "%(color)s[%(levelname)1.1s %(asctime)s %(module)s:%(lineno)d]%(end_color)s %(message)s"
    DEFAULT_DATE_FORMAT = "%y%m%d %H:%M:%S"
    DEFAULT_COLORS: Mapping[int, int] = {
        logging.DEBUG: 4,
        logging.INFO: 2,
        logging.WARNING: 3,
        logging.ERROR: 1,
        logging.CRITICAL: 5,
    }

    def __init__(
        self,
        fmt: str = DEFAULT_FORMAT,
        datefmt: str = DEFAULT_DATE_FORMAT,
        style: Literal["%", "{", "$"] = "%",
        color: bool = True,
        colors: Mapping[int, int] = DEFAULT_COLORS,
    ) -> None:
        super().__init__(fmt, datefmt, style)
        self._colors: dict[int, str] = {}
        self._normal = ""
        if color and _stderr_has_colors():
            self._colors = {level: f"\x1b[3{code}m" for level, code in colors.items()}
            self._normal = "\x1b[0m"

    def format(self, record: logging.LogRecord) -> str:
        """The record as text, without an end of line."""
        try:
            message = record.getMessage()
        except Exception as error:  # noqa: BLE001, RUF100  a bad log call must not hide what it was about
            message = f"Bad message ({error!r}): {record.msg!r} with {record.args!r}"
        record.message = _without_commands(message)
        record.asctime = self.formatTime(record, self.datefmt)
        color = self._colors.get(record.levelno, "")
        record.color = color
        record.end_color = self._normal if color else ""
        lines = self.formatMessage(record)
        if record.exc_info and not record.exc_text:
            record.exc_text = self.formatException(record.exc_info)
        if record.exc_text:
            lines = f"{lines.rstrip()}\n{_without_commands(record.exc_text)}"
        if record.stack_info:
            lines = f"{lines.rstrip()}\n{self.formatStack(record.stack_info)}"
        return lines.replace("\n", "\n    ")


# ------------------------------------------------------------------ set-up by options

# The parser behind cycloneish.options, which hands itself in when it is imported: that module is above
# this one and cannot be imported from here.
_global_options: Any = None


def set_global_options(options: Any) -> None:
    """Make ``options`` what `enable_pretty_logging` and `define_logging_options` use when given none."""
    global _global_options
    _global_options = options


class _Defaults:
    """What the options hold when nobody has defined any; the values of `define_logging_options`."""

    logging: str | None = "info"
    log_to_stderr: bool | None = None
    log_file_prefix: str | None = None
    log_file_max_size = 100_000_000
    log_file_num_backups = 10
    log_rotate_when = "midnight"
    log_rotate_interval = 1
    log_rotate_mode = "size"


def _file_handler(options: Any) -> logging.Handler:
    mode = options.log_rotate_mode
    if mode == "size":
        return logging.handlers.RotatingFileHandler(
            options.log_file_prefix,
            maxBytes=options.log_file_max_size,
            backupCount=options.log_file_num_backups,
            encoding="utf-8",
        )
    if mode == "time":
        return logging.handlers.TimedRotatingFileHandler(
            options.log_file_prefix,
            when=options.log_rotate_when,
            interval=options.log_rotate_interval,
            backupCount=options.log_file_num_backups,
            encoding="utf-8",
        )
    raise ValueError(f"log_rotate_mode is 'size' or 'time', not {mode!r}")


def enable_pretty_logging(options: Any = None, logger: logging.Logger | None = None) -> None:
    """Send the log where the options say, in `LogFormatter`'s form.

    :param options: an object with the attributes of `define_logging_options`; by default the global
        options of `cycloneish.options`, or the defaults if those were never imported.
    :param logger: what to set up; by default the root logger.
    :raises ValueError: for an unknown ``log_rotate_mode``.

    ``logging`` being None or ``"none"`` leaves everything as it is.
    """
    if options is None:
        options = _Defaults if _global_options is None else _global_options
    level = options.logging
    if level is None or level.lower() == "none":
        return
    if logger is None:
        logger = logging.getLogger()
    logger.setLevel(level.upper())
    if options.log_file_prefix:
        to_file = _file_handler(options)
        to_file.setFormatter(LogFormatter(color=False))
        logger.addHandler(to_file)
    wanted = options.log_to_stderr
    if wanted or (wanted is None and not logger.handlers):
        to_stderr = logging.StreamHandler()
        to_stderr.setFormatter(LogFormatter())
        logger.addHandler(to_stderr)


def define_logging_options(options: Any = None) -> None:
    """Add the logging options to an option parser; the global one has them already.

    :param options: an ``OptionParser``.
    :raises RuntimeError: without one, when `cycloneish.options` was never imported.

    Once the parser has parsed, it runs `enable_pretty_logging`.
    """
    if options is None:
        options = _global_options
    if options is None:
        raise RuntimeError("import cycloneish.options first, or pass an OptionParser")
    options.define(
        "logging",
        default=_Defaults.logging,
        metavar="debug|info|warning|error|none",
        help="lowest level to log; none leaves Python's logging as it is",
    )
    options.define(
        "log_to_stderr",
        type=bool,
        help="log to stderr, in colour on a terminal; the default is to do so when "
        "no log file is given and nothing else is set up",
    )
    options.define(
        "log_file_prefix",
        type=str,
        metavar="PATH",
        help="log to this file; every process needs one of its own, so put the port into the name",
    )
    options.define(
        "log_file_max_size",
        type=int,
        default=_Defaults.log_file_max_size,
        help="bytes after which a new file is begun",
    )
    options.define(
        "log_file_num_backups",
        type=int,
        default=_Defaults.log_file_num_backups,
        help="how many old files are kept",
    )
    options.define(
        "log_rotate_when",
        type=str,
        default=_Defaults.log_rotate_when,
        help="unit of time after which a new file is begun: S, M, H, D, W0 to W6, midnight",
    )
    options.define(
        "log_rotate_interval",
        type=int,
        default=_Defaults.log_rotate_interval,
        help="how many of these units",
    )
    options.define(
        "log_rotate_mode",
        type=str,
        default=_Defaults.log_rotate_mode,
        metavar="size|time",
        help="begin new files by size or by time",
    )
    options.add_parse_callback(lambda: enable_pretty_logging(options))


# ------------------------------------------------------------------ the bridge to twisted.logger

_LEVEL_TO_STDLIB = {
    LogLevel.debug: logging.DEBUG,
    LogLevel.info: logging.INFO,
    LogLevel.warn: logging.WARNING,
    LogLevel.error: logging.ERROR,
    LogLevel.critical: logging.CRITICAL,
}


def _level_to_twisted(levelno: int) -> Any:
    if levelno >= logging.CRITICAL:
        return LogLevel.critical
    if levelno >= logging.ERROR:
        return LogLevel.error
    if levelno >= logging.WARNING:
        return LogLevel.warn
    return LogLevel.info if levelno >= logging.INFO else LogLevel.debug


@implementer(ILogObserver)
class LoggingObserver:
    """A Twisted log observer that hands every event to the standard library's `logging`.

    The logger is named like the event's namespace (``twisted.internet.protocol``), so levels and handlers
    can be set per package. The record's time is the event's, a `Failure` becomes ``exc_info`` with its
    traceback, and the event itself is the record's attribute ``twisted_event``. Events that came from
    `TwistedLogHandler` are left out.
    """

    def __call__(self, event: LogEvent) -> None:
        if "log_record" in event:
            return
        namespace = str(event.get("log_namespace") or "twisted")
        level = _LEVEL_TO_STDLIB.get(event.get("log_level"), logging.INFO)
        logger = logging.getLogger(namespace)
        if not logger.isEnabledFor(level):
            return
        failure: Failure | None = event.get("log_failure")
        exc_info = None
        if failure is not None and failure.type is not None:
            exc_info = (failure.type, failure.value, failure.getTracebackObject())
        if failure is not None and "isError" in event:
            # The text of an event of the older twisted.python.log has the traceback in it.
            text = str(event.get("why") or "Unhandled Error")
        else:
            text = formatEvent(event)
        record = logger.makeRecord(
            logger.name,
            level,
            # The event does not tell the line; the namespace is at least the module.
            namespace.replace(".", "/") + ".py",
            0,
            # As an argument, for a percent sign in the text means nothing.
            "%s",
            (text,),
            exc_info,  # type: ignore[arg-type]
            extra={"twisted_event": event},
        )
        when = event.get("log_time")
        if when is not None:
            record.created = when
            record.msecs = (when % 1) * 1000
        logger.handle(record)


class TwistedLogHandler(logging.Handler):
    """A `logging` handler that hands every record to a Twisted log publisher.

    :param level: lowest level to hand on.
    :param publisher: by default Twisted's global one.

    The event's namespace is the logger's name, ``exc_info`` becomes ``log_failure`` with its traceback,
    and the record itself is under ``log_record``. Records that came from `LoggingObserver`, and whatever
    is logged by an observer while it is handed an event from here, are left out, so that connecting both
    directions, or Twisted's own ``STDLibLogObserver``, makes no circle.
    """

    _log = Logger()

    def __init__(self, level: int | str = logging.NOTSET, publisher: LogPublisher | None = None) -> None:
        super().__init__(level)
        self._publisher = globalLogPublisher if publisher is None else publisher
        self._busy = threading.local()

    def emit(self, record: logging.LogRecord) -> None:
        """Publish the record as an event (called by `logging`)."""
        if hasattr(record, "twisted_event") or getattr(self._busy, "now", False):
            return
        self._busy.now = True
        try:
            event: dict[str, Any] = {
                "log_logger": self._log,
                "log_level": _level_to_twisted(record.levelno),
                "log_namespace": record.name,
                "log_source": None,
                "log_time": record.created,
                # The text is a field: braces in it must not be taken for a format.
                "log_format": "{log_text}",
                "log_text": record.getMessage(),
                "log_record": record,
            }
            if record.exc_info and record.exc_info[1] is not None:
                kind, error, traceback = record.exc_info
                event["log_failure"] = Failure(error, kind, traceback)
            self._publisher(event)
        except Exception:  # noqa: BLE001, RUF100  as every logging.Handler: a log call does not raise
            self.handleError(record)
        finally:
            self._busy.now = False


def twisted_to_logging(publisher: LogPublisher | None = None) -> Callable[[], None]:
    """Send what Twisted logs to the standard library's `logging`; returns a function that undoes it.

    :param publisher: by default Twisted's global one.
    """
    source = globalLogPublisher if publisher is None else publisher
    observer = LoggingObserver()
    source.addObserver(observer)
    return lambda: source.removeObserver(observer)


def logging_to_twisted(
    logger: logging.Logger | None = None,
    level: int | str = logging.NOTSET,
    publisher: LogPublisher | None = None,
) -> Callable[[], None]:
    """Send what the standard library's `logging` gets to Twisted's log; returns a function that undoes it.

    :param logger: by default the root logger. Its own level still decides what is logged at all.
    :param level: lowest level to send.
    :param publisher: by default Twisted's global one.
    """
    target = logging.getLogger() if logger is None else logger
    handler = TwistedLogHandler(level, publisher)
    target.addHandler(handler)
    return lambda: target.removeHandler(handler)
