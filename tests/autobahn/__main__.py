"""``python -m tests.autobahn``: the Autobahn testsuite's fuzzing client against our server, and its fuzzing
server against our client.

The suite is a program for Python 2.7. It is installed once, in a directory of its own::

    python2.7 -m pip install --target DIRECTORY autobahntestsuite
    python -m tests.autobahn --python python2.7 --suite DIRECTORY

``--cases 1.* 7.*`` runs some of the cases; all but 9.* (speed) run by default, which takes some ten minutes.
The exit status is 1 if one of them failed; the reports of the suite are kept in ``--reports``.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from cycloneish.httpserver import HTTPServer
from cycloneish.web import Application
from cycloneish.websocket import WebSocketHandler, websocket_connect

RUN = "import site, sys; site.addsitedir(sys.argv.pop(1)); from autobahntestsuite.wstest import run; run()"
#: What the suite calls a case that went as it has to.
GOOD = ("OK", "NON-STRICT", "INFORMATIONAL", "UNIMPLEMENTED")
MAX_MESSAGE = 64 * 1024 * 1024


class Echo(WebSocketHandler):
    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def start_suite(options: argparse.Namespace, mode: str, specification: dict[str, Any]) -> Any:
    file = options.reports / f"{mode}.json"
    file.write_text(json.dumps({"options": {"failByDrop": False}, **specification}))
    command = [options.python, "-c", RUN, options.suite, "-m", mode, "-s", str(file), "-u", "0"]
    return subprocess.Popen(command, cwd=options.reports, stdout=subprocess.DEVNULL)


async def serve(options: argparse.Namespace) -> Path:
    """Let the fuzzing client at our server."""
    server = HTTPServer(Application([("/", Echo)], websocket_max_message_size=MAX_MESSAGE))
    port = server.listen(0, "127.0.0.1").getHost().port
    specification = {
        "outdir": str(options.reports / "server"),
        "servers": [{"agent": "cycloneish", "url": f"ws://127.0.0.1:{port}"}],
        "cases": options.cases,
        "exclude-cases": ["9.*"],
        "exclude-agent-cases": {},
    }
    process = start_suite(options, "fuzzingclient", specification)
    while process.poll() is None:
        await sleep(0.2)
    await server.stop()
    return options.reports / "server"


async def visit(options: argparse.Namespace) -> Path:
    """Let our client at the fuzzing server."""
    port = free_port()
    url = f"ws://127.0.0.1:{port}"
    specification = {
        "url": url,
        "outdir": str(options.reports / "client"),
        "cases": options.cases,
        "exclude-cases": ["9.*"],
        "exclude-agent-cases": {},
    }
    process = start_suite(options, "fuzzingserver", specification)
    try:
        count = await case_count(url)
        for case in range(1, count + 1):
            connection = await websocket_connect(
                f"{url}/runCase?case={case}&agent=cycloneish",
                compression_options={},
                max_message_size=MAX_MESSAGE,
            )
            async for message in connection:
                if connection.protocol is not None and not connection.protocol.is_closing():
                    await connection.write_message(message, binary=isinstance(message, bytes))
        connection = await websocket_connect(f"{url}/updateReports?agent=cycloneish")
        await connection.wait_closed()
    finally:
        process.terminate()
        process.wait()
    return options.reports / "client"


async def case_count(url: str) -> int:
    """How many cases there are, as soon as the server is up."""
    started = time.monotonic()
    while True:
        try:
            connection = await websocket_connect(f"{url}/getCaseCount")
        except OSError:
            if time.monotonic() - started > 60:
                raise
            await sleep(0.2)
        else:
            return int(await connection.read_message())


def sleep(seconds: float) -> Deferred[None]:
    done: Deferred[None] = Deferred()
    reactor.callLater(seconds, done.callback, None)
    return done


def report(directory: Path) -> bool:
    """Print how the cases went; True if none failed."""
    cases: dict[str, Any] = json.loads((directory / "index.json").read_text())["cycloneish"]
    for aspect in ("behavior", "behaviorClose"):
        counts = Counter(case[aspect] for case in cases.values())
        print(
            f"{directory.name:7} {aspect:14} "
            + ", ".join(f"{n} {what}" for what, n in sorted(counts.items()))
        )
    bad = {
        name: (case["behavior"], case["behaviorClose"])
        for name, case in cases.items()
        if case["behavior"] not in GOOD or case["behaviorClose"] not in GOOD
    }
    for name, outcome in bad.items():
        print(f"  {name}: {outcome[0]}, close {outcome[1]}")
    return not bad


async def run(options: argparse.Namespace) -> bool:
    good = True
    for side, part in (("server", serve), ("client", visit)):
        if options.side in (side, "both"):
            good &= report(await part(options))
    return good


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.autobahn")
    parser.add_argument("--python", default="python2.7", help="a Python 2.7")
    parser.add_argument("--suite", required=True, help="directory in which autobahntestsuite is installed")
    parser.add_argument("--cases", nargs="+", default=["*"], help="such as 1.* or 12.1.3")
    parser.add_argument("--side", choices=["server", "client", "both"], default="both")
    parser.add_argument("--reports", type=Path, help="where to write the reports; a new directory by default")
    options = parser.parse_args()
    options.reports = (options.reports or Path(tempfile.mkdtemp(prefix="autobahn-"))).resolve()
    options.reports.mkdir(parents=True, exist_ok=True)
    options.suite = str(Path(options.suite).resolve())
    outcome: list[Any] = []

    def start() -> None:
        done = Deferred.fromCoroutine(run(options))
        done.addBoth(outcome.append)
        done.addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(start)
    reactor.run()
    if outcome[0] not in (True, False):
        outcome[0].printTraceback()
        return 1
    print(f"reports in {options.reports}")
    return 0 if outcome[0] else 1


if __name__ == "__main__":
    sys.exit(main())
