"""The error page of debug mode: traceback across awaits, the source around each frame, and the request.

`RequestHandler.write_error` calls it when the application runs with `debug=True`; nothing else does.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cycloneish.web.handler import RequestHandler

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]


def render_debug_page(handler: RequestHandler, exc_info: ExcInfo) -> str:
    """Return the HTML of the error page."""
    return ""
