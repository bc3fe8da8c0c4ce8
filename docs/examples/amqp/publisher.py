"""Sends one greeting and leaves: python publisher.py URL NAME"""

import sys

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from cycloneish.amqp import AMQP


async def main(url: str, name: str) -> None:
    amqp = AMQP(url)
    amqp.startService()
    await amqp.declare_queue("greetings")
    await amqp.publish("", "greetings", {"hello": name}, mandatory=True)
    print("confirmed")
    await amqp.stopService()


react(lambda reactor, *arguments: Deferred.fromCoroutine(main(*arguments)), sys.argv[1:])
