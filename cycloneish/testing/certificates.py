"""A certificate that signs itself, made when a test of TLS first needs one.

Used by :class:`~cycloneish.testing.AsyncHTTPSTestCase`. Needs the ``tls`` extra.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile

from cycloneish.http.self_signed import self_signed

__all__ = ["self_signed_certificate"]


@functools.cache
def self_signed_certificate() -> tuple[str, str]:
    """Paths of a certificate and its key, in PEM, for localhost and 127.0.0.1.

    They are made once for each process, and removed at its end.
    """
    directory = tempfile.mkdtemp(prefix="cycloneish-testing-")
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    files = os.path.join(directory, "test.crt"), os.path.join(directory, "test.key")
    for file, content in zip(files, self_signed(["localhost", "127.0.0.1"], days=7), strict=True):
        with open(file, "wb") as target:
            target.write(content)
    return files
