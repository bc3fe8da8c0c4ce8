"""HTTP's values: headers, requests, forms, cookies, ranges, dates, and the engine's interfaces.

The names are those of Tornado's ``tornado.httputil``. This file only hands them on; each subject has its
own module: :mod:`.grammar`, :mod:`.headers`, :mod:`.interfaces`, :mod:`.request`, :mod:`.forms`,
:mod:`.cookies`, :mod:`.ranges`, :mod:`.urls`, :mod:`~cycloneish.httputil.errors`.
"""

from __future__ import annotations

from typing import Any

from cycloneish import util
from cycloneish.httputil import urls
from cycloneish.httputil.cookies import _unquote_cookie, parse_cookie
from cycloneish.httputil.errors import HTTPInputError, HTTPOutputError
from cycloneish.httputil.forms import (
    HTTPFile,
    ParseBodyConfig,
    ParseMultipartConfig,
    ParseUrlEncodedConfig,
    get_parse_body_config,
    parse_body_arguments,
    parse_multipart_form_data,
    set_parse_body_config,
)
from cycloneish.httputil.grammar import (
    HTTP_WHITESPACE,
    RequestStartLine,
    ResponseStartLine,
    canonical_name,
    parse_request_start_line,
    parse_response_start_line,
    responses,
    split_host_and_port,
    valid_host,
)
from cycloneish.httputil.headers import HTTPHeaders, _encode_header, _parse_header
from cycloneish.httputil.interfaces import (
    HTTPConnection,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
)
from cycloneish.httputil.ranges import (
    _get_content_range,
    _int_or_none,
    _parse_request_range,
    parse_range_set,
)
from cycloneish.httputil.request import HTTPServerRequest
from cycloneish.httputil.urls import (
    encode_username_password,
    format_timestamp,
    qs_to_qsl,
    url_concat,
)

__all__ = [
    "HTTP_WHITESPACE",
    "HTTPConnection",
    "HTTPFile",
    "HTTPHeaders",
    "HTTPInputError",
    "HTTPMessageDelegate",
    "HTTPOutputError",
    "HTTPServerConnectionDelegate",
    "HTTPServerRequest",
    "ParseBodyConfig",
    "ParseMultipartConfig",
    "ParseUrlEncodedConfig",
    "RequestStartLine",
    "ResponseStartLine",
    "_encode_header",
    "_get_content_range",
    "_int_or_none",
    "_parse_header",
    "_parse_request_range",
    "_unquote_cookie",
    "canonical_name",
    "doctests",
    "encode_username_password",
    "format_timestamp",
    "get_parse_body_config",
    "parse_body_arguments",
    "parse_cookie",
    "parse_multipart_form_data",
    "parse_range_set",
    "parse_request_start_line",
    "parse_response_start_line",
    "qs_to_qsl",
    "responses",
    "set_parse_body_config",
    "split_host_and_port",
    "url_concat",
    "valid_host",
]


def __getattr__(name: str) -> Any:
    # Tornado's name for the limits in force, which set_parse_body_config exchanges.
    if name == "_DEFAULT_PARSE_BODY_CONFIG":
        return get_parse_body_config()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def doctests() -> Any:
    """The examples in the docstrings of `cycloneish.httputil.urls` as a suite for ``unittest``."""
    return util.doctests(urls.__name__)
