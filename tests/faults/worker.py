"""A consumer in a process of its own, to be killed by the tests: writes down each message it worked on.

python -m tests.faults.worker URL QUEUE FILE
"""

from __future__ import annotations

import os
import sys

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from cycloneish.amqp import AMQP, Message
from tests.amqp.broker import sleep


def main(url: str, queue: str, path: str) -> None:
    output = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    async def handler(message: Message) -> None:
        await sleep(0.001)
        os.write(output, f"{message.value}\n".encode())
        await sleep(0.001)

    async def start() -> None:
        amqp = AMQP(url)
        amqp.startService()
        await amqp.consume(queue, handler, prefetch=20)

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(start()))
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
