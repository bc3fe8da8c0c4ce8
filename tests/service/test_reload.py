"""When a program is started anew, and when its old code rather keeps running."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from types import ModuleType

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import twisted
from cycloneish.service import reload
from cycloneish.service.reload import INTERVAL, FileTimes, Reloader, compile_problem, wait_for_change


class ReloadTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.file = Path(self.mktemp() + ".py").absolute()
        self.write("x = 1\n", 1000)
        # Only this file is looked at: other tests may write modules at any time.
        module = ModuleType("watched_by_a_test")
        module.__file__ = str(self.file)
        self.modules: list[object] = [module]
        self.patch(reload, "loaded_modules", lambda: self.modules)

    def write(self, source: str, modified: float) -> None:
        self.file.write_text(source)
        os.utime(self.file, (modified, modified))

    def reloader(self) -> tuple[Clock, list[str]]:
        clock, restarts = Clock(), []
        reloader = Reloader(lambda: restarts.append("restarted"), clock)
        reloader.start()
        self.addCleanup(reloader.stop)
        return clock, restarts

    def test_nothing_changed_nothing_happens(self) -> None:
        clock, restarts = self.reloader()
        clock.pump([INTERVAL] * 5)
        self.assertEqual(restarts, [])

    def test_a_change_restarts_once(self) -> None:
        clock, restarts = self.reloader()
        self.write("x = 2\n", 1001)
        clock.pump([INTERVAL] * 5)
        self.assertEqual(restarts, ["restarted"])

    def test_half_a_line_keeps_the_old_code_running_until_it_is_whole(self) -> None:
        clock, restarts = self.reloader()
        self.write("x = (\n", 1001)
        with self.assertLogs("cycloneish.general", "ERROR") as logged:
            clock.advance(INTERVAL)
        self.assertIn("the old code keeps running", logged.output[0])
        clock.pump([INTERVAL] * 3)
        self.assertEqual(restarts, [])
        self.write("x = (3)\n", 1002)
        clock.advance(INTERVAL)
        self.assertEqual(restarts, ["restarted"])

    def test_a_file_that_is_gone_for_a_moment_is_no_change(self) -> None:
        clock, restarts = self.reloader()
        self.file.unlink()
        clock.advance(INTERVAL)
        self.write("x = 1\n", 1000)
        clock.advance(INTERVAL)
        self.assertEqual(restarts, [])

    def test_other_files_can_be_watched(self) -> None:
        config = Path(self.mktemp())
        config.write_text("not python at all (\n")
        os.utime(config, (1, 1))
        times = FileTimes([str(config)])
        self.assertEqual(times.changed(), [])
        os.utime(config, (2, 2))
        self.assertEqual(times.changed(), [str(config)])
        self.assertEqual(times.changed(), [])
        self.assertIsNone(compile_problem(str(config)))

    def test_installed_modules_are_not_looked_at(self) -> None:
        self.modules.append(twisted)
        self.assertEqual(list(FileTimes()._files()), [str(self.file)])

    def test_a_file_that_cannot_be_read_compiles(self) -> None:
        self.assertIsNone(compile_problem("/nowhere/at/all.py"))

    def test_waiting_ends_when_a_file_of_the_traceback_changes(self) -> None:
        error = SyntaxError("half a line", (str(self.file), 1, 1, "x = ("))
        slept = []

        def sleep(seconds: float) -> None:
            slept.append(seconds)
            if len(slept) == 3:
                self.write("x = 5\n", 1001)

        self.modules.clear()
        try:
            raise error
        except SyntaxError as caught:
            wait_for_change(caught, sleep)
        self.assertEqual(slept, [INTERVAL] * 3)

    def test_a_restart_is_the_same_command_line_marked_as_restarted(self) -> None:
        ran = []
        self.patch(os, "execv", lambda program, arguments: ran.append((program, arguments)))
        self.patch(os, "environ", {})
        self.assertFalse(reload.was_restarted())
        reload.restart()
        self.assertTrue(reload.was_restarted())
        self.assertEqual(ran, [(sys.executable, [sys.executable, *sys.orig_argv[1:]])])
