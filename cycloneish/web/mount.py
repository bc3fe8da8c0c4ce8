"""What it takes to answer a request outside `RequestHandler`: the base class of everything that can be mounted.

`cycloneish.wsgi.WSGIContainer` and `cycloneish.resource.ResourceContainer` are built on it;
`cycloneish.web.redirects.FallbackHandler` and `cycloneish.httpserver.HTTPServer` are its callers.
"""

from __future__ import annotations

from cycloneish import httputil


class Mountable(httputil.HTTPServerConnectionDelegate):
    """A foreign application that takes over a request, its body and its answer."""
