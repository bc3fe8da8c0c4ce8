"""SQLAlchemy's dialect compliance suite; run by `python -m tests.compliance`."""

from __future__ import annotations

from typing import Any

from sqlalchemy.testing.suite import *  # noqa: F403
from sqlalchemy.testing.suite import ServerSideCursorsTest as _ServerSideCursorsTest


class ServerSideCursorsTest(_ServerSideCursorsTest):
    """As it is, but for the question that it can only ask the drivers it knows by name."""

    def _is_server_side(self, cursor: Any) -> bool:
        return bool(cursor.server_side)
