"""A service that takes its broker from outside: RabbitMQ in the program, the one in memory in its tests."""

from twisted.application.service import Service
from twisted.internet.defer import Deferred

from cycloneish.amqp import Broker, ConsumerHandle, Message


class Orders(Service):
    """Takes orders off a queue; each is tried three times, then it waits in ``orders.dead`` for a person."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.taken: list[str] = []

    async def begin(self) -> ConsumerHandle:
        await self.broker.declare_exchange("shop", "topic")
        await self.broker.declare_queue("orders")
        await self.broker.bind("orders", "shop", "order.*")
        return await self.broker.consume("orders", self.take, retries=2, retry_delay=[0.05, 0.1])

    async def take(self, message: Message) -> None:
        if not message.value.get("items"):
            raise ValueError("an order without items")
        self.taken.append(message.value["id"])

    def place(self, order: dict[str, object]) -> Deferred[None]:
        """Fires when the broker has it for good."""
        return self.broker.publish("shop", "order.new", order, mandatory=True)
