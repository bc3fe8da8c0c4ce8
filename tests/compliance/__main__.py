"""``python -m tests.compliance``: SQLAlchemy's own suite for dialects, against a private PostgreSQL.

Arguments are handed on to pytest, such as ``-k Reflection -x``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import psycopg2
import pytest

from tests.db.support import fresh_url

HERE = Path(__file__).parent


def make_url() -> str:
    """A database with the second schema that the suite wants."""
    url = fresh_url()
    connection = psycopg2.connect(url)
    with connection, connection.cursor() as cursor:
        cursor.execute("create schema test_schema")
    connection.close()
    return url.replace("postgresql:", "postgresql+txpostgres:")


def main(arguments: list[str]) -> int:
    """Run it; gives pytest's exit status."""
    return int(
        pytest.main(
            [
                str(HERE / "suite.py"),
                f"--rootdir={HERE}",
                f"--dburi={make_url()}",
                "-p",
                "no:cacheprovider",
                "-o",
                "python_files=suite.py",
                "-q",
                "-rs",
                *arguments,
            ]
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
