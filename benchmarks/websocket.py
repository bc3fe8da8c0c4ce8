"""``python -m benchmarks.websocket``: echo over WebSockets, memory of idle ones, and codecs alone.

Each round starts no server anew: all run side by side, and take turns, so that whatever else the machine
does meets all of them. A server has one core and the client another; the client is raw sockets and frames
made beforehand. ``--idle`` measures the memory of 10,000 connections that do nothing, ``--codecs`` the
framing without any network.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.servers.websocket_echo import PEERS

ROOT = Path(__file__).resolve().parent.parent
TICKS = os.sysconf("SC_CLK_TCK")
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def client_frame(size: int) -> bytes:
    """A masked binary message."""
    if size < 126:
        head = bytes([0x82, 0x80 | size])
    elif size < 65536:
        head = bytes([0x82, 0x80 | 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([0x82, 0x80 | 127]) + size.to_bytes(8, "big")
    mask = b"\x37\xfa\x21\x3d"
    data = bytes(size)
    key = (mask * (size // 4 + 1))[:size]
    return head + mask + bytes(a ^ b for a, b in zip(data, key, strict=True))


def server_size(size: int) -> int:
    """Bytes of the same message from a server."""
    return size + (2 if size < 126 else 4 if size < 65536 else 10)


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


def load(server: Server, size: int, connections: int, seconds: float) -> tuple[float, float]:
    """Echo for *seconds*: messages a second, and microseconds of the server's CPU for each."""
    frame, answer = client_frame(size), server_size(size)
    poll = select.epoll()
    clients: dict[int, Any] = {}
    for _ in range(connections):
        client = connect(server.port)
        client.setblocking(False)
        poll.register(client, select.EPOLLIN)
        # socket, bytes that are awaited, unsent rest
        clients[client.fileno()] = [client, answer, b""]

    def send(entry: Any, data: bytes) -> None:
        try:
            sent = entry[0].send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            entry[2] = data[sent:]
            poll.modify(entry[0], select.EPOLLIN | select.EPOLLOUT)

    for entry in clients.values():
        send(entry, frame)
    count, cpu, began = 0, server.cpu(), time.monotonic()
    until = began + seconds
    while time.monotonic() < until:
        for fd, event in poll.poll(1):
            entry = clients[fd]
            if event & select.EPOLLOUT:
                rest, entry[2] = entry[2], b""
                poll.modify(entry[0], select.EPOLLIN)
                send(entry, rest)
            if event & select.EPOLLIN:
                got = len(entry[0].recv(1 << 18))
                if not got:
                    raise SystemExit(f"{server.name} closed the connection")
                entry[1] -= got
                if not entry[1]:
                    entry[1] = answer
                    count += 1
                    send(entry, frame)
    took, used = time.monotonic() - began, server.cpu() - cpu
    for client, _, _ in clients.values():
        client.close()
    poll.close()
    return count / took, used / max(count, 1) * 1e6


def echo(names: list[str], sizes: list[int], connections: int, rounds: int, seconds: float) -> None:
    os.sched_setaffinity(0, {1})
    servers = [Server(name, 0) for name in names]
    try:
        for size in sizes:
            rates: dict[str, list[float]] = {name: [] for name in names}
            costs: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(rounds):
                for server in servers:
                    rate, cost = load(server, size, connections, seconds)
                    rates[server.name].append(rate)
                    costs[server.name].append(cost)
            print(f"\n{size} bytes, {connections} connections, median of {rounds} rounds")
            base_rate, base_cost = median(rates.get("tornado", [1])), median(costs.get("tornado", [1]))
            for name in names:
                rate, cost = median(rates[name]), median(costs[name])
                print(
                    f"  {name:18} {rate:9.0f} messages/s ({rate / base_rate:4.2f})"
                    f" {cost:8.1f} us of CPU each ({base_cost / cost:4.2f})"
                )
    finally:
        for server in servers:
            server.stop()


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
    parser.add_argument("--idle", type=int, nargs="?", const=10_000, help="measure idle connections instead")
    parser.add_argument("--codecs", action="store_true", help="measure the framing alone instead")
    options = parser.parse_args()
    if options.idle:
        idle(options.peers, options.idle)
    elif options.codecs:
        from benchmarks.websocket_codecs import compare

        compare()
    else:
        echo(options.peers, options.sizes, options.connections, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
