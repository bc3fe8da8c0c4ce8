"""``python -m benchmarks.websocket``: echo over WebSockets, memory of idle ones, and codecs alone.

Each round starts no server anew: all run side by side, and take turns, so that whatever else the machine
does meets all of them. A server has one core and the client another. The client is a small program in C,
``websocket_load.c``, which is compiled here: one in Python is slower than the fastest servers, and then
measures itself. What both use of their cores is printed beside the figures: they are the server's where it
uses nearly all of its core and the client does not.

A client that sleeps costs a server that answers each message at once many wake-ups; ``--busy`` has it ask
again and again instead. ``--idle`` measures the memory of 10,000 connections that do nothing, ``--codecs``
the framing without any network.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import astuple, dataclass
from pathlib import Path
from statistics import median

from benchmarks.servers.websocket_echo import PEERS

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def connect(port: int) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), timeout=20)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(UPGRADE)
    head = b""
    while b"\r\n\r\n" not in head:
        piece = client.recv(4096)
        if not piece:
            raise SystemExit(f"no WebSocket: {head!r}")
        head += piece
    if not head.startswith(b"HTTP/1.1 101"):
        raise SystemExit(f"no WebSocket: {head!r}")
    return client


class Server:
    """One peer, started."""

    def __init__(self, name: str, core: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.servers.websocket_echo", name, str(self.port)],
            cwd=ROOT,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
        started = time.monotonic()
        while True:
            try:
                connect(self.port).close()
            except (OSError, SystemExit):
                if time.monotonic() - started > 30:
                    raise
                time.sleep(0.05)
            else:
                break

    def cpu(self) -> float:
        """Seconds of CPU time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> int:
        """Resident bytes."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


@dataclass(frozen=True)
class Round:
    """One server under load: messages a second, and microseconds of its CPU time for each.

    ``server_share`` and ``client_share`` are the parts of their cores that the two used.
    """

    rate: float
    cost: float
    server_share: float
    client_share: float


def compiled_client(directory: str) -> Path:
    """Compile the client into *directory*."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None:
        raise SystemExit("the load comes from a program in C, and there is no C compiler (cc, gcc or clang)")
    program = Path(directory, "websocket_load")
    subprocess.run([compiler, "-O2", "-o", program, Path(__file__).with_name("websocket_load.c")], check=True)
    return program


def load(
    program: Path, server: Server, size: int, connections: int, seconds: float, busy: bool = False
) -> Round:
    """Echo for *seconds*."""
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(server.port)).fileno() for _ in range(connections)]
        before = server.cpu()
        done = subprocess.run(
            [program, *map(str, (size, seconds, int(busy), *clients))],
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=clients,
            check=False,
        )
        used = server.cpu() - before
    if done.returncode:
        raise SystemExit(f"{server.name} failed")
    count, took, client_used = map(float, done.stdout.split())
    return Round(count / took, used / max(count, 1) * 1e6, used / took, client_used / took)


def echo(
    names: list[str], sizes: list[int], connections: int, rounds: int, seconds: float, busy: bool
) -> None:
    os.sched_setaffinity(0, {1})
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        program = compiled_client(directory)
        servers = []
        for name in names:
            servers.append(Server(name, 0))
            stack.callback(servers[-1].stop)
        for size in sizes:
            results: dict[str, list[Round]] = {name: [] for name in names}
            for _ in range(rounds):
                for server in servers:
                    results[server.name].append(load(program, server, size, connections, seconds, busy))
            print(f"\n{size} bytes, {connections} connections, median of {rounds} rounds")
            report(results)


def report(results: dict[str, list[Round]]) -> None:
    """Print the medians, and what they are beside Tornado's."""
    medians = {
        name: Round(*(median(column) for column in zip(*map(astuple, rounds), strict=True)))
        for name, rounds in results.items()
    }
    base = medians.get("tornado", next(iter(medians.values())))
    for name, found in medians.items():
        print(
            f"  {name:18} {found.rate:9.0f} messages/s ({found.rate / base.rate:4.2f})"
            f" {found.cost:8.1f} us of CPU each ({base.cost / found.cost:4.2f});"
            f" cores: server {found.server_share:4.0%}, client {found.client_share:4.0%}"
        )


def idle(names: list[str], connections: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < connections + 100:
        raise SystemExit(f"the limit of open files is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    del soft
    print(f"\n{connections} idle connections")
    for name in names:
        server = Server(name, 0)
        clients = []
        try:
            before = server.memory()
            clients = [connect(server.port) for _ in range(connections)]
            time.sleep(1)
            each = (server.memory() - before) / connections
            print(f"  {name:18} {each / 1000:6.1f} KB each beyond {before / 1e6:.0f} MB")
        finally:
            for client in clients:
                client.close()
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.websocket")
    parser.add_argument("--peers", nargs="+", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--sizes", nargs="+", type=int, default=[64, 65536])
    parser.add_argument("--connections", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--busy", action="store_true", help="have the client ask for answers without a pause")
    parser.add_argument("--idle", type=int, nargs="?", const=10_000, help="measure idle connections instead")
    parser.add_argument("--codecs", action="store_true", help="measure the framing alone instead")
    options = parser.parse_args()
    if options.idle:
        idle(options.peers, options.idle)
    elif options.codecs:
        from benchmarks.websocket_codecs import compare

        compare()
    else:
        echo(options.peers, options.sizes, options.connections, options.rounds, options.seconds, options.busy)


if __name__ == "__main__":
    main()
