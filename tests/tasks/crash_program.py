"""The program whose workers the tests kill: each task writes a line when it begins and when it ends."""

from __future__ import annotations

import os
import time

from cycloneish.tasks import Tasks

tasks = Tasks(os.environ["BROKER"], queue=os.environ["QUEUE"])


def note(text: str) -> None:
    # One write, so that lines of several processes do not mix.
    handle = os.open(os.environ["NOTES"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(handle, f"{text}\n".encode())
    finally:
        os.close(handle)


@tasks.task(name="crash.in_thread")
def in_thread(number: int) -> None:
    note(f"begin {number} {os.getpid()}")
    time.sleep(0.05)
    note(f"end {number} {os.getpid()}")


@tasks.task(name="crash.on_reactor")
async def on_reactor(number: int) -> None:
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    note(f"begin {number} {os.getpid()}")
    await deferLater(reactor, 0.05)
    note(f"end {number} {os.getpid()}")
