"""Runs SQLAlchemy's pytest plugin on the Twisted reactor in place of asyncio.

SQLAlchemy runs the tests of an asynchronous dialect in greenlets of an asyncio loop.  Here they run in
greenlets of ours, and the reactor is turned until a test is over: the dialect meets no loop and no thread.
"""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.dialects.postgresql import provision as _postgresql  # noqa: F401
from sqlalchemy.testing import asyncio as testing_asyncio
from sqlalchemy.testing import provision

from cycloneish.db.bridge import inside, spawn
from cycloneish.db.dialect import register
from cycloneish.testing.spin import wait_for

register()
pytest.register_assert_rewrite("sqlalchemy.testing.assertions")

from sqlalchemy.testing.plugin.pytestplugin import *  # noqa: E402, F403

PATIENCE = 120.0


class OnReactor:
    """What SQLAlchemy's plugin takes for asyncio."""

    def run_in_greenlet(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        if inside():
            return function(*args, **kwargs)
        return wait_for(spawn(function, *args, **kwargs), PATIENCE)

    def run(self, function: Any, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("a test asked for asyncio, which is not there")

    def close(self) -> None:
        """Nothing is left over."""


testing_asyncio._async_util = OnReactor()  # type: ignore[assignment]


@provision.post_configure_engine.for_db("postgresql")
def _without_extensions(url: Any, engine: Any, follower_ident: Any) -> None:
    """The private server has no citext and no hstore, which SQLAlchemy would create here."""
