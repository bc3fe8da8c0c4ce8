from twisted.internet import reactor
from twisted.internet.defer import Deferred

from cycloneish.amqp import AMQP


async def main() -> None:
    amqp = AMQP("amqp://guest:guest@localhost/")
    amqp.startService()
    await amqp.declare_queue("greetings")
    await amqp.consume("greetings", lambda message: print(message.value, flush=True))


reactor.callWhenRunning(lambda: Deferred.fromCoroutine(main()))
reactor.run()
