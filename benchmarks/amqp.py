"""Publishing and consuming side by side: cycloneish.amqp, pika's SelectConnection, aio-pika, one RabbitMQ.

    python -m benchmarks.amqp [--messages N] [--rounds N]

Persistent messages of 256 bytes; publishing is confirmed with 1,000 outstanding, consuming acknowledges
every message with a prefetch of 200. Rounds are interleaved, as machines are shared, and the best counts.
Shown are messages for each second and microseconds of client CPU for each message.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.amqp.broker import RabbitMQ

BODY = b"x" * 256
WINDOW = 1000
PREFETCH = 200
LIBRARIES = ("cycloneish", "pika", "aio-pika")


class Stopwatch:
    """Wall and CPU time between two points."""

    def __init__(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def report(self, count: int) -> None:
        wall, cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu
        print(json.dumps({"rate": count / wall, "cpu": cpu / count * 1e6}))


def cycloneish(what: str, url: str, queue: str, total: int) -> None:
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred

    from cycloneish.amqp import AMQP

    async def run() -> None:
        amqp = AMQP(url)
        amqp.startService()
        await amqp.when_connected()
        done: Deferred[None] = Deferred()
        left, open_ = total, 0
        watch = Stopwatch()
        if what == "publish":

            def confirmed(_: Any) -> None:
                nonlocal left, open_
                open_ -= 1
                if left:
                    left -= 1
                    open_ += 1
                    amqp.publish("", queue, BODY).addCallback(confirmed)
                elif not open_:
                    done.callback(None)

            left -= WINDOW
            open_ = WINDOW
            for _ in range(WINDOW):
                amqp.publish("", queue, BODY).addCallback(confirmed)
        else:

            def handler(message: Any) -> None:
                nonlocal left
                left -= 1
                if not left:
                    done.callback(None)

            await amqp.consume(queue, handler, prefetch=PREFETCH, dead_letter="")
        await done
        watch.report(total)
        await amqp.stopService()

    def end(result: Any) -> None:
        if result is not None:
            print(result, file=sys.stderr)
        reactor.stop()

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(run()).addBoth(end))
    reactor.run()


def pika(what: str, url: str, queue: str, total: int) -> None:
    import pika

    left, confirmed_to, number = total, 0, 0
    watch: Any = None
    properties = pika.BasicProperties(delivery_mode=2)

    def opened(channel: Any) -> None:
        nonlocal watch
        if what == "publish":
            channel.confirm_delivery(lambda frame: confirm(channel, frame.method), lambda _: start(channel))
        else:
            channel.basic_qos(prefetch_count=PREFETCH, callback=lambda _: start(channel))

    def start(channel: Any) -> None:
        nonlocal watch
        watch = Stopwatch()
        if what == "publish":
            fill(channel)
        else:
            channel.basic_consume(queue, deliver)

    def fill(channel: Any) -> None:
        nonlocal number
        while number < total and number - confirmed_to < WINDOW:
            number += 1
            channel.basic_publish("", queue, BODY, properties)

    singles: set[int] = set()

    def confirm(channel: Any, method: Any) -> None:
        nonlocal confirmed_to
        if method.multiple:
            confirmed_to = max(confirmed_to, method.delivery_tag)
        else:
            singles.add(method.delivery_tag)
        while confirmed_to + 1 in singles:
            confirmed_to += 1
            singles.discard(confirmed_to)
        fill(channel)
        if confirmed_to == total:
            finish()

    def deliver(channel: Any, method: Any, header: Any, body: bytes) -> None:
        nonlocal left
        channel.basic_ack(method.delivery_tag)
        left -= 1
        if not left:
            finish()

    def finish() -> None:
        watch.report(total)
        connection.close()

    connection = pika.SelectConnection(
        pika.URLParameters(url),
        on_open_callback=lambda opening: opening.channel(on_open_callback=opened),
        on_close_callback=lambda *_: connection.ioloop.stop(),
    )
    connection.ioloop.start()


def aio_pika(what: str, url: str, queue: str, total: int) -> None:
    import aio_pika

    async def run() -> None:
        connection = await aio_pika.connect(url)
        channel = await connection.channel(publisher_confirms=True)
        watch = Stopwatch()
        if what == "publish":
            exchange = channel.default_exchange
            left = total

            async def sender() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    message = aio_pika.Message(BODY, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
                    await exchange.publish(message, routing_key=queue, mandatory=False)

            await asyncio.gather(*(sender() for _ in range(WINDOW)))
        else:
            await channel.set_qos(prefetch_count=PREFETCH)
            done = asyncio.Event()
            left = total

            async def handler(message: Any) -> None:
                nonlocal left
                await message.ack()
                left -= 1
                if not left:
                    done.set()

            await (await channel.get_queue(queue)).consume(handler)
            await done.wait()
        watch.report(total)
        await connection.close()

    asyncio.run(run())


RUNNERS: dict[str, Callable[[str, str, str, int], None]] = {
    "cycloneish": cycloneish,
    "pika": pika,
    "aio-pika": aio_pika,
}


def declare(url: str, queue: str) -> None:
    import pika

    connection = pika.BlockingConnection(pika.URLParameters(url))
    connection.channel().queue_declare(queue, durable=True)
    connection.close()


def run(library: str, what: str, url: str, queue: str, total: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.amqp", "--child", library, what, url, queue, str(total)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if output.returncode or not output.stdout:
        raise SystemExit(f"{library} {what} failed:\n{output.stderr}")
    result: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return result


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        library, what, url, queue, total = sys.argv[2:]
        RUNNERS[library](what, url, queue, int(total))
        return
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=20000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    broker = RabbitMQ()
    broker.start()
    results: dict[tuple[str, str], list[dict[str, float]]] = {}
    try:
        broker.wait()
        for number in range(options.rounds):
            for library in LIBRARIES:
                queue = f"bench-{library}-{number}"
                declare(broker.url, queue)
                for what in ("publish", "consume"):
                    measured = run(library, what, broker.url, queue, options.messages)
                    results.setdefault((what, library), []).append(measured)
    finally:
        broker.remove()
    print(f"{options.messages} messages, {options.rounds} rounds: the best rate, the smallest CPU time")
    for what in ("publish", "consume"):
        ours: dict[str, float] = {}
        for library in LIBRARIES:
            rounds = results[what, library]
            best = {"rate": max(one["rate"] for one in rounds), "cpu": min(one["cpu"] for one in rounds)}
            ours = ours or best
            rate, cpu = ours["rate"] / best["rate"], ours["cpu"] / best["cpu"]
            ratio = f"ours has {rate:.2f} x its rate at {cpu:.2f} x its CPU"
            print(f"{what:8} {library:11} {best['rate']:8.0f}/s {best['cpu']:6.1f} µs  {ratio}")


if __name__ == "__main__":
    main()
