"""``python -m benchmarks.client``: many small fetches from a local server, beside Tornado's client and
others.

Each client runs in a process of its own, a few rounds in turn, all against one server of this package.  The
figures are requests per second, and CPU time of the client for each fetch, which the other programs on the
machine disturb less.  ``--server-only PORT`` and ``--client NAME`` are what it starts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

WARM_UP = 200
CLIENTS = ("cycloneish", "cycloneish-asyncio", "tornado", "treq", "aiohttp")


def serve() -> None:
    from twisted.internet import reactor

    from cycloneish.web import Application, RequestHandler

    class Hello(RequestHandler):
        def get(self) -> None:
            self.finish(b"Hello, small world!\n")

    port = reactor.listenTCP(0, Application([("/", Hello)]), backlog=1024, interface="127.0.0.1")
    print(port.getHost().port, flush=True)
    reactor.run()


def measured(run: Callable[[int], Any], count: int) -> Any:
    """A coroutine that fetches, first without measuring, and prints what it took."""

    async def main() -> None:
        await run(WARM_UP)
        wall, cpu = time.perf_counter(), time.process_time()
        await run(count)
        print(json.dumps({"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}), flush=True)

    return main()


def run_cycloneish(url: str, count: int, at_a_time: int, on_asyncio: bool) -> None:
    if on_asyncio:
        from twisted.internet import asyncioreactor

        asyncioreactor.install()
    from twisted.internet import reactor
    from twisted.internet.defer import gatherResults

    from cycloneish.coroutines import drive
    from cycloneish.httpclient import AsyncHTTPClient

    client = AsyncHTTPClient(force_instance=True, max_clients=at_a_time)

    async def run(number: int) -> None:
        for response in await gatherResults([client.fetch(url) for _ in range(number)]):
            assert response.body

    def start() -> None:
        drive(measured(run, count)).addErrback(print).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(start)
    reactor.run()


def run_treq(url: str, count: int, at_a_time: int) -> None:
    import treq
    from twisted.internet import reactor
    from twisted.internet.defer import DeferredSemaphore, ensureDeferred, gatherResults
    from twisted.web.client import HTTPConnectionPool

    pool = HTTPConnectionPool(reactor)
    pool.maxPersistentPerHost = at_a_time

    async def run(number: int) -> None:
        semaphore = DeferredSemaphore(at_a_time)
        one = lambda: treq.get(url, pool=pool).addCallback(treq.content)  # noqa: E731
        for body in await gatherResults([semaphore.run(one) for _ in range(number)]):
            assert body

    def start() -> None:
        ensureDeferred(measured(run, count)).addErrback(print).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(start)
    reactor.run()


def run_tornado(url: str, count: int, at_a_time: int) -> None:
    import asyncio

    from tornado.simple_httpclient import SimpleAsyncHTTPClient

    async def main() -> None:
        client = SimpleAsyncHTTPClient(force_instance=True, max_clients=at_a_time)

        async def run(number: int) -> None:
            for response in await asyncio.gather(*[client.fetch(url) for _ in range(number)]):
                assert response.body

        await measured(run, count)

    asyncio.run(main())


def run_aiohttp(url: str, count: int, at_a_time: int) -> None:
    import asyncio

    import aiohttp

    async def main() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_a_time)) as session:

            async def one() -> None:
                async with session.get(url) as response:
                    assert await response.read()

            async def run(number: int) -> None:
                await asyncio.gather(*[one() for _ in range(number)])

            await measured(run, count)

    asyncio.run(main())


def run_client(name: str, url: str, count: int, at_a_time: int) -> None:
    if name.startswith("cycloneish"):
        run_cycloneish(url, count, at_a_time, name.endswith("asyncio"))
    else:
        {"treq": run_treq, "tornado": run_tornado, "aiohttp": run_aiohttp}[name](url, count, at_a_time)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__)
    parser.add_argument("--fetches", type=int, default=2000)
    parser.add_argument("--at-a-time", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clients", default=",".join(CLIENTS))
    parser.add_argument("--client", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--server-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.server_only:
        serve()
        return
    if options.client:
        run_client(options.client, options.url, options.fetches, options.at_a_time)
        return
    module = [sys.executable, "-m", "benchmarks.client"]
    server = subprocess.Popen([*module, "--server-only"], stdout=subprocess.PIPE, text=True)
    names = options.clients.split(",")
    figures: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/"
        counts = ["--url", url, "--fetches", str(options.fetches), "--at-a-time", str(options.at_a_time)]
        for _ in range(options.rounds):
            for name in names:
                done = subprocess.run(
                    [*module, "--client", name, *counts],
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=True,
                )
                figures[name].append(json.loads(done.stdout.splitlines()[-1]))
    finally:
        server.terminate()
        server.wait()
    medians = {
        name: (
            options.fetches / statistics.median(one["wall"] for one in found),
            statistics.median(one["cpu"] for one in found) / options.fetches * 1e6,
        )
        for name, found in figures.items()
    }
    base = medians.get("tornado")
    print(f"{options.fetches} fetches, {options.at_a_time} at a time, median of {options.rounds} rounds")
    for name, (rate, cpu) in medians.items():
        line = f"{name:20} {rate:8.0f}/s   {cpu:7.0f} us CPU each"
        if base is not None:
            line += f"   {rate / base[0]:5.2f} x the rate, {base[1] / cpu:5.2f} x less CPU than Tornado"
        print(line)


if __name__ == "__main__":
    main()
