"""The servers that are measured, by name; each is started in a process of its own.

``benchmarks.measure`` reads :data:`SERVERS`. This file imports nothing heavy: the start-up scenario times
what a server itself has to load.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Server:
    """One way to serve the scenarios.

    ``module`` is run as ``python -m benchmarks.servers.MODULE PORT *arguments``. ``kind`` is ``"peer"`` for
    what we compare with, ``"ours"``, or ``"limit"`` for the servers that do no work at all and show what the
    transport allows.
    """

    name: str
    module: str
    arguments: tuple[str, ...] = ()
    kind: str = "peer"


SERVERS: tuple[Server, ...] = (
    Server("tornado", "tornado_app"),
    Server("tornado-uvloop", "tornado_app", ("--uvloop",)),
    Server("twisted.web", "twisted_web_app"),
    Server("klein", "klein_app"),
    Server("aiohttp", "aiohttp_app"),
    Server("aiohttp-uvloop", "aiohttp_app", ("--uvloop",)),
    Server("starlette", "starlette_app"),
    Server("starlette-uvloop", "starlette_app", ("--uvloop",)),
    Server("cycloneish", "cycloneish_app", (), "ours"),
    Server("cycloneish-uvloop", "cycloneish_app", ("--uvloop",), "ours"),
    Server("raw-twisted", "raw_twisted", (), "limit"),
    Server("raw-twisted-uvloop", "raw_twisted", ("--uvloop",), "limit"),
)
