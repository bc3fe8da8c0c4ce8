"""The client's TLS certificate in the shape that Python's ``ssl`` module gives it.

Called by :meth:`HTTPServerRequest.get_ssl_certificate
<cycloneish.httputil.HTTPServerRequest.get_ssl_certificate>` only, with what Twisted's TLS transport hands
out (an ``OpenSSL.crypto.X509``). The TLS libraries are an extra and are loaded when there is a certificate
to look at, which means they are there.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

__all__ = ["certificate_der", "certificate_dict"]

# Names that ssl.SSLSocket.getpeercert uses, where cryptography's OID names differ from them.
_SAN_KINDS: Final = (
    ("DNSName", "DNS"),
    ("IPAddress", "IP Address"),
    ("RFC822Name", "email"),
    ("UniformResourceIdentifier", "URI"),
)


def certificate_der(certificate: Any) -> bytes:
    """Return the DER form of an ``OpenSSL.crypto.X509``."""
    serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
    encoded: bytes = certificate.to_cryptography().public_bytes(serialization.Encoding.DER)
    return encoded


def certificate_dict(certificate: Any) -> dict[str, Any]:
    """Return the fields of an ``OpenSSL.crypto.X509`` as ``ssl.SSLSocket.getpeercert`` does."""
    x509 = importlib.import_module("cryptography.x509")
    cert = certificate.to_cryptography()
    fields: dict[str, Any] = {
        "subject": _name(cert.subject),
        "issuer": _name(cert.issuer),
        "version": cert.version.value + 1,
        "serialNumber": f"{cert.serial_number:X}",
        "notBefore": _date(cert.not_valid_before_utc),
        "notAfter": _date(cert.not_valid_after_utc),
    }
    try:
        names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return fields
    fields["subjectAltName"] = tuple(
        (label, str(value))
        for kind, label in _SAN_KINDS
        for value in names.get_values_for_type(getattr(x509, kind))
    )
    return fields


def _name(name: Any) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple(tuple((part.oid._name, part.value) for part in rdn) for rdn in name.rdns)


def _date(when: Any) -> str:
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    return f"{months[when.month - 1]} {when.day:2d} {when:%H:%M:%S} {when.year} GMT"
