"""`twistd` in the background: relative names, the pid file, and a request in flight when SIGTERM comes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from cycloneish.service.options import RunOptions
from tests.programs import PATIENCE, environment

APP = """
from pathlib import Path

from twisted.application.service import Service
from twisted.internet import reactor
from twisted.internet.task import deferLater

from cycloneish.options import define, options
from cycloneish.web import Application, RequestHandler

define("greeting", default="hello")

class Main(RequestHandler):
    async def get(self):
        Path("asked").touch()
        await deferLater(reactor, 0.5)
        self.write(options.greeting + (" served" if self.application.service.running else " too late"))

class Work(Service):
    def stopService(self):
        super().stopService()
        Path("stopped").touch()

def make_app():
    app = Application([("/", Main)])
    app.service = Work()
    return app
"""


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for *condition*."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {PATIENCE:g} s: {what}")
        time.sleep(0.02)


class DaemonTest(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.work = self.folder / "work"
        self.work.mkdir(parents=True)
        (self.folder / "greeter.py").write_text(APP)
        (self.folder / "settings.conf").write_text("greeting = 'good day'\n")

    def twistd(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(Path(sys.executable).with_name("twistd")), *arguments],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )

    def kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def test_names_are_those_of_where_it_was_started_and_a_request_in_flight_is_answered(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        started = self.twistd(
            *("--rundir", "work", "--pidfile", "d.pid", "--logfile", "d.log", "cycloneish"),
            *("--app", "greeter:make_app", "--config", "settings.conf"),
            *("--listen", f"tcp:{port}:interface=127.0.0.1"),
        )
        self.assertEqual((started.returncode, started.stdout + started.stderr), (0, ""))
        # Both are twistd's own, which names them before it goes to --rundir.
        log, pidfile = self.folder / "d.log", self.folder / "d.pid"
        until(pidfile.exists, "the pid file")
        pid = int(pidfile.read_text())
        self.addCleanup(self.kill, pid)
        until(lambda: "answers on" in log.read_text(), "the open port")
        answers: list[bytes] = []
        client = threading.Thread(target=lambda: answers.append(ask(port)))
        client.start()
        until((self.work / "asked").exists, "the request")
        self.assertFalse((self.work / "stopped").exists())
        os.kill(pid, signal.SIGTERM)
        client.join(PATIENCE)
        self.assertIn(b" 200 ", answers[0])
        self.assertTrue(answers[0].endswith(b"good day served"), answers[0])
        until(lambda: not pidfile.exists(), "the end")
        self.assertTrue((self.work / "stopped").exists())
        self.assertNotIn("Traceback", log.read_text())

    def test_what_is_known_while_it_starts_is_told_by_the_command(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            endpoint = f"tcp:{taken.getsockname()[1]}:interface=127.0.0.1"
            started = self.twistd(
                *("--pidfile", "d.pid", "--logfile", "d.log", "cycloneish"),
                *("--app", "greeter:make_app", "--listen", endpoint),
            )
        self.assertEqual(started.returncode, 1)
        self.assertIn(f"cannot listen on {endpoint}", started.stdout + started.stderr)
        self.assertFalse((self.folder / "d.pid").exists())

    def test_the_demos_data_is_where_it_was_started(self) -> None:
        # A daemon goes to another directory before the demo is made.
        options = RunOptions()
        options.parseOptions(["--data", "here"])
        self.assertEqual(options.factory_options, {"data": os.path.abspath("here")})


def ask(port: int) -> bytes:
    """All that the server at *port* answers."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        received = b""
        while piece := sock.recv(65536):
            received += piece
        return received
