"""Signatures of OAuth 1.0 (RFC 5849 section 3.4).

Called by ``OAuthMixin``, and by tests that check what it sends.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

__all__ = ["base_string", "signature"]

_HASHES = {"HMAC-SHA1": hashlib.sha1, "HMAC-SHA256": hashlib.sha256}


def _escaped(value: Any) -> str:
    """Section 3.6."""
    return quote(value if isinstance(value, bytes) else str(value), safe="~")


def base_string(method: str, url: str, parameters: Mapping[str, Any]) -> str:
    """What is signed.

    :param url: with its query, whose parameters are signed as well.
    :param parameters: of the header Authorization and of an urlencoded body.  The body of an upload
        (``multipart/form-data``) has none (section 3.4.1.3.1).
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if ":" in host:
        host = f"[{host}]"
    scheme = parts.scheme.lower()
    if parts.port is not None and (scheme, parts.port) not in (("http", 80), ("https", 443)):
        host += f":{parts.port}"
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    for name, value in parameters.items():
        pairs += [(name, one) for one in (value if isinstance(value, list | tuple) else [value])]
    encoded = sorted((_escaped(name), _escaped(value)) for name, value in pairs)
    normalized = "&".join(f"{name}={value}" for name, value in encoded)
    return "&".join(map(_escaped, (method.upper(), f"{scheme}://{host}{parts.path or '/'}", normalized)))


def signature(
    method: str,
    url: str,
    parameters: Mapping[str, Any],
    consumer_secret: str,
    token_secret: str = "",
    signature_method: str = "HMAC-SHA1",
    escape_secrets: bool = True,
) -> str:
    """Sign a request.

    :param signature_method: ``HMAC-SHA1``, ``HMAC-SHA256``, or ``PLAINTEXT``, over https only.
    :param escape_secrets: as 1.0a wants it; the first 1.0 did not say so.
    :raises ValueError: the method is none of these, or would send the secrets in the clear.
    """
    secrets = [consumer_secret, token_secret]
    key = "&".join(map(_escaped, secrets) if escape_secrets else secrets)
    if signature_method == "PLAINTEXT":
        if urlsplit(url).scheme.lower() != "https":
            raise ValueError("PLAINTEXT signatures are secrets, which go over https only")
        return key
    if signature_method not in _HASHES:
        raise ValueError(f"unknown signature method {signature_method!r}")
    message = base_string(method, url, parameters).encode("ascii")
    return b64encode(hmac.new(key.encode(), message, _HASHES[signature_method]).digest()).decode("ascii")
