"""Tests of cycloneish.options."""

from __future__ import annotations

import datetime
import io
import sys
from typing import Any
from unittest import mock

from twisted.trial.unittest import SynchronousTestCase

from cycloneish import options as options_module
from cycloneish.options import Error, OptionParser


class Email:
    """A type of its own, made from text."""

    def __init__(self, value: str) -> None:
        if "@" not in value:
            raise ValueError
        self.value = value


class DefineTests(SynchronousTestCase):
    def test_names_with_dash_and_underscore_are_one(self) -> None:
        for defined in ("a-b", "a_b"):
            parser = OptionParser()
            parser.define(defined, default=1)
            self.assertEqual((parser.a_b, parser["a-b"], parser["a_b"]), (1, 1, 1))
            self.assertIn("a-b", parser)
            self.assertNotIn("b-a", parser)
            self.assertEqual(sorted(parser), [defined, "help"])
            for again in ("a-b", "a_b"):
                with self.assertRaises(Error) as caught:
                    parser.define(again)
                self.assertIn("already defined in " + __file__, str(caught.exception))

    def test_unknown_names_are_attribute_errors(self) -> None:
        parser = OptionParser()
        self.assertFalse(hasattr(parser, "nothing"))
        with self.assertRaises(AttributeError):
            parser.nothing = 1
        with self.assertRaises(Error) as caught:
            parser.define("help")
        self.assertIn("cycloneish.options", str(caught.exception))

    def test_groups(self) -> None:
        parser = OptionParser()
        parser.define("a", default=1)
        parser.define("b", default=2, group="web")
        self.assertEqual(parser.groups(), {"", __file__, "web"})
        self.assertEqual(parser.group_dict("web"), {"b": 2})
        self.assertEqual(parser.group_dict(__file__), {"a": 1})
        self.assertEqual(parser.group_dict(""), parser.as_dict())
        self.assertEqual(parser.as_dict(), {"help": None, "a": 1, "b": 2})
        self.assertEqual(list(parser.items()), [("help", None), ("a", 1), ("b", 2)])

    def test_values_are_checked(self) -> None:
        parser = OptionParser()
        parser.define("n", default=1)
        parser.define("f", default=1.5)
        parser.define("many", type=int, multiple=True)
        parser.n = 2
        parser["f"] = 3
        self.assertEqual((parser.n, parser.f, type(parser.f)), (2, 3.0, float))
        parser.n = None
        parser.many = [1, 2]
        for name, wrong in (("n", "2"), ("many", 1), ("many", ["1"]), ("f", "x")):
            with self.assertRaises(Error) as caught:
                setattr(parser, name, wrong)
            self.assertIn(repr(name), str(caught.exception))

    def test_callback_sees_every_new_value(self) -> None:
        seen: list[Any] = []
        parser = OptionParser()
        parser.define("n", default=1, callback=seen.append)
        parser.n = 2
        parser.parse_command_line(["prog", "--n=3"])
        self.assertEqual(seen, [2, 3])


