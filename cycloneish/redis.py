"""Redis without blocking: all names of ``txredisapi``, the library that Cyclone's ``redis`` was a copy of.

::

    from cycloneish import redis

    class Counter(RequestHandler):
        async def get(self):
            self.write({"visits": await self.settings["redis"].incr("visits")})

    Application([(r"/", Counter)], redis=redis.lazyConnectionPool())

Its documentation is that of txredisapi. It comes with ``cycloneish[redis]``, and is loaded when the first
of its names is asked for, as it installs a reactor.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

try:
    _found = find_spec("txredisapi")
except ValueError:  # what is loaded under this name has not come from a file
    _found = None
if _found is None:
    raise ImportError("cycloneish.redis needs txredisapi: pip install 'cycloneish[redis]'")


def __getattr__(name: str) -> Any:
    if name == "__all__":
        return __dir__()
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("txredisapi"), name)


def __dir__() -> list[str]:
    return [name for name in vars(import_module("txredisapi")) if not name.startswith("_")]
