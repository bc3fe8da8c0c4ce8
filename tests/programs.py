"""Starts the project's commands as a user does, for tests of whole programs: output, answers, exit status.

Everything here blocks, so it is for tests that run no reactor of their own.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import cycloneish

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "docs" / "examples"
ANSWERS_ON = re.compile(r"answers on (\S+)")
PATIENCE = 60.0


def environment(**more: str) -> dict[str, str]:
    """The environment of a program that finds the package under test, the plugin included."""
    package = str(Path(cycloneish.__file__).parent.parent)
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **more}


def run_command(*arguments: str, program: str = "cycloneish") -> list[str]:
    """The command line of ``cycloneish run`` (or of another interpreter of the same arguments)."""
    if program == "cycloneish":
        return [sys.executable, "-m", "cycloneish", "run", *arguments]
    return [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile=", "cycloneish", *arguments]


class Running:
    """A started program.

    :param command: its command line.
    :param folder: its current directory.
    """

    def __init__(self, command: list[str], folder: Path, **env: str) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(**env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def wait_for(self, pattern: str | re.Pattern[str]) -> re.Match[str]:
        """The match in the next line of output that has one; fails when the program ends or is too slow."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no {pattern!r} within {PATIENCE} s in:\n{self.output}") from None
            if line is None:
                raise AssertionError(f"the program ended without {pattern!r}:\n{self.output}")
            self.output += line
            found = re.search(pattern, line)
            if found:
                return found

    def url(self) -> str:
        """Where it answers, once it says so."""
        return self.wait_for(ANSWERS_ON).group(1)

    def wait(self) -> int:
        """Its exit status; the rest of what it wrote is in :attr:`output` afterwards."""
        assert self.process.stdout is not None
        if self.process.stdout.closed:
            return self.process.wait()
        try:
            status = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"the program did not end:\n{self.output}") from None
        self._reader.join(PATIENCE)
        while (line := self._lines.get(timeout=PATIENCE)) is not None:
            self.output += line
        self.process.stdout.close()
        return status

    def stop(self) -> int:
        """Ask it to end, as systemd would, and give its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.wait()


@contextlib.contextmanager
def running(command: list[str], folder: Path, **env: str) -> Iterator[Running]:
    """A program that is stopped at the end of the block, if it has not ended by then."""
    program = Running(command, folder, **env)
    try:
        yield program
    finally:
        program.stop()


class Visitor:
    """A client that keeps cookies, one connection per request, no redirect followed."""

    def __init__(self, url: str) -> None:
        parts = urllib.parse.urlsplit(url)
        self.host, self.port = parts.hostname or "", parts.port or 0
        self.cookies: dict[str, str] = {}

    def ask(
        self, method: str, path: str, form: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, dict[str, str], str]:
        """Status, headers and text of the answer."""
        headers = {"Connection": "close"}
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        if form is not None:
            body = urllib.parse.urlencode(form).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(self.host, self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
        for cookie in answer.headers.get_all("Set-Cookie") or []:
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer.status, {name.title(): value for name, value in answer.headers.items()}, text

    def get(self, path: str) -> tuple[int, dict[str, str], str]:
        return self.ask("GET", path)
