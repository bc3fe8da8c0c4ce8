"""What Cyclone's `RequestHandler` has and Tornado's has not.

Part of `RequestHandler`, so that handlers written for Cyclone find their names. Nothing else of the package
uses them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cycloneish.web.base import HandlerBase
from cycloneish.web.errors import HTTPError

__all__ = ["CycloneMixin"]


class CycloneMixin(HandlerBase):
    """Class attributes and methods of Cyclone's handlers."""

    no_keep_alive: bool = False
    """True: the connection is closed after the response (Cyclone)."""

    serialize_lists: bool = False
    """True: `write` takes lists as well and sends them as JSON. Old browsers let scripts of other sites read
    these, which is why it has to be asked for (Cyclone)."""

    _auto_finish: bool

    def default(self, *args: str, **kwargs: str) -> Any:
        """Called for a method that the handler does not define; answers 405 unless overridden (Cyclone)."""
        raise HTTPError(405)

    def async_callback(self, callback: Callable[..., Any] | None, *args: Any, **kwargs: Any) -> Any:
        """Wrap *callback* so that what it raises ends this request with an error page (Cyclone).

        :param args: given to *callback* before what it is called with.
        :returns: a function; None if *callback* is None.
        """
        if callback is None:
            return None

        def wrapper(*more: Any, **named: Any) -> Any:
            try:
                return callback(*args, *more, **{**kwargs, **named})
            except Exception as error:
                self._handle_request_exception(error)
                return None

        return wrapper

    def _handle_request_exception(self, error: BaseException) -> None:
        raise NotImplementedError
