"""The commands as a user runs them: ``cycloneish run`` and ``twistd -n cycloneish``."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import time
from pathlib import Path

from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

import cycloneish
from cycloneish import cli
from cycloneish.service.options import DEFAULT_APP, DEFAULT_ENDPOINT, RunOptions

from .programs import EXAMPLES, Running, Visitor, run_command, running

FREE_PORT = ("--listen", "tcp:0:interface=127.0.0.1")

APP = """
from cycloneish.options import define, options
from cycloneish.web import Application, RequestHandler

define("greeting", default="hello", type=str)

class Main(RequestHandler):
    def get(self):
        self.write({"greeting": options.greeting, "ip": self.request.remote_ip})

class Broken(RequestHandler):
    def get(self):
        raise ZeroDivisionError("on purpose")

def make_app():
    return Application([(r"/", Main), (r"/broken", Broken)])
"""


class CommandTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.write(APP)

    def write(self, source: str, name: str = "greeter.py") -> None:
        (self.folder / name).write_text(source)

    def start(self, *arguments: str, program: str = "cycloneish") -> Running:
        started = Running(run_command(*arguments, program=program), self.folder)
        self.addCleanup(lambda: started.process.poll() is None and started.stop())
        return started

    def ended(self, *arguments: str, program: str = "cycloneish") -> tuple[int, str]:
        started = self.start(*arguments, program=program)
        return started.wait(), started.output

    def test_both_commands_serve_an_application_until_they_are_told_to_end(self) -> None:
        for program in ("cycloneish", "twistd"):
            started = self.start("--app", "greeter:make_app", *FREE_PORT, program=program)
            status, _, text = Visitor(started.url()).get("/")
            self.assertEqual((status, text), (200, '{"greeting": "hello", "ip": "127.0.0.1"}'))
            self.assertEqual(started.stop(), 0 if program == "cycloneish" else -15, started.output)
            self.assertNotIn("200 GET", started.output)

    def test_every_endpoint_is_listened_on(self) -> None:
        started = self.start("--app", "greeter:make_app", *FREE_PORT, *FREE_PORT)
        urls = {started.url(), started.url()}
        self.assertEqual(len(urls), 2)
        for url in urls:
            self.assertEqual(Visitor(url).get("/")[0], 200)

    def test_what_a_program_consists_of_is_not_looked_through_for_garbage(self) -> None:
        self.write(
            "import gc\n"
            "from cycloneish.web import Application, RequestHandler\n"
            "class Frozen(RequestHandler):\n"
            "    def get(self):\n"
            "        self.write(str(gc.get_freeze_count()))\n"
            "app = Application([('/', Frozen)])\n"
        )
        for program in ("cycloneish", "twistd"):
            started = self.start("--app", "greeter:app", *FREE_PORT, program=program)
            self.assertGreater(int(Visitor(started.url()).get("/")[2]), 10_000)

    def test_a_config_file_sets_the_options_of_the_application(self) -> None:
        self.write("greeting = 'servus'\n", "settings.conf")
        started = self.start("--app", "greeter:make_app", "--config", "settings.conf", *FREE_PORT)
        self.assertIn("servus", Visitor(started.url()).get("/")[2])

    def test_a_wrong_config_file_is_one_line_and_status_1(self) -> None:
        self.write("greeting = 'servus'\nlogging = 7\n", "settings.conf")
        for name in ("settings.conf", "missing.conf"):
            status, output = self.ended("--app", "greeter:make_app", "--config", name)
            self.assertEqual(status, 1)
            self.assertEqual(len(output.splitlines()), 1, output)
            self.assertIn(f"--config {name}", output)

    def test_the_access_log_has_a_line_per_request(self) -> None:
        started = self.start("--app", "greeter:make_app", "--access-log", *FREE_PORT)
        Visitor(started.url()).get("/")
        started.wait_for(r"200 GET / \(127\.0\.0\.1\)")

    def test_failed_requests_are_logged_without_the_access_log_too(self) -> None:
        started = self.start("--app", "greeter:make_app", *FREE_PORT)
        visitor = Visitor(started.url())
        self.assertEqual(visitor.get("/missing")[0], 404)
        status, _, text = visitor.get("/broken")
        self.assertEqual(status, 500)
        self.assertNotIn("ZeroDivisionError", text)
        started.wait_for("404 GET /missing")
        started.wait_for("500 GET /broken")

    def test_xheaders_are_believed_only_where_asked_for(self) -> None:
        for options, address in ((("--xheaders",), "10.1.2.3"), ((), "127.0.0.1")):
            started = self.start("--app", "greeter:make_app", *FREE_PORT, *options)
            visitor = Visitor(started.url())
            with socket.create_connection((visitor.host, visitor.port), 30) as raw:
                raw.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nX-Real-Ip: 10.1.2.3\r\nConnection: close\r\n\r\n")
                answer = b"".join(iter(lambda raw=raw: raw.recv(65536), b""))
            self.assertIn(address.encode(), answer)
            started.stop()

    def test_an_application_that_cannot_be_imported_gives_its_traceback_and_status_1(self) -> None:
        self.write("import nothing_of_this_name\n")
        for program in ("cycloneish", "twistd"):
            status, output = self.ended("--app", "greeter:make_app", program=program)
            self.assertEqual(status, 1, output)
            self.assertIn('greeter.py", line 1', output)
            self.assertIn("ModuleNotFoundError: No module named 'nothing_of_this_name'", output)
            self.assertNotIn("importlib", output)

    def test_a_name_that_is_not_in_the_module_is_one_line_and_status_1(self) -> None:
        status, output = self.ended("--app", "greeter:make_ap")
        self.assertEqual(status, 1)
        self.assertIn("there is no 'make_ap' in greeter", output)
        self.assertNotIn("Traceback", output)

    def test_a_factory_that_fails_gives_its_traceback_and_status_1(self) -> None:
        self.write("async def make_app():\n    raise ZeroDivisionError('on purpose')\n")
        for program in ("cycloneish", "twistd"):
            status, output = self.ended("--app", "greeter:make_app", program=program)
            self.assertEqual(status, 1, output)
            self.assertIn("ZeroDivisionError: on purpose", output)
            self.assertIn('greeter.py", line 2', output)

    def test_a_factory_that_gives_no_application_is_one_line_and_status_1(self) -> None:
        self.write("def make_app():\n    pass\n")
        for program in ("cycloneish", "twistd"):
            status, output = self.ended("--app", "greeter:make_app", program=program)
            self.assertEqual(status, 1, output)
            self.assertIn("greeter:make_app gave None", output)
            self.assertNotIn("Traceback", output)

    def test_a_port_in_use_is_one_line_and_status_1(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            for program in ("cycloneish", "twistd"):
                status, output = self.ended(
                    "--app", "greeter:make_app", "--listen", endpoint, program=program
                )
                self.assertEqual(status, 1, output)
                self.assertEqual(output.count(f"cannot listen on {endpoint}: Address already in use"), 1)
                self.assertNotIn("Traceback", output)

    def test_debug_restarts_on_a_change_and_survives_half_a_line(self) -> None:
        for program in ("cycloneish", "twistd"):
            self.write(APP)
            started = self.start("--app", "greeter:make_app", "--debug", *FREE_PORT, program=program)
            url = started.url()
            self.assertIn("ZeroDivisionError", Visitor(url).get("/broken")[2])
            time.sleep(0.6)
            self.write(APP + "def half(\n")
            started.wait_for("the old code keeps running")
            self.assertIn("hello", Visitor(url).get("/")[2])
            self.write(APP.replace('"hello"', '"changed"') + "import nothing_of_this_name\n")
            started.wait_for("waiting for a file to change")
            time.sleep(0.6)
            self.write(APP.replace('"hello"', '"changed"'))
            self.assertIn("changed", Visitor(started.url()).get("/")[2])
            started.stop()

    def test_every_reactor_serves_and_waits_for_coroutines(self) -> None:
        for reactor in ("asyncio", "select", "poll", "epoll"):
            command = run_command("--app", "with_service:make_app", *FREE_PORT, program="twistd")
            command[2:2] = ["-r", reactor]
            if reactor == "epoll":
                command = [*run_command("--app", "with_service:make_app", *FREE_PORT), "--reactor", reactor]
            with running(command, EXAMPLES) as started:
                status, _, text = Visitor(started.url()).get("/slow")
                self.assertEqual((status, text), (200, '{"running": true}'), reactor)


class CommandLineTest(SynchronousTestCase):
    def run_main(self, *arguments: str) -> tuple[int, str]:
        output = io.StringIO()
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(output):
            try:
                status = cli.main(arguments)
            except SystemExit as leaving:
                status = leaving.code
        return status, output.getvalue()

    def test_without_a_command_it_names_them(self) -> None:
        status, output = self.run_main()
        self.assertEqual(status, 2)
        self.assertIn("run", output.splitlines()[-1])

    def test_version(self) -> None:
        self.assertEqual(self.run_main("--version"), (0, f"cycloneish {cycloneish.version}\n"))

    def test_help_names_every_option(self) -> None:
        status, output = self.run_main("run", "--help")
        self.assertEqual(status, 0)
        options = (
            "--app",
            "--listen",
            "--config",
            "--debug",
            "--access-log",
            "--xheaders",
            "--data",
            "--reactor",
        )
        for option in options:
            self.assertIn(option, output)

    def test_an_unknown_reactor_is_told_with_those_that_there_are(self) -> None:
        status, output = self.run_main("run", "--reactor", "fusion")
        self.assertEqual(status, 2)
        self.assertIn("'fusion'", output)
        self.assertIn("select", output)

    def test_help_and_version_are_those_of_the_command(self) -> None:
        for command, usage_line in (
            ("run", "Usage: cycloneish run [options]"),
            ("migrate-imports", "Usage: cycloneish migrate-imports [--diff | --dry-run] PATH…"),
        ):
            for arguments in ((command, "--help"), (command, "--colour")):
                self.assertEqual(self.run_main(*arguments)[1].splitlines()[0], usage_line)
        self.assertEqual(self.run_main("run", "--version")[1].strip(), f"cycloneish {cycloneish.version}")

    def test_an_unknown_option_is_status_2(self) -> None:
        self.assertEqual(self.run_main("run", "--colour")[0], 2)

    def test_defaults_are_the_demo_on_this_machine_only(self) -> None:
        options = RunOptions()
        options.parseOptions([])
        self.assertEqual(options.app_name, DEFAULT_APP)
        self.assertEqual(options["listen"], [DEFAULT_ENDPOINT])
        self.assertEqual(options.factory_options, {"data": os.path.abspath("roundtable-data")})

    def test_another_application_is_called_without_arguments(self) -> None:
        options = RunOptions()
        options.parseOptions(["--app", "a.b:c", "-l", "tcp:1", "--listen", "tcp:2"])
        self.assertEqual(options.app_name, "a.b:c")
        self.assertEqual(options["listen"], ["tcp:1", "tcp:2"])
        self.assertEqual(options.factory_options, {})

    def test_options_without_a_meaning_are_refused(self) -> None:
        for arguments in (["--app", "a.b"], ["--app", "a:b", "--data", "x"]):
            self.assertRaises(usage.UsageError, RunOptions().parseOptions, arguments)
