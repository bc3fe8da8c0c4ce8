"""``HTTPRequest``: what to fetch, with every option of Tornado's and a few more.

Used by the client of this package and by ``websocket_connect``.  Importing it loads no TLS and no client
code.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cycloneish.escape import json_encode, utf8
from cycloneish.httpclient.multipart import FileParts, encode_form, encode_multipart
from cycloneish.httputil import HTTPHeaders, format_timestamp

if TYPE_CHECKING:
    import ssl

    from cycloneish.httpclient.retries import Retry

__all__ = ["HTTPRequest"]


class HTTPRequest:
    """A request to be fetched.

    :param url: an absolute ``http`` or ``https`` URL; credentials in it are sent as basic authentication.
    :param method: ``GET`` and so on; other than the usual ones with *allow_nonstandard_methods*.
    :param headers: a dict or ``HTTPHeaders``.  Values are sent as latin-1.
    :param body: bytes, or text that is sent as UTF-8.
    :param auth_username: user for HTTP authentication.
    :param auth_password: the password.
    :param auth_mode: ``"basic"`` (the default) or ``"digest"`` (RFC 7616).
    :param connect_timeout: seconds for name, connection and TLS; 20 by default, 0 for none.
    :param request_timeout: seconds for everything: the wait for a free connection, redirects and retries; 20
        by default, 0 for none.
    :param if_modified_since: for the header of this name, as ``datetime`` or seconds since the epoch.
    :param follow_redirects: follow 301, 302, 303, 307 and 308; the default.
    :param max_redirects: how many of them; 5 by default.
    :param user_agent: for the header of this name.
    :param use_gzip: older name of *decompress_response*.
    :param network_interface: address of this host from which to connect.
    :param streaming_callback: called with each piece of the body; may be ``async def`` or return a Deferred,
        and then nothing more is read until it is done.
    :param header_callback: called with each line of the head of the response, as they come.
    :param prepare_curl_callback: refused, there is no curl here.
    :param proxy_host: an HTTP proxy; ``https`` goes through it as a tunnel.
    :param proxy_port: its port.
    :param proxy_username: user of the proxy.
    :param proxy_password: the password.
    :param proxy_auth_mode: ``"basic"``.
    :param allow_nonstandard_methods: allow any method, and any method with or without a body.
    :param validate_cert: check the certificate of the server and that it is for its name; the default.
    :param ca_certs: file with the authorities to trust, PEM; those of the system by default.
    :param allow_ipv6: connect to IPv6 addresses as well; the default.
    :param client_key: file with the key of *client_cert*, PEM.
    :param client_cert: file with a certificate of ours, PEM.
    :param body_producer: called with a function ``write(bytes)``, whose Deferred fires when more may be
        written; may be ``async def``.  Without a Content-Length header the body is sent in chunks.
    :param expect_100_continue: ask the server before the body is sent.
    :param decompress_response: ask for gzip and take it off; the default.
    :param ssl_options: an ``ssl.SSLContext``, or a dict with ``certfile``, ``keyfile``, ``ca_certs``,
        ``cert_reqs``, ``ciphers``; in place of *validate_cert*, *ca_certs*, *client_key* and *client_cert*.
    :param json: sent as the body, in JSON, with the Content-Type for it.
    :param form: fields of a form (a dict, or pairs), sent as the body.
    :param files: files of a form, by their fields: ``{"picture": ("a.png", data, "image/png")}``; with
        *form* in one ``multipart/form-data`` body.
    :param retry: when and how often to try again (``Retry``).

    What is None comes from the ``defaults`` of the client.  Counterpart: ``tornado.httpclient.HTTPRequest``,
    which has neither *json*, *form*, *files* nor *retry*.
    """

    _DEFAULTS: dict[str, Any] = {
        "connect_timeout": 20.0,
        "request_timeout": 20.0,
        "follow_redirects": True,
        "max_redirects": 5,
        "decompress_response": True,
        "proxy_password": "",
        "allow_nonstandard_methods": False,
        "validate_cert": True,
    }

    def __init__(
        self,
        url: str,
        method: str = "GET",
        headers: Mapping[str, str] | HTTPHeaders | None = None,
        body: bytes | str | None = None,
        auth_username: str | None = None,
        auth_password: str | None = None,
        auth_mode: str | None = None,
        connect_timeout: float | None = None,
        request_timeout: float | None = None,
        if_modified_since: float | datetime.datetime | None = None,
        follow_redirects: bool | None = None,
        max_redirects: int | None = None,
        user_agent: str | None = None,
        use_gzip: bool | None = None,
        network_interface: str | None = None,
        streaming_callback: Callable[[bytes], Any] | None = None,
        header_callback: Callable[[str], None] | None = None,
        prepare_curl_callback: Callable[[Any], None] | None = None,
        proxy_host: str | None = None,
        proxy_port: int | None = None,
        proxy_username: str | None = None,
        proxy_password: str | None = None,
        proxy_auth_mode: str | None = None,
        allow_nonstandard_methods: bool | None = None,
        validate_cert: bool | None = None,
        ca_certs: str | None = None,
        allow_ipv6: bool | None = None,
        client_key: str | None = None,
        client_cert: str | None = None,
        body_producer: Callable[[Callable[[bytes], Any]], Any] | None = None,
        expect_100_continue: bool = False,
        decompress_response: bool | None = None,
        ssl_options: dict[str, Any] | ssl.SSLContext | None = None,
        *,
        json: Any = None,
        form: Mapping[str, Any] | list[tuple[str, Any]] | None = None,
        files: FileParts | None = None,
        retry: Retry | None = None,
    ) -> None:
        self._headers: HTTPHeaders = HTTPHeaders() if headers is None else headers  # type: ignore[assignment]
        if if_modified_since:
            self.headers["If-Modified-Since"] = format_timestamp(if_modified_since)
        self.proxy_host = proxy_host
        self.proxy_port = proxy_port
        self.proxy_username = proxy_username
        self.proxy_password = proxy_password
        self.proxy_auth_mode = proxy_auth_mode
        self.url = url
        self.method = method
        self._body: bytes | None = utf8(body)
        self.body_producer = body_producer
        self.auth_username = auth_username
        self.auth_password = auth_password
        self.auth_mode = auth_mode
        self.connect_timeout = connect_timeout
        self.request_timeout = request_timeout
        self.follow_redirects = follow_redirects
        self.max_redirects = max_redirects
        self.user_agent = user_agent
        self.decompress_response = use_gzip if decompress_response is None else decompress_response
        self.network_interface = network_interface
        self.streaming_callback = streaming_callback
        self.header_callback = header_callback
        self.prepare_curl_callback = prepare_curl_callback
        self.allow_nonstandard_methods = allow_nonstandard_methods
        self.validate_cert = validate_cert
        self.ca_certs = ca_certs
        self.allow_ipv6 = allow_ipv6
        self.client_key = client_key
        self.client_cert = client_cert
        self.ssl_options = ssl_options
        self.expect_100_continue = expect_100_continue
        self.retry = retry
        self.start_time = time.time()
        if json is not None or form is not None or files is not None:
            self._encode(json, form, files)

    def _encode(self, json: Any, form: Any, files: FileParts | None) -> None:
        """Make the body of one of the convenient forms."""
        if self.body is not None or self.body_producer is not None or (json is not None and (form or files)):
            raise ValueError("a request has one body: body, body_producer, json, or form and files")
        if json is not None:
            self.body, content_type = utf8(json_encode(json)), "application/json"
        elif files is not None:
            self.body, content_type = encode_multipart(form or {}, files)
        else:
            self.body, content_type = encode_form(form), "application/x-www-form-urlencoded"
        self._headers = HTTPHeaders(self._headers)
        # Multipart has a boundary, which the caller cannot know.
        if files is not None or "Content-Type" not in self._headers:
            self._headers["Content-Type"] = content_type

    @property
    def headers(self) -> HTTPHeaders:
        """The header fields; the dict that was given, until the request is fetched."""
        return self._headers

    @headers.setter
    def headers(self, value: Mapping[str, str] | HTTPHeaders | None) -> None:
        self._headers = HTTPHeaders() if value is None else value  # type: ignore[assignment]

    @property
    def body(self) -> bytes | None:
        """The body as bytes."""
        return self._body

    @body.setter
    def body(self, value: bytes | str | None) -> None:
        self._body = utf8(value)


class _RequestProxy:
    """A request whose unset options come from a dict of defaults."""

    def __init__(self, request: HTTPRequest, defaults: dict[str, Any] | None) -> None:
        self.request = request
        self.defaults = defaults

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.request, name)
        if value is None and self.defaults is not None:
            return self.defaults.get(name)
        return value
