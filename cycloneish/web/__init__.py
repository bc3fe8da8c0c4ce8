"""Tornado's `tornado.web`: applications, handlers, and what they need.

This file only hands names on; each subject has a file of its own::

    from cycloneish.web import Application, RequestHandler

    class MainHandler(RequestHandler):
        def get(self):
            self.write("Hello, world")

    app = Application([(r"/", MainHandler)])
"""

from __future__ import annotations

from cycloneish.routing import URLReverseError, URLSpec
from cycloneish.signing import (
    DEFAULT_SIGNED_VALUE_MIN_VERSION,
    DEFAULT_SIGNED_VALUE_VERSION,
    MAX_SUPPORTED_SIGNED_VALUE_VERSION,
    MIN_SUPPORTED_SIGNED_VALUE_VERSION,
    _create_signature_v1,
    _create_signature_v2,
    create_signed_value,
    decode_signed_value,
    get_signature_key_version,
)
from cycloneish.web.application import Application
from cycloneish.web.decorators import addslash, asynchronous, authenticated, removeslash, stream_request_body
from cycloneish.web.errors import Finish, HTTPAuthenticationRequired, HTTPError, MissingArgumentError
from cycloneish.web.handler import RequestHandler
from cycloneish.web.redirects import ErrorHandler, FallbackHandler, RedirectHandler
from cycloneish.web.rendering import is_absolute
from cycloneish.web.security_headers import SecurityHeadersMixin
from cycloneish.web.static import StaticFileHandler
from cycloneish.web.transforms import ChunkedTransferEncoding, GZipContentEncoding, OutputTransform
from cycloneish.web.uimodules import TemplateModule, UIModule

url = URLSpec

__all__ = [
    "DEFAULT_SIGNED_VALUE_MIN_VERSION",
    "DEFAULT_SIGNED_VALUE_VERSION",
    "MAX_SUPPORTED_SIGNED_VALUE_VERSION",
    "MIN_SUPPORTED_SIGNED_VALUE_VERSION",
    "Application",
    "ChunkedTransferEncoding",
    "ErrorHandler",
    "FallbackHandler",
    "Finish",
    "GZipContentEncoding",
    "HTTPAuthenticationRequired",
    "HTTPError",
    "MissingArgumentError",
    "OutputTransform",
    "RedirectHandler",
    "RequestHandler",
    "SecurityHeadersMixin",
    "StaticFileHandler",
    "TemplateModule",
    "UIModule",
    "URLReverseError",
    "URLSpec",
    "_create_signature_v1",
    "_create_signature_v2",
    "addslash",
    "asynchronous",
    "authenticated",
    "create_signed_value",
    "decode_signed_value",
    "get_signature_key_version",
    "is_absolute",
    "removeslash",
    "stream_request_body",
    "url",
]