class CommandLineTests(SynchronousTestCase):
    def parse(self, kind: type, text: str, multiple: bool = False) -> Any:
        parser = OptionParser()
        parser.define("x", type=kind, multiple=multiple)
        parser.parse_command_line(["prog", "--x=" + text])
        return parser.x

    def test_simple_types(self) -> None:
        self.assertEqual(self.parse(str, "a=b,c"), "a=b,c")
        self.assertEqual(self.parse(int, "42"), 42)
        self.assertEqual(self.parse(float, "1.5"), 1.5)
        self.assertEqual(self.parse(Email, "a@b").value, "a@b")

    def test_bool(self) -> None:
        for text in ("true", "1", "yes", "anything"):
            self.assertIs(self.parse(bool, text), True)
        for text in ("false", "False", "0", "f", "no", "off"):
            self.assertIs(self.parse(bool, text), False)

    def test_datetime(self) -> None:
        expected = datetime.datetime(2026, 12, 31, 23, 59)
        texts = (
            "2026-12-31 23:59",
            "2026-12-31 23:59:00",
            "2026-12-31T23:59",
            "2026-12-31T23:59:00",
            "20261231 23:59",
            "20261231 23:59:00",
            "Thu Dec 31 23:59:00 2026",
        )
        for text in texts:
            self.assertEqual(self.parse(datetime.datetime, text), expected, text)
        for text in ("2026-12-31", "20261231"):
            self.assertEqual(self.parse(datetime.datetime, text), datetime.datetime(2026, 12, 31))
        for text in ("23:59", "23:59:00"):
            self.assertEqual(self.parse(datetime.datetime, text).time(), datetime.time(23, 59))

    def test_timedelta(self) -> None:
        cases = {
            "45": 45,
            "45s": 45,
            "1.5 min": 90,
            "1h 30m": 5400,
            "2d": 172800,
            "1w": 604800,
            "250ms": 0.25,
            "5us": 5e-6,
            "-1e2 seconds": -100,
            "2 hours": 7200,
            ".5h": 1800,
            "": 0,
        }
        for text, seconds in cases.items():
            self.assertEqual(self.parse(datetime.timedelta, text).total_seconds(), seconds, text)

    def test_several_values(self) -> None:
        self.assertEqual(self.parse(int, "1,3,5:7", multiple=True), [1, 3, 5, 6, 7])
        self.assertEqual(self.parse(int, "4:", multiple=True), [4])
        self.assertEqual(self.parse(str, "a,b:c", multiple=True), ["a", "b:c"])
        self.assertEqual(self.parse(bool, "t,f", multiple=True), [True, False])
        parser = OptionParser()
        parser.define("x", multiple=True)
        self.assertEqual(parser.x, [])

    def test_unreadable_values_are_named(self) -> None:
        cases: list[tuple[type, str]] = [
            (int, "x"),
            (float, ""),
            (Email, "nobody"),
            (datetime.datetime, "soon"),
            (datetime.timedelta, "3 parsecs"),
            (datetime.timedelta, "long"),
        ]
        for kind, text in cases:
            with self.assertRaises(Error) as caught:
                self.parse(kind, text)
            self.assertIn(f"Option 'x': {text!r} cannot be read as {kind.__name__}", str(caught.exception))

    def test_what_follows_the_options(self) -> None:
        parser = OptionParser()
        parser.define("verbose", default=False)
        parser.define("name", default="")
        for line, rest in (
            (["--verbose", "run", "--fast"], ["run", "--fast"]),
            (["--verbose", "--", "--fast"], ["--fast"]),
            (["-verbose=0"], []),
            ([], []),
        ):
            self.assertEqual(parser.parse_command_line(["prog", *line]), rest)
        self.assertIs(parser.verbose, False)
        with self.assertRaises(Error):
            parser.parse_command_line(["prog", "--name"])

    def test_sys_argv_by_default(self) -> None:
        parser = OptionParser()
        parser.define("n", default=1)
        self.patch(sys, "argv", ["prog", "--n=2", "rest"])
        self.assertEqual(parser.parse_command_line(), ["rest"])
        self.assertEqual(parser.n, 2)

    def test_unknown_option_prints_the_help(self) -> None:
        self.patch(sys, "stderr", io.StringIO())
        with self.assertRaises(Error) as caught:
            OptionParser().parse_command_line(["prog", "--verbos"])
        self.assertIn("'verbos'", str(caught.exception))
        self.assertIn("--help", sys.stderr.getvalue())  # type: ignore[attr-defined]

    def test_parse_callbacks_run_after_the_final_parse(self) -> None:
        calls: list[int] = []
        parser = OptionParser()
        parser.add_parse_callback(lambda: calls.append(1))
        parser.parse_command_line(["prog"], final=False)
        self.assertEqual(calls, [])
        parser.parse_command_line(["prog"])
        parser.parse_command_line(["prog"])
        self.assertEqual(calls, [1, 1])


class HelpTests(SynchronousTestCase):
    def test_help_option_prints_and_exits(self) -> None:
        self.patch(sys, "stderr", io.StringIO())
        with self.assertRaises(SystemExit) as caught:
            OptionParser().parse_command_line(["prog", "--help"])
        self.assertEqual(caught.exception.code, 0)
        self.assertIn("Usage:", sys.stderr.getvalue())  # type: ignore[attr-defined]
        OptionParser().parse_command_line(["prog", "--help=false"])

    def test_layout(self) -> None:
        parser = OptionParser()
        parser.define("my_port", default=80, help="port " * 12, metavar="N")
        parser.define("a_name_that_is_longer_than_the_column", default="", help="long", group="g")
        parser.define("bare", group="g")
        out = io.StringIO()
        parser.print_help(out)
        text = out.getvalue()
        self.assertIn("\n  --my-port=N" + " " * 22 + "port port", text)
        self.assertIn("\n" + " " * 35 + "port", text)
        self.assertIn("(default 80)", text)
        self.assertIn("\ng options:\n", text)
        self.assertIn("\n  --a-name-that-is-longer-than-the-column\n" + " " * 35 + "long\n", text)
        self.assertIn("\n  --bare\n", text)
        self.assertLess(max(map(len, text.splitlines())), 80 + len(__file__))


