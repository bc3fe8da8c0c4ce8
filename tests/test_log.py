"""Tests of cycloneish.log: text safe for logs, the formatter, the set-up, the bridge to twisted.logger."""

from __future__ import annotations

import io
import logging
import logging.handlers
import os
import sys
import unicodedata
from typing import Any
from unittest import mock

from twisted.logger import LogEvent, Logger, LogLevel, LogPublisher, STDLibLogObserver, globalLogPublisher
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from cycloneish import log
from cycloneish.log import (
    LogFormatter,
    LoggingObserver,
    TwistedLogHandler,
    define_logging_options,
    enable_pretty_logging,
    logging_to_twisted,
    safe_log_text,
    twisted_to_logging,
)
from cycloneish.options import OptionParser


class Collector(logging.Handler):
    """Keeps the records it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


def failure(text: str = "broken") -> Failure:
    try:
        raise ValueError(text)
    except ValueError:
        return Failure()


class SafeTextTests(SynchronousTestCase):
    def test_clean_text_is_returned_as_it_is(self) -> None:
        for text in ("", "/path?a=b c", "/schön/日本"):
            self.assertIs(safe_log_text(text), text)

    def test_line_breaks_and_terminal_commands_are_escaped(self) -> None:
        self.assertEqual(
            safe_log_text("/a\r\n[I fake]\x1b[2J\x9b1m\0\x7f"), "/a\\r\\n[I fake]\\x1b[2J\\x9b1m\\x00\\x7f"
        )

    def test_invisible_and_broken_characters_are_escaped(self) -> None:
        self.assertEqual(safe_log_text("a\u202eb\u2028c\udcff"), "a\\u202eb\\u2028c\\udcff")

    def test_nothing_that_controls_gets_through(self) -> None:
        everything = "".join(map(chr, range(0x3100)))
        left = {unicodedata.category(c) for c in safe_log_text(everything)}
        self.assertEqual(left & {"Cc", "Cf", "Cs", "Zl", "Zp"}, set())


class FormatterTests(SynchronousTestCase):
    def record(
        self, msg: Any, *args: Any, level: int = logging.ERROR, exc_info: Any = None
    ) -> logging.LogRecord:
        return logging.LogRecord("name", level, "/x/module.py", 7, msg, args, exc_info)

    def test_shape_of_a_line(self) -> None:
        line = LogFormatter(color=False).format(self.record("hello %s", "you"))
        self.assertRegex(line, r"^\[E \d{6} \d\d:\d\d:\d\d module:7\] hello you$")

    def test_bytes_are_shown_as_bytes(self) -> None:
        self.assertIn("b'\\xe9'", LogFormatter(color=False).format(self.record(b"\xe9")))

    def test_bad_arguments_do_not_raise(self) -> None:
        line = LogFormatter(color=False).format(self.record("%d", "no number"))
        self.assertIn("Bad message", line)
        self.assertIn("no number", line)

    def test_continued_lines_are_indented(self) -> None:
        line = LogFormatter(color=False).format(self.record("a\n[E 261231 00:00:00 x:1] forged"))
        self.assertIn("a\n    [E 261231", line)

    def test_terminal_commands_are_escaped_in_messages_and_tracebacks(self) -> None:
        info = failure("\x1b]0;title\x07")
        record = self.record("\x1b[31mred\r", exc_info=(info.type, info.value, info.getTracebackObject()))
        text = LogFormatter(color=False).format(record)
        self.assertNotIn("\x1b", text)
        self.assertNotIn("\r", text)
        self.assertIn("\\x1b[31mred", text)
        self.assertIn("\n    ValueError: \\x1b]0;title\\x07", text)
        self.assertIn("raise ValueError", text)

    def test_stack_info_is_shown(self) -> None:
        record = self.record("here")
        record.stack_info = "Stack (most recent call last):\n  here"
        self.assertIn("\n    Stack (most", LogFormatter(color=False).format(record))

    def test_colors_only_on_a_terminal(self) -> None:
        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        self.patch(sys, "stderr", Terminal())
        cases: list[tuple[dict[str, str], bool]] = [
            ({"TERM": "xterm"}, True),
            ({"TERM": "dumb"}, False),
            ({"TERM": "xterm", "NO_COLOR": "1"}, False),
        ]
        for environment, colored in cases:
            with mock.patch.dict(os.environ, environment, clear=True):
                line = LogFormatter().format(self.record("x"))
                self.assertEqual(line.startswith("\x1b[31m["), colored)
                self.assertEqual("\x1b[0m x" in line, colored)
                self.assertNotIn("\x1b", LogFormatter(color=False).format(self.record("x")))
        for broken in (None, io.StringIO()):
            self.patch(sys, "stderr", broken)
            with mock.patch.dict(os.environ, {"TERM": "xterm"}, clear=True):
                self.assertNotIn("\x1b", LogFormatter().format(self.record("x")))

    def test_other_styles(self) -> None:
        line = LogFormatter("{levelname} {message}", style="{", color=False).format(self.record("x"))
        self.assertEqual(line, "ERROR x")


class SetupTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.options = OptionParser()
        define_logging_options(self.options)
        self.logger = logging.Logger("setup")
        self.addCleanup(lambda: [handler.close() for handler in self.logger.handlers])

    def test_stderr_by_default(self) -> None:
        enable_pretty_logging(self.options, self.logger)
        self.assertEqual([type(h) for h in self.logger.handlers], [logging.StreamHandler])
        self.assertEqual(self.logger.level, logging.INFO)

    def test_not_twice_to_stderr_unless_asked_for(self) -> None:
        enable_pretty_logging(self.options, self.logger)
        enable_pretty_logging(self.options, self.logger)
        self.assertEqual(len(self.logger.handlers), 1)
        self.options.log_to_stderr = True
        enable_pretty_logging(self.options, self.logger)
        self.assertEqual(len(self.logger.handlers), 2)

    def test_none_leaves_everything_alone(self) -> None:
        for value in ("none", "NONE", None):
            self.options.logging = value
            enable_pretty_logging(self.options, self.logger)
        self.assertEqual((self.logger.handlers, self.logger.level), ([], logging.NOTSET))

    def test_log_files(self) -> None:
        for mode, kind in (
            ("size", logging.handlers.RotatingFileHandler),
            ("time", logging.handlers.TimedRotatingFileHandler),
        ):
            path = self.mktemp()
            logger = logging.Logger("file")
            self.options.log_file_prefix = path
            self.options.log_rotate_mode = mode
            enable_pretty_logging(self.options, logger)
            self.assertEqual([type(h) for h in logger.handlers], [kind])
            logger.error("schön")
            logger.handlers[0].close()
            with open(path, encoding="utf-8") as file:
                self.assertRegex(file.read(), r"^\[E [^]]*\] schön\n$")

    def test_unknown_mode_is_refused(self) -> None:
        self.options.log_file_prefix = self.mktemp()
        self.options.log_rotate_mode = "weekly"
        with self.assertRaises(ValueError) as caught:
            enable_pretty_logging(self.options, self.logger)
        self.assertIn("weekly", str(caught.exception))

    def test_parsing_sets_the_root_logger_up(self) -> None:
        root = logging.getLogger()
        self.patch(root, "handlers", [])
        self.addCleanup(root.setLevel, root.level)
        self.options.parse_command_line(["prog", "--logging=warning"])
        self.assertEqual((len(root.handlers), root.level), (1, logging.WARNING))

    def test_without_options_the_defaults_hold(self) -> None:
        self.patch(log, "_global_options", None)
        enable_pretty_logging(logger=self.logger)
        self.assertEqual((len(self.logger.handlers), self.logger.level), (1, logging.INFO))
        with self.assertRaises(RuntimeError):
            define_logging_options()

    def test_global_options_have_the_logging_options(self) -> None:
        parser = OptionParser()
        self.patch(log, "_global_options", None)
        log.set_global_options(parser)
        define_logging_options()
        self.assertEqual(parser.log_file_num_backups, 10)
        parser.logging = "debug"
        enable_pretty_logging(logger=self.logger)
        self.assertEqual(self.logger.level, logging.DEBUG)

    def test_loggers(self) -> None:
        names = [logger.name for logger in (log.access_log, log.app_log, log.gen_log)]
        self.assertEqual(names, ["cycloneish.access", "cycloneish.application", "cycloneish.general"])


class TwistedToLoggingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.collector = Collector()
        self.logger = logging.getLogger("cycloneish_test.bridge")
        self.logger.propagate = False
        self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self.collector)
        self.addCleanup(self.logger.removeHandler, self.collector)
        self.publisher = LogPublisher(LoggingObserver())
        self.source = Logger("cycloneish_test.bridge", observer=self.publisher)

    def test_levels_text_place_and_time(self) -> None:
        for level in (LogLevel.info, LogLevel.warn, LogLevel.error, LogLevel.critical):
            self.source.emit(level, "at {where} 100%s", where="home")
        records = self.collector.records
        self.assertEqual([r.levelname for r in records], ["INFO", "WARNING", "ERROR", "CRITICAL"])
        first: Any = records[0]
        self.assertEqual(first.getMessage(), "at home 100%s")
        self.assertEqual((first.name, first.module), ("cycloneish_test.bridge", "bridge"))
        self.assertEqual(first.created, first.twisted_event["log_time"])

    def test_what_the_logger_does_not_want_is_left_out(self) -> None:
        self.source.debug("unwanted")
        self.assertEqual(self.collector.records, [])

    def test_failures_keep_their_traceback(self) -> None:
        self.source.failure("while {what}", failure(), what="trying")
        (record,) = self.collector.records
        text = LogFormatter(color=False).format(record)
        self.assertIn("while trying", text)
        self.assertIn("raise ValueError(text)", text)
        self.assertEqual(text.count("ValueError: broken"), 1)

    def test_older_events_do_not_show_the_traceback_twice(self) -> None:
        event: LogEvent = {
            "log_level": LogLevel.critical,
            "log_namespace": "cycloneish_test.bridge",
            "log_failure": failure(),
            "log_format": "{log_text}",
            "log_text": "why\nTraceback ...",
            "isError": 1,
            "why": "why",
        }
        self.publisher(event)
        event["why"] = None
        self.publisher(event)
        self.assertEqual([r.getMessage() for r in self.collector.records], ["why", "Unhandled Error"])

    def test_events_without_anything(self) -> None:
        self.publisher({})
        self.publisher({"log_namespace": "cycloneish_test.bridge", "log_format": "x"})
        self.assertEqual([r.levelname for r in self.collector.records], ["INFO"])

    def test_installed_and_removed(self) -> None:
        undo = twisted_to_logging(self.publisher)
        self.source.info("twice")
        undo()
        self.source.info("once")
        self.assertEqual([r.getMessage() for r in self.collector.records], ["twice", "twice", "once"])

    def test_global_publisher(self) -> None:
        undo = twisted_to_logging()
        Logger("cycloneish_test.bridge").warn("global")
        undo()
        Logger("cycloneish_test.bridge").warn("no more")
        self.assertEqual([r.getMessage() for r in self.collector.records], ["global"])


class LoggingToTwistedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.events: list[LogEvent] = []
        self.publisher = LogPublisher(self.events.append)
        self.logger = logging.Logger("cycloneish_test.other")
        self.undo = logging_to_twisted(self.logger, publisher=self.publisher)

    def test_levels_text_namespace_and_time(self) -> None:
        for level in (5, logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL, 60):
            self.logger.log(level, "100%% of {braces} in %s", level)
        expected = ["debug", "debug", "info", "warn", "error", "critical", "critical"]
        self.assertEqual([e["log_level"].name for e in self.events], expected)
        event = self.events[2]
        self.assertEqual(event["log_text"], "100% of {braces} in 20")
        self.assertEqual(event["log_namespace"], "cycloneish_test.other")
        self.assertEqual(event["log_time"], event["log_record"].created)

    def test_exceptions_become_failures_with_traceback(self) -> None:
        try:
            raise ValueError("broken")
        except ValueError:
            self.logger.exception("caught")
        found = self.events[0]["log_failure"]
        self.assertIs(found.type, ValueError)
        self.assertIn("test_exceptions_become", found.getTraceback())

    def test_exc_info_without_an_exception(self) -> None:
        self.logger.error("x", exc_info=True)
        self.assertNotIn("log_failure", self.events[0])

    def test_undone(self) -> None:
        self.undo()
        self.logger.error("x")
        self.assertEqual(self.events, [])

    def test_level(self) -> None:
        self.undo()
        logging_to_twisted(self.logger, logging.ERROR, self.publisher)
        self.logger.warning("no")
        self.logger.error("yes")
        self.assertEqual([e["log_text"] for e in self.events], ["yes"])

    def test_bad_arguments_do_not_raise(self) -> None:
        self.patch(logging, "raiseExceptions", False)
        self.logger.error("%d", "no number")
        self.logger.error("still there")
        self.assertEqual([e["log_text"] for e in self.events], ["still there"])

    def test_defaults_are_root_logger_and_global_publisher(self) -> None:
        undo = logging_to_twisted()
        handler = logging.getLogger().handlers[-1]
        self.assertIsInstance(handler, TwistedLogHandler)
        globalLogPublisher.addObserver(self.events.append)
        self.addCleanup(globalLogPublisher.removeObserver, self.events.append)
        logging.getLogger("cycloneish_test.root").warning("to twisted")
        undo()
        self.assertNotIn(handler, logging.getLogger().handlers)
        self.assertEqual([e["log_text"] for e in self.events], ["to twisted"])


class NoCircleTests(SynchronousTestCase):
    """Both directions at once, in each order: every message arrives once on each side."""

    def connect(self, observer: Any) -> None:
        self.collector = Collector()
        self.events: list[LogEvent] = []
        self.logger = logging.getLogger("cycloneish_test.circle")
        self.logger.propagate = False
        self.logger.setLevel(logging.DEBUG)
        self.publisher = LogPublisher(self.events.append, observer)
        self.handler = TwistedLogHandler(publisher=self.publisher)
        for handler in (self.collector, self.handler):
            self.logger.addHandler(handler)
            self.addCleanup(self.logger.removeHandler, handler)

    def test_both_directions(self) -> None:
        self.connect(LoggingObserver())
        self.logger.warning("from logging")
        Logger("cycloneish_test.circle", observer=self.publisher).warn("from twisted")
        self.assertEqual([r.getMessage() for r in self.collector.records], ["from logging", "from twisted"])
        texts = [e.get("log_text") or e["log_format"] for e in self.events]
        self.assertEqual(texts, ["from logging", "from twisted"])

    def test_with_twisteds_own_observer(self) -> None:
        self.connect(STDLibLogObserver("cycloneish_test.circle"))
        self.logger.warning("from logging")
        self.assertEqual(len(self.events), 1)
