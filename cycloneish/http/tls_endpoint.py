"""``ssl:`` endpoint strings, with what Twisted's own lacks: a certificate per name, ALPN, new ones meanwhile.

Read by :meth:`cycloneish.httpserver.HTTPServer.listen`.
"""

from __future__ import annotations

import ssl
from typing import Any

__all__ = ["parse_ssl_endpoint"]

#: Keys of the endpoint string and what they are called in ``ssl_options``.
_OPTIONS = {
    "privateKey": "keyfile",
    "certKey": "certfile",
    "extraCertChain": "chainfile",
    "certificates": "certificates",
    "caCerts": "ca_certs",
    "ciphers": "ciphers",
}
_LISTENING = ("interface", "backlog")
_CLIENT_CERTIFICATES = {"optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def parse_ssl_endpoint(description: str) -> tuple[str, dict[str, Any]]:
    """Split ``ssl:PORT:privateKey=FILE:certKey=FILE…`` into a ``tcp:`` endpoint and ``ssl_options``.

    :param description: the endpoint string.  Keys are those of Twisted (``privateKey``, ``certKey``,
        ``extraCertChain``, ``interface``, ``backlog``) and further ``certificates`` (a directory of ``*.pem``
        files for more names), ``clientCertificate`` (``optional`` or ``required``) with ``caCerts``, and
        ``ciphers``.
        A backslash takes the meaning from the character behind it.
    :raises ValueError: a key is unknown or given twice, or the certificate is missing.
    """
    fields = [_split(field, "=", 1) for field in _split(description, ":")[1:]]
    tcp = "tcp"
    options: dict[str, Any] = {}
    seen: set[str] = set()
    for position, field in enumerate(fields):
        key, value = ("port" if position == 0 else "interface", field[0]) if len(field) == 1 else field
        value = _unescaped(value)
        if key in seen:
            raise ValueError(f"endpoint {description!r}: {key} is given twice")
        seen.add(key)
        if key == "port":
            tcp += f":{value}"
        elif key in _LISTENING:
            tcp += f":{key}={_escaped(value)}"
        elif key in _OPTIONS:
            options[_OPTIONS[key]] = value
        elif key == "clientCertificate" and value in _CLIENT_CERTIFICATES:
            options["cert_reqs"] = _CLIENT_CERTIFICATES[value]
        else:
            known = ", ".join([*_OPTIONS, *_LISTENING, "clientCertificate=optional|required"])
            raise ValueError(f"endpoint {description!r}: {key}={value} is not known; there are: {known}")
    if "keyfile" not in options and "certfile" not in options:
        raise ValueError(f"endpoint {description!r}: privateKey=FILE and certKey=FILE are missing")
    options.setdefault("certfile", options.get("keyfile"))
    return tcp, options


def _split(text: str, separator: str, most: int | None = None) -> list[str]:
    """The parts between *separator*, at which *text* is cut *most* times; escapes are kept."""
    parts: list[str] = []
    current, escaped = "", False
    for character in text:
        if character == separator and not escaped and len(parts) != most:
            parts.append(current)
            current = ""
            continue
        current += character
        escaped = character == "\\" and not escaped
    return [*parts, current]


def _unescaped(text: str) -> str:
    plain, escaped = "", False
    for character in text:
        if character == "\\" and not escaped:
            escaped = True
        else:
            plain += character
            escaped = False
    return plain


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace(":", "\\:").replace("=", "\\=")
