"""`StaticFileHandler`: files from a directory, with ranges, validators and versioned URLs.

Applications route to it; `cycloneish.web.application` does so by itself for the setting `static_path`, and
`RequestHandler.static_url` calls its class methods.
"""

from __future__ import annotations

from cycloneish.web.handler import RequestHandler


class StaticFileHandler(RequestHandler):
    """Serves the files of one directory."""
