"""Ready-made handlers that hold no content of their own: redirect, error and fallback.

Applications name them in their list of routes; `cycloneish.web.application` uses `ErrorHandler` for what no route
matches.
"""

from __future__ import annotations

from cycloneish.web.handler import RequestHandler


class RedirectHandler(RequestHandler):
    """Answers every GET and HEAD with a redirect."""


class ErrorHandler(RequestHandler):
    """Answers every request with one fixed status."""


class FallbackHandler(RequestHandler):
    """Hands the request to another server callback."""
