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
        (``ssl.CERT_OPTIONAL`` or ``ssl.CERT_REQUIRED`` ask clients for a certificate).
    :returns: a ``twisted.internet.ssl.CertificateOptions``; TLS 1.2 and later.
    :raises KeyError: no ``certfile``, or no ``ca_certs`` where ``cert_reqs`` needs them.
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
        from OpenSSL import SSL, crypto
        from twisted.internet.ssl import (
            Certificate,
            CertificateOptions,
            TLSVersion,
            trustRootFromCertificates,
        )
    except ImportError as error:
        raise ImportError("TLS needs more libraries: pip install 'cycloneish[tls]'") from error
    try:
        chain = _certificates(certificates, Certificate)
        # With an empty passphrase an encrypted key is refused; without one OpenSSL would ask the terminal.
        private_key = crypto.load_privatekey(crypto.FILETYPE_PEM, key, b"")
    except (crypto.Error, ValueError, TypeError) as error:
        raise ValueError(f"{certfile}: not a PEM certificate and an unencrypted key ({error})") from error
    if not chain:
        raise ValueError(f"{certfile}: no certificate in it")
    trust = None
    wanted = options.get("cert_reqs", ssl.CERT_NONE)
    if wanted != ssl.CERT_NONE:
        authorities = Path(options["ca_certs"]).read_bytes()
        trust = trustRootFromCertificates(
            [Certificate(one) for one in _certificates(authorities, Certificate)]
        )
    made = CertificateOptions(
        privateKey=private_key,
        certificate=chain[0],
        extraCertChain=chain[1:],
        trustRoot=trust,
        raiseMinimumTo=TLSVersion.TLSv1_2,
    )
    made.requireCertificate = wanted == ssl.CERT_REQUIRED
    try:
        made.getContext()  # now, rather than with the first connection
    except SSL.Error as error:
        raise ValueError(f"{certfile}: the key does not belong to the certificate ({error})") from error
    return made


def _certificates(pem: bytes, certificate: Any) -> list[Any]:
    """The certificates of a PEM file, in their order."""
    begin = b"-----BEGIN CERTIFICATE-----"
    return [certificate.loadPEM(begin + part).original for part in pem.split(begin)[1:]]
