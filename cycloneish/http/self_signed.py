"""Certificates that sign themselves, for development (``cycloneish cert``) and the testing kit.

Needs the ``tls`` extra.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError as error:
    raise ImportError("TLS needs more libraries: pip install 'cycloneish[tls]'") from error

__all__ = ["self_signed"]


def self_signed(names: Iterable[str], days: float) -> tuple[bytes, bytes]:
    """Make a certificate and its key (P-256).

    It can be given to a client as the authority to trust, and may sign for its own names only.

    :param names: the DNS names and IP addresses that the certificate is for; the first is its subject.
    :param days: how long it is good, from now.
    :returns: certificate and unencrypted key, both PEM.
    :raises ValueError: a name cannot stand in a certificate, or there is none.
    """
    names = list(names)
    if not names:
        raise ValueError("a certificate needs at least one name")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of other machines may be behind.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name.encode("idna").decode("ascii") if not name.isascii() else name)
