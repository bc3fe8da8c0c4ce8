"""``cycloneish cert``: what it writes and what it refuses."""

from __future__ import annotations

import io
import ssl
from pathlib import Path

from cryptography import x509
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from cycloneish.http.tls import ServerTLS
from cycloneish.service.certificate import CertificateOptions, make_certificate


class CertificateTest(SynchronousTestCase):
    def make(self, *arguments: str) -> int:
        options = CertificateOptions()
        options.parseOptions(["--out", str(self.folder), *arguments])
        self.printed = io.StringIO()
        return make_certificate(options, self.printed)

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()) / "tls"

    def test_made_for_this_machine(self) -> None:
        self.assertEqual(self.make(), 0)
        certfile, keyfile = self.folder / "cert.pem", self.folder / "key.pem"
        self.assertEqual(keyfile.stat().st_mode & 0o777, 0o600)
        ServerTLS({"certfile": certfile, "keyfile": keyfile})
        ssl.create_default_context(cafile=str(certfile))
        certificate = x509.load_pem_x509_certificate(certfile.read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual([str(name.value) for name in names], ["localhost", "127.0.0.1", "::1"])
        self.assertIn(str(certfile), self.printed.getvalue())
        self.assertNotIn("PRIVATE", self.printed.getvalue())

    def test_names_and_days(self) -> None:
        self.assertEqual(self.make("--name", "dev.example", "--name", "*.dev.example", "--days", "3"), 0)
        certificate = x509.load_pem_x509_certificate((self.folder / "cert.pem").read_bytes())
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        self.assertEqual(names.get_values_for_type(x509.DNSName), ["dev.example", "*.dev.example"])
        self.assertEqual((certificate.not_valid_after_utc - certificate.not_valid_before_utc).days, 3)

    def test_files_that_are_there_stay(self) -> None:
        self.assertEqual(self.make(), 0)
        before = (self.folder / "key.pem").read_bytes()
        self.assertEqual(self.make(), 1)
        self.assertEqual((self.folder / "key.pem").read_bytes(), before)
        self.assertEqual(self.make("--force"), 0)
        self.assertNotEqual((self.folder / "key.pem").read_bytes(), before)

    def test_refused(self) -> None:
        for wrong in (["--days", "0"], ["--days", "soon"]):
            self.assertRaises(usage.UsageError, CertificateOptions().parseOptions, wrong)
