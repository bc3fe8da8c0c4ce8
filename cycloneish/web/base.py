"""What the parts of `RequestHandler` have in common: the application, the request, the settings.

Each part (`arguments`, `cookies`, `xsrf`, `visitor`, `response`, `rendering`) is a class on top of this one;
`cycloneish.web.handler` puts them together and adds the life of a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cycloneish import httputil

if TYPE_CHECKING:
    from cycloneish.web.application import Application


class HandlerBase:
    """The attributes that every part of a handler may use."""

    application: Application
    """The `Application` that serves the request."""
    request: httputil.HTTPServerRequest
    """The request: headers, body, connection."""

    @property
    def settings(self) -> dict[str, Any]:
        """The application's settings: its keyword arguments."""
        return self.application.settings

    def require_setting(self, name: str, feature: str = "this feature") -> None:
        """Raise an exception that says what is missing, if the setting *name* is not there or empty.

        :param feature: what needs it, for the message.
        """
        if not self.application.settings.get(name):
            raise LookupError(
                f"{feature} needs the setting {name!r}: pass it to Application(..., {name}=...)"
            )
