"""autoreload: what is watched, when the program starts anew, and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
import types
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import cycloneish
import twisted
from cycloneish import autoreload

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(cycloneish.__file__)))


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.restarts: list[bool] = []
        self.patch(autoreload, "restart", lambda: self.restarts.append(True))
        self.patch(autoreload, "_watched_files", set())
        # Files of the test's own, so that an editor elsewhere does not disturb it.
        self.patch(autoreload, "_files", lambda: autoreload._watched_files)
        self.addCleanup(autoreload.stop)
        self.file = os.path.abspath(self.mktemp() + ".py")
        self.write("a = 1")

    def write(self, text: str, seconds: int = 0) -> None:
        with open(self.file, "w") as file:
            file.write(text)
        os.utime(self.file, (seconds + 1000, seconds + 1000))

    def start(self) -> None:
        autoreload.watch(self.file)
        autoreload.start(100, reactor=self.clock)

    def test_a_change_restarts_once(self) -> None:
        self.start()
        self.clock.advance(1)
        self.assertEqual(self.restarts, [])
        self.write("a = 2", 1)
        with self.assertLogs("cycloneish.general", "INFO") as logs:
            self.clock.advance(0.1)
        self.assertEqual(self.restarts, [True])
        self.assertIn("modified; restarting server", logs.output[0])
        self.write("a = 3", 2)
        self.clock.pump([0.1] * 5)
        self.assertEqual(self.restarts, [True])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_syntax_error_keeps_the_old_code_until_it_is_mended(self) -> None:
        self.start()
        self.write("a = (", 1)
        with self.assertLogs("cycloneish.general", "ERROR") as logs:
            self.clock.advance(0.1)
        self.assertIn("the old code keeps running", logs.output[0])
        self.clock.pump([0.1] * 5)
        self.assertEqual(self.restarts, [])
        self.write("a = 3", 2)
        self.clock.advance(0.1)
        self.assertEqual(self.restarts, [True])

    def test_a_file_that_is_away_for_a_moment(self) -> None:
        self.start()
        os.unlink(self.file)
        self.clock.advance(0.1)
        self.write("a = 1")
        self.clock.advance(0.1)
        self.assertEqual(self.restarts, [])

    def test_starting_twice_watches_once(self) -> None:
        self.start()
        self.start()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_a_watcher_calls_back_whoever_asked(self) -> None:
        autoreload.watch(self.file)
        calls: list[str] = []
        watcher = autoreload.Watcher(lambda: calls.append("changed"))
        watcher.start(self.clock)
        self.write("a = 2", 1)
        self.clock.advance(0.5)
        self.assertEqual((calls, self.restarts), (["changed"], []))
        watcher.stop()

    def test_wait_blocks_until_a_change_that_compiles(self) -> None:
        autoreload.watch(self.file)
        texts = ["a = (", "a = (2", "a = (2)"]
        self.patch(autoreload.time, "sleep", lambda _: self.write(texts[0], 10 - len(texts)) or texts.pop(0))
        with self.assertLogs("cycloneish.general", "ERROR"):
            autoreload.wait()
        self.assertEqual((self.restarts, texts), ([True], []))

    def test_the_files_of_a_traceback_are_watched(self) -> None:
        try:
            raise SyntaxError("half a line", (self.file, 1, 1, "x = ("))
        except SyntaxError as error:
            autoreload.watch_traceback(error)
        self.assertEqual(autoreload._watched_files, {self.file, os.path.abspath(__file__)})

    def test_a_relative_name_stays_what_it_was(self) -> None:
        autoreload.watch("here.conf")
        self.assertEqual(autoreload._watched_files, {os.path.abspath("here.conf")})

    def test_files_that_are_no_python_are_not_compiled(self) -> None:
        self.assertIsNone(autoreload._syntax_problem("/no/such/template.html"))
        self.assertIsNone(autoreload._syntax_problem("/no/such/file.py"))


class ProcessTests(SynchronousTestCase):
    def test_modules_are_watched_but_for_installed_ones(self) -> None:
        module = types.ModuleType("odd")
        module.__file__ = "/x/odd.pyc"
        self.patch(sys, "modules", {**sys.modules, "odd": module, "odder": object()})
        files = set(autoreload._files())
        self.assertIn("/x/odd.py", files)
        self.assertIn(os.path.abspath(__file__), files)
        self.assertNotIn(twisted.__file__, files)
        self.assertNotIn(os.__file__, files)

    def test_hooks_run_before_the_program_is_replaced(self) -> None:
        calls: list[Any] = []
        self.patch(autoreload, "_reload_hooks", [])
        self.patch(os, "environ", {})
        autoreload.add_reload_hook(lambda: calls.append("hook"))
        self.patch(os, "execv", lambda program, arguments: calls.append((program, arguments)))
        self.patch(sys, "orig_argv", ["python3", "-X", "dev", "server.py", "--port=1"])
        self.assertFalse(autoreload.was_restarted())
        autoreload.restart()
        arguments = [sys.executable, "-X", "dev", "server.py", "--port=1"]
        self.assertEqual(calls, ["hook", (sys.executable, arguments)])
        self.assertTrue(autoreload.was_restarted())


class CommandTests(SynchronousTestCase):
    """The wrapper, in processes of its own."""

    def setUp(self) -> None:
        self.directory = os.path.abspath(self.mktemp())
        os.makedirs(self.directory)

    def write(self, name: str, text: str) -> None:
        path = os.path.join(self.directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            file.write(textwrap.dedent(text))

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": ROOT, "PYTHONUNBUFFERED": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def run_to_end(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=30)
        return process.returncode, output

    TWICE = """
        import os, sys
        import cycloneish.autoreload
        print(os.path.basename(sys.argv[0]), sys.argv[1:], __name__, flush=True)
        if "AGAIN" not in os.environ:
            os.environ["AGAIN"] = "1"
            cycloneish.autoreload.restart()
        else:
            os._exit(0)
        """

    def test_a_script_is_run_again_with_its_arguments(self) -> None:
        self.write("main.py", self.TWICE)
        expected = "main.py ['one', '--two', '-m'] __main__\n" * 2
        for wrapper in ([], ["-m", "cycloneish.autoreload"]):
            status, output = self.run_to_end(*wrapper, "main.py", "one", "--two", "-m")
            self.assertEqual((status, output), (0, expected), wrapper)

    def test_a_module_is_run_again(self) -> None:
        self.write("pkg/__init__.py", "")
        self.write("pkg/__main__.py", self.TWICE)
        for wrapper in ([], ["-m", "cycloneish.autoreload"]):
            status, output = self.run_to_end(*wrapper, "-m", "pkg", "one")
            self.assertEqual((status, output), (0, "__main__.py ['one'] __main__\n" * 2), wrapper)

    def test_until_success(self) -> None:
        self.write("main.py", "print('done')")
        status, output = self.run_to_end("-m", "cycloneish.autoreload", "--until-success", "main.py")
        self.assertEqual((status, output.splitlines()[0]), (0, "done"))
        self.write("tool.py", "import sys; print('tool'); sys.exit(0)")
        status, output = self.run_to_end("-m", "cycloneish.autoreload", "--until-success", "-m", "tool")
        self.assertEqual((status, output.splitlines()[0]), (0, "tool"))

    def test_nothing_to_run(self) -> None:
        for arguments in ([], ["-m"], ["--what"]):
            status, output = self.run_to_end("-m", "cycloneish.autoreload", *arguments)
            self.assertEqual(status, 1)
            self.assertIn("usage", output)

    def test_a_script_that_cannot_be_imported_waits_for_the_next_change(self) -> None:
        self.write("helper.py", "value = (")
        self.write("main.py", "import helper; print('value', helper.value)")
        process = self.start("-m", "cycloneish.autoreload", "--until-success", "main.py")
        assert process.stdout is not None
        while "SyntaxError" not in (line := process.stdout.readline()):
            self.assertTrue(line, "ended")
        time.sleep(0.7)
        self.assertIsNone(process.poll())
        self.write("helper.py", "value = 5")
        output, _ = process.communicate(timeout=30)
        self.assertIn("value 5", output)
        self.assertEqual(process.returncode, 0)
