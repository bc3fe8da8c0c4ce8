"""Joins the room of `chat.py`, says a line and prints the first answers.

python chat_client.py ws://127.0.0.1:8888/socket/kitchen "hello"
"""

import sys

from twisted.internet.defer import ensureDeferred
from twisted.internet.task import react

from cycloneish.websocket import websocket_connect


async def talk(url, line):
    async with await websocket_connect(url, compression_options={}, ping_interval=30) as connection:
        await connection.write_message(line)
        heard = 0
        async for message in connection:
            print(message)
            heard += 1
            if heard == 2:
                break


def main(reactor, url, line):
    return ensureDeferred(talk(url, line))


if __name__ == "__main__":
    react(main, sys.argv[1:])
