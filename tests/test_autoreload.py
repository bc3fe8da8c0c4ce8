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
from cycloneish import autoreload

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(cycloneish.__file__)))


class WatchTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.reloads: list[bool] = []
        self.patch(autoreload, "_reload", lambda: self.reloads.append(True))
        self.patch(autoreload, "_watched_files", set())
        self.patch(autoreload, "_reload_attempted", False)
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

    def test_a_change_reloads(self) -> None:
        self.start()
        self.clock.advance(1)
        self.assertEqual(self.reloads, [])
        self.write("a = 2", 1)
        with self.assertLogs("cycloneish.general", "INFO") as logs:
            self.clock.advance(0.1)
        self.assertEqual(self.reloads, [True])
        self.assertIn("modified; restarting server", logs.output[0])

    def test_a_syntax_error_keeps_the_old_code_until_it_is_mended(self) -> None:
        self.start()
        self.write("a = (", 1)
        with self.assertLogs("cycloneish.general", "ERROR") as logs:
            self.clock.advance(0.1)
        self.assertIn("not restarting", logs.output[0])
        self.clock.advance(1)
        self.assertEqual(self.reloads, [])
        self.write("a = 3", 2)
        self.clock.advance(0.1)
        self.assertEqual(self.reloads, [True])

    def test_a_file_that_is_away_for_a_moment(self) -> None:
        self.start()
        os.unlink(self.file)
        self.clock.advance(0.1)
        self.write("a = 1")
        self.clock.advance(0.1)
        self.assertEqual(self.reloads, [])

    def test_starting_twice_watches_once(self) -> None:
        self.start()
        self.start()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_nothing_after_a_reload_was_tried(self) -> None:
        self.start()
        self.patch(autoreload, "_reload_attempted", True)
        self.write("a = 2", 1)
        self.clock.advance(0.1)
        self.assertEqual(self.reloads, [])

    def test_wait_blocks_until_a_change(self) -> None:
        autoreload.watch(self.file)

        class ReloadedError(Exception):
            pass

        def reload() -> None:
            raise ReloadedError

        self.patch(autoreload, "_reload", reload)
        self.patch(autoreload.time, "sleep", lambda seconds: self.write("a = 2", 1))
        self.assertRaises(ReloadedError, autoreload.wait)

    def test_files_that_are_no_python_are_not_compiled(self) -> None:
        self.assertIsNone(autoreload._syntax_error("/no/such/template.html"))
        self.assertIsNone(autoreload._syntax_error("/no/such/file.py"))


class ProcessTests(SynchronousTestCase):
    def test_modules_are_watched(self) -> None:
        self.assertIn(autoreload.__file__, autoreload._files())
        module = types.ModuleType("odd")
        module.__file__ = "/x/odd.pyc"
        self.patch(sys, "modules", {**sys.modules, "odd": module, "odder": object()})
        self.assertIn("/x/odd.py", autoreload._files())

    def test_hooks_run_before_the_program_is_replaced(self) -> None:
        calls: list[Any] = []
        self.patch(autoreload, "_reload_hooks", [])
        self.patch(autoreload, "_reload_attempted", False)
        autoreload.add_reload_hook(lambda: calls.append("hook"))
        self.patch(autoreload.os, "execv", lambda program, arguments: calls.append((program, arguments)))
        self.patch(sys, "argv", ["server.py", "--port=1"])
        self.patch(sys.modules["__main__"], "__spec__", None)
        autoreload._reload()
        self.assertEqual(calls, ["hook", (sys.executable, [sys.executable, "server.py", "--port=1"])])

    def test_a_module_is_run_as_a_module_again(self) -> None:
        self.patch(sys, "argv", ["/x/pkg/__main__.py", "a"])
        for name, arguments in [
            ("pkg.__main__", ["-m", "pkg", "a"]),
            ("pkg.tool", ["-m", "pkg.tool", "a"]),
            ("__main__", ["/x/pkg/__main__.py", "a"]),
        ]:
            spec = types.SimpleNamespace(name=name)
            self.patch(sys.modules["__main__"], "__spec__", spec)
            self.assertEqual(autoreload._command_line(), arguments)
        self.patch(autoreload, "_wrapper_argv", ["-m", "pkg", "a"])
        self.assertEqual(autoreload._command_line(), ["-m", "cycloneish.autoreload", "-m", "pkg", "a"])


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
            cycloneish.autoreload._reload()
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
