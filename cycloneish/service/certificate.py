"""The command ``cycloneish cert``: a certificate for development, in two files."""

from __future__ import annotations

import hashlib
import os
import ssl
import sys
from pathlib import Path
from typing import TextIO

from twisted.python import usage

from cycloneish.service.options import CommandLine

__all__ = ["CertificateOptions", "make_certificate"]

_NAMES = ["localhost", "127.0.0.1", "::1"]


class CertificateOptions(CommandLine):
    """Make a certificate for development, which signs itself."""

    synopsis = "Usage: cycloneish cert [--name NAME]… [--out DIR] [--days N] [--force]"
    longdesc = (
        "Writes cert.pem and key.pem. No browser trusts the certificate until it is told to; for the public "
        "Internet get one from an authority such as Let's Encrypt."
    )
    optFlags = [["force", "f", "Replace the files if they are there"]]
    optParameters = [
        ["out", "o", ".", "The directory to write to"],
        ["days", None, 90, "How long the certificate is good", int],
    ]

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self["names"] = []

    def opt_name(self, name: str) -> None:
        """A host name or address that it is for, repeatable (default: localhost, 127.0.0.1 and ::1)"""
        self["names"].append(name)

    def postOptions(self) -> None:
        if self["days"] < 1:
            raise usage.UsageError("--days: at least 1")


def make_certificate(options: CertificateOptions, out: TextIO | None = None) -> int:
    """Do what the command line says.

    :param out: where to print; standard output if not given.
    :returns: the exit status: 1 when the files could not be made.
    """
    try:
        from cycloneish.http.self_signed import self_signed

        certificate, key = self_signed(options["names"] or _NAMES, options["days"])
        directory = Path(options["out"])
        directory.mkdir(parents=True, exist_ok=True)
        certfile, keyfile = directory / "cert.pem", directory / "key.pem"
        if not options["force"]:
            for file in (certfile, keyfile):
                if file.exists():
                    raise FileExistsError(f"{file} is there already; --force replaces it")
        _write(keyfile, key, 0o600)
        _write(certfile, certificate, 0o644)
    except (ImportError, OSError, ValueError) as error:
        print(f"cycloneish: {error}", file=sys.stderr)
        return 1
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate.decode())).hexdigest().upper()
    print(
        f"{certfile} and {keyfile}, good for {options['days']} days\n"
        f"SHA-256 {':'.join(digest[i : i + 2] for i in range(0, len(digest), 2))}\n"
        f"cycloneish run --listen ssl:8443:certKey={certfile}:privateKey={keyfile}\n"
        f"curl --cacert {certfile} https://localhost:8443/",
        file=out or sys.stdout,
    )
    return 0


def _write(file: Path, content: bytes, mode: int) -> None:
    """Write a new file, so that the old one's permissions and links do not matter."""
    file.unlink(missing_ok=True)
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as target:
        target.write(content)
