"""Starts the servers, loads them with wrk and reads what they used; called by ``benchmarks.__main__``.

A server runs on one core, the client on another, so that neither takes the other's time. CPU time is read
from ``/proc/PID/stat``, which makes this a Linux program.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.scenarios import Answer, Scenario
from benchmarks.servers import Server

CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
ROOT = Path(__file__).resolve().parent.parent
START_TIMEOUT = 20.0
IDLE_CONNECTIONS = 5000

WRK_SCRIPT = """
local function contents(path)
  local file = assert(io.open(path, "rb"))
  local data = file:read("*a")
  file:close()
  return data
end
local bytes = contents("%(request)s")
request = function() return bytes end
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\nRESULT {"requests": %%d, "microseconds": %%d, "bytes": %%.0f, "p50": %%d, "p99": %%d, ' ..
    '"errors": %%d, "bad_status": %%d}\\n',
    summary.requests, summary.duration, summary.bytes, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.timeout, e.status))
end
"""


class BenchmarkError(Exception):
    """A server could not be started or gave a wrong answer; the text says which and why."""


@dataclass(frozen=True)
class Cores:
    """The CPU core of the server and that of the client."""

    server: int
    client: int


@dataclass(frozen=True)
class Sample:
    """One round of one server.

    ``value`` is what the scenario is about (``unit``); ``cpu`` is server CPU time in microseconds for each
    request, where requests were counted; ``p99`` the 99th percentile of the answer time in milliseconds;
    ``errors`` what wrk could not finish or got with a bad status.
    """

    value: float
    unit: str
    cpu: float | None = None
    p99: float | None = None
    errors: int = 0


def pin_to(core: int) -> Callable[[], None]:
    """What ``preexec_fn`` calls to keep a child on one core."""
    return lambda: os.sched_setaffinity(0, {core})


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


class Running:
    """A started server."""

    def __init__(self, server: Server, cores: Cores) -> None:
        self.server = server
        self.port = free_port()
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [sys.executable, "-m", f"benchmarks.servers.{server.module}", str(self.port), *server.arguments],
            cwd=ROOT,
            preexec_fn=pin_to(cores.server),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        self.ready_after = self._wait()

    def _wait(self) -> float:
        """Poll until the port answers; returns the seconds that took."""
        while time.monotonic() - self.started < START_TIMEOUT:
            if self.process.poll() is not None:
                break
            try:
                answer = self.fetch("GET", "/")
            except OSError:
                time.sleep(0.002)
                continue
            if answer.status == 200:
                return time.monotonic() - self.started
        self.stop()
        assert self.process.stderr is not None
        tail = self.process.stderr.read().decode(errors="replace").strip()[-2000:]
        raise BenchmarkError(f"{self.server.name} does not answer:\n{tail}")

    def fetch(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body or None, headers or {})
            response = connection.getresponse()
            named = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, named, response.read())
        finally:
            connection.close()

    def cpu_seconds(self) -> float:
        """User and system time of the process so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def resident_bytes(self) -> int:
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_SIZE

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def running(server: Server, cores: Cores) -> Iterator[Running]:
    """A started server, stopped at the end."""
    started = Running(server, cores)
    try:
        yield started
    finally:
        started.stop()


def request_headers(scenario: Scenario, server: Running) -> dict[str, str]:
    """The headers that every request of ``scenario`` has, and the check that the answer is right."""
    headers = dict(scenario.headers)
    if scenario.first_path is not None and scenario.headers_from is not None:
        headers.update(scenario.headers_from(server.fetch("GET", scenario.first_path)))
    answer = server.fetch(scenario.method, scenario.path, headers, scenario.body)
    if not scenario.check(answer):
        raise BenchmarkError(
            f"{server.server.name} answers {scenario.name!r} wrongly: {answer.status} {answer.body[:200]!r}"
        )
    return headers


def request_bytes(scenario: Scenario, headers: dict[str, str]) -> bytes:
    lines = [f"{scenario.method} {scenario.path} HTTP/1.1", "Host: 127.0.0.1"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if scenario.body:
        lines.append(f"Content-Length: {len(scenario.body)}")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    return (head + scenario.body) * scenario.pipeline


def wrk(
    server: Running, scenario: Scenario, payload: bytes, seconds: float, connections: int, core: int
) -> dict[str, int]:
    """One run of wrk; returns what its script printed."""
    with tempfile.TemporaryDirectory() as directory:
        request = Path(directory, "request")
        request.write_bytes(payload)
        script = Path(directory, "script.lua")
        script.write_text(WRK_SCRIPT % {"request": request})
        done = subprocess.run(
            [
                *("wrk", "--threads", "1", "--connections", str(scenario.connections or connections)),
                *("--duration", f"{max(1, round(seconds))}s", "--timeout", "10s"),
                *("--script", str(script), f"http://127.0.0.1:{server.port}/"),
            ],
            capture_output=True,
            text=True,
            preexec_fn=pin_to(core),
            check=False,
        )
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return dict(json.loads(line.removeprefix("RESULT ")))
    raise BenchmarkError(f"wrk failed on {server.server.name}: {done.stdout}{done.stderr}")


def load_once(
    server: Running, scenario: Scenario, payload: bytes, seconds: float, connections: int, core: int
) -> Sample:
    """One round under load."""
    before = server.cpu_seconds()
    result = wrk(server, scenario, payload, seconds, connections, core)
    cpu = server.cpu_seconds() - before
    requests = max(1, result["requests"])
    return Sample(
        value=result["requests"] * 1e6 / result["microseconds"],
        unit="requests/s",
        cpu=cpu * 1e6 / requests,
        p99=result["p99"] / 1000,
        errors=result["errors"] + result["bad_status"],
    )


def idle_once(server: Server, cores: Cores) -> Sample:
    """Resident memory that each of many connections takes after it has had one answer."""
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with running(server, cores) as started, ExitStack() as stack:
        sockets = []
        before = 0
        for number in range(IDLE_CONNECTIONS + 200):
            if number == 200:  # what the first ones allocate is not per connection
                before = started.resident_bytes()
            client = stack.enter_context(socket.create_connection(("127.0.0.1", started.port)))
            client.sendall(head)
            client.recv(4096)
            sockets.append(client)
        time.sleep(0.5)
        return Sample((started.resident_bytes() - before) / IDLE_CONNECTIONS, "bytes")


def startup_once(server: Server, cores: Cores) -> tuple[Sample, float]:
    """Seconds from the start of the process to its first answer, and MiB resident after it."""
    with running(server, cores) as started:
        return Sample(started.ready_after, "seconds"), started.resident_bytes() / 2**20


def interleave(servers: Sequence[Server], rounds: int) -> Iterator[tuple[int, Server]]:
    """Server A, B, C, A, B, C…: slow changes of the machine meet every server alike."""
    for number in range(rounds):
        for server in servers:
            yield number, server
