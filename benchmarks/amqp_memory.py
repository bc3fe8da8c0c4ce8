"""Does a consumer's memory stay flat? One process publishes, another consumes and reports its resident size.

    python -m benchmarks.amqp_memory [MESSAGES]

Starts a RabbitMQ of its own. Exits with 1 where the size grew by 10 MB or more after the first tenth.
"""

from __future__ import annotations

import resource
import subprocess
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from cycloneish.amqp import AMQP, Message
from tests.amqp.broker import RabbitMQ

QUEUE = "memory"
MOST_GROWTH = 10 * 1024


def resident() -> int:
    """KiB of this process in memory now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() // 1024


async def consume(url: str, total: int) -> None:
    amqp = AMQP(url)
    amqp.startService()
    await amqp.declare_queue(QUEUE)
    seen = 0
    warm = 0
    done: Deferred[None] = Deferred()

    def handler(message: Message) -> None:
        nonlocal seen, warm
        seen += 1
        if seen == total // 10:
            warm = resident()
        if seen % (total // 10) == 0:
            print(f"{seen} messages, {resident()} KiB", flush=True)
        if seen == total:
            done.callback(None)

    await amqp.consume(QUEUE, handler, prefetch=200)
    await done
    grown = resident() - warm
    await amqp.stopService()
    print(
        f"resident size after {total // 10} messages {warm} KiB, after {total} {warm + grown}: {grown:+} KiB"
    )
    if grown >= MOST_GROWTH:
        raise SystemExit(1)


async def publish(url: str, total: int) -> None:
    amqp = AMQP(url)
    amqp.startService()
    await amqp.declare_queue(QUEUE)
    body = b"x" * 256
    left = total
    done: Deferred[None] = Deferred()
    on_the_way = 0

    def more(_: Any = None) -> None:
        nonlocal left, on_the_way
        on_the_way -= 1
        if left:
            left -= 1
            on_the_way += 1
            amqp.publish("", QUEUE, body, persistent=False, headers={"number": left}).addCallback(more)
        elif not on_the_way:
            done.callback(None)

    on_the_way = 500
    for _ in range(500):
        more()
    await done
    await amqp.stopService()


def main() -> int:
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    broker = RabbitMQ()
    broker.start()
    try:
        broker.wait()
        command = [sys.executable, "-m", "benchmarks.amqp_memory", "--consume", broker.url, str(total)]
        consumer = subprocess.Popen(command)
        publisher = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.amqp_memory", "--publish", broker.url, str(total)]
        )
        status = consumer.wait()
        publisher.kill()
        publisher.wait()
        return status
    finally:
        broker.remove()


if __name__ == "__main__":
    if len(sys.argv) == 4:
        role = {"--consume": consume, "--publish": publish}[sys.argv[1]]
        react(lambda _: Deferred.fromCoroutine(role(sys.argv[2], int(sys.argv[3]))))
    sys.exit(main())
