"""TLS for servers: Tornado's ``ssl_options`` as what Twisted's TLS wants, pyOpenSSL underneath.

Loaded only when a server is given ``ssl_options``.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

__all__ = ["server_options"]


def server_options(options: dict[str, Any] | ssl.SSLContext) -> Any:
    """Read the certificate and key that *options* name.

    :param options: ``certfile`` (PEM, chain included), ``keyfile`` (the same file by default),
        ``ca_certs`` (PEM, the authorities of client certificates) and ``cert_reqs``
        (``ssl.CERT_REQUIRED`` asks clients for a certificate).
    :returns: a ``twisted.internet.ssl.CertificateOptions``; TLS 1.2 and later.
    :raises KeyError: no ``certfile``.
    :raises OSError: a file cannot be read.
    :raises ValueError: a file is not what it should be.
    :raises TypeError: an ``ssl.SSLContext`` was given, whose key cannot be taken out of it.
    """
    if isinstance(options, ssl.SSLContext):
        raise TypeError(
            "ssl_options takes a dict with certfile and keyfile: TLS runs on pyOpenSSL here, and the key "
            "of a standard library SSLContext cannot be read back"
        )
    certfile = Path(options["certfile"])
    certificates = certfile.read_bytes()
    key = Path(options.get("keyfile") or certfile).read_bytes()
    try:
        from OpenSSL import crypto
        from twisted.internet.ssl import (
            Certificate,
            CertificateOptions,
            TLSVersion,
            trustRootFromCertificates,
        )
    except ImportError as error:
        raise ImportError("TLS needs more libraries: pip install 'cycloneish[tls]'") from error
    try:
        chain = [
            Certificate.loadPEM(b"-----BEGIN CERTIFICATE-----" + part).original
            for part in certificates.split(b"-----BEGIN CERTIFICATE-----")[1:]
        ]
        private_key = crypto.load_privatekey(crypto.FILETYPE_PEM, key)
    except crypto.Error as error:
        raise ValueError(f"{certfile}: not a PEM certificate and key ({error})") from error
    if not chain:
        raise ValueError(f"{certfile}: no certificate in it")
    trust = None
    if options.get("cert_reqs", ssl.CERT_NONE) == ssl.CERT_REQUIRED:
        authorities = Path(options["ca_certs"]).read_bytes()
        trust = trustRootFromCertificates(
            [
                Certificate.loadPEM(b"-----BEGIN CERTIFICATE-----" + part)
                for part in authorities.split(b"-----BEGIN CERTIFICATE-----")[1:]
            ]
        )
    return CertificateOptions(
        privateKey=private_key,
        certificate=chain[0],
        extraCertChain=chain[1:],
        trustRoot=trust,
        raiseMinimumTo=TLSVersion.TLSv1_2,
    )
