"""Background tasks: a page that has work done, and the work.

    twistd -n cycloneish --app jobs:make_app

runs both in one process. With AMQP set to the URL of a broker they are two, or many:

    AMQP=amqp://localhost twistd -n cycloneish --app jobs:make_app
    AMQP=amqp://localhost cycloneish worker --app jobs:tasks
"""

import os
import time

from twisted.application.service import MultiService

from cycloneish.tasks import Tasks, Worker
from cycloneish.web import Application, RequestHandler

tasks = Tasks(os.environ.get("AMQP", "memory:"))


@tasks.task(autoretry_for=(OSError,), max_retries=5, time_limit=60)
def report(name: str, year: int) -> None:
    time.sleep(0.1)  # plain functions run in threads, so they may block
    with open(f"{name}-{year}.txt", "w") as file:
        file.write(f"The report of {name} for {year}\n")


class Order(RequestHandler):
    async def post(self):
        receipt = await report.delay(self.get_body_argument("name"), 2026)
        self.set_status(202)
        self.write({"task": receipt.id})


def make_app():
    app = Application([(r"/reports", Order)])
    app.service = MultiService()
    tasks.setServiceParent(app.service)
    if "AMQP" not in os.environ:
        Worker(tasks).setServiceParent(app.service)
    return app