class ConfigFileTests(SynchronousTestCase):
    def config(self, text: str) -> str:
        path = self.mktemp()
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def parser(self) -> OptionParser:
        parser = OptionParser()
        parser.define("port", default=80)
        parser.define("user-name", default="")
        parser.define("timeout", type=datetime.timedelta)
        parser.define("hosts", multiple=True)
        parser.define("numbers", type=int, multiple=True)
        parser.define("here")
        return parser

    def test_values_and_text(self) -> None:
        parser = self.parser()
        parser.parse_config_file(
            self.config(
                "import datetime\nport = 440 + 3\nuser_name = '李康'\ntimeout = datetime.timedelta(0, 45)\n"
                "hosts = ['a', 'b']\nnumbers = '1:3'\nhere = __file__\nother = 1\n"
            )
        )
        self.assertEqual((parser.port, parser.user_name), (443, "李康"))
        self.assertEqual(parser.timeout.seconds, 45)
        self.assertEqual((parser.hosts, parser.numbers), (["a", "b"], [1, 2, 3]))
        self.assertTrue(parser.here.startswith("/"))
        parser.parse_config_file(self.config("port = '81'\ntimeout = '2m'\nhosts = 'c,d'"))
        self.assertEqual((parser.port, parser.timeout.seconds, parser.hosts), (81, 120, ["c", "d"]))

    def test_wrong_values_are_refused(self) -> None:
        for text in ("port = 1.5", "port = 'x'", "hosts = 3", "numbers = ['1']"):
            with self.assertRaises(Error):
                self.parser().parse_config_file(self.config(text))

    def test_file_between_two_options(self) -> None:
        parser = self.parser()
        parser.define("config", callback=lambda path: parser.parse_config_file(path, final=False))
        calls: list[int] = []
        parser.add_parse_callback(lambda: calls.append(1))
        path = self.config("port = 81\nuser_name = 'file'")
        parser.parse_command_line(["prog", "--port=1", f"--config={path}", "--user-name=line"])
        self.assertEqual((parser.port, parser.user_name, calls), (81, "line", [1]))
        parser.parse_config_file(path)
        self.assertEqual(calls, [1, 1])


class MockTests(SynchronousTestCase):
    def test_patches_and_restores_nested(self) -> None:
        parser = OptionParser()
        parser.define("n", default=1)
        with mock.patch.object(parser.mockable(), "n", 2):
            self.assertEqual(parser.n, 2)
            parser.n = 3
            with mock.patch.object(parser.mockable(), "n", 4):
                self.assertEqual(parser.n, 4)
            self.assertEqual(parser.n, 3)
        self.assertEqual(parser.n, 1)

    def test_one_mockable_patches_a_name_once(self) -> None:
        parser = OptionParser()
        parser.define("n", default=1)
        mockable = parser.mockable()
        mockable.n = 2
        with self.assertRaises(RuntimeError):
            mockable.n = 3


class GlobalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.parser = OptionParser()
        self.patch(options_module, "options", self.parser)

    def test_functions_work_on_the_global_parser(self) -> None:
        calls: list[int] = []
        options_module.define("port", default=80, help="the port", metavar="N")
        options_module.add_parse_callback(lambda: calls.append(1))
        self.assertEqual(options_module.parse_command_line(["prog", "--port=81", "x"]), ["x"])
        path = self.mktemp()
        with open(path, "w") as file:
            file.write("port = self_made = 82")
        self.assertEqual((self.parser.port, calls), (81, [1]))
        options_module.parse_config_file(path, final=False)
        self.assertEqual((self.parser.port, calls), (82, [1]))
        self.assertEqual(self.parser.groups(), {"", __file__})
        out = io.StringIO()
        options_module.print_help(out)
        self.assertIn("--port=N", out.getvalue())


class DefaultOptionsTests(SynchronousTestCase):
    def test_logging_options_are_there(self) -> None:
        self.assertIn("log-file-prefix", options_module.options)
        self.assertEqual(options_module.options.logging, "info")
