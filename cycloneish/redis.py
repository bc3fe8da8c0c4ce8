"""Redis without blocking: all names of ``txredisapi``, the library that Cyclone's ``redis`` was a copy of.

::

    from cycloneish import redis

    class Counter(RequestHandler):
        async def get(self):
            self.write({"visits": await self.settings["redis"].incr("visits")})

    Application([(r"/", Counter)], redis=redis.lazyConnectionPool())

Its documentation is that of txredisapi. It comes with ``cycloneish[redis]``.
"""

from __future__ import annotations

try:
    import txredisapi as _txredisapi
except ImportError as _error:
    raise ImportError("cycloneish.redis needs txredisapi: pip install 'cycloneish[redis]'") from _error

__all__ = [name for name in vars(_txredisapi) if not name.startswith("_")]

globals().update({_name: getattr(_txredisapi, _name) for _name in __all__})
