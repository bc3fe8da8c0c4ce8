"""A table streamed through a handler takes no more memory for being long.

``CYCLONEISH_CSV_ROWS=200000 python -m twisted.trial tests.db.test_streaming`` is the long version.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.db.support import fresh_url
from tests.programs import ROOT, environment

ROWS = int(os.environ.get("CYCLONEISH_CSV_ROWS", "40000"))
#: MiB; all 40,000 rows as Python objects would take about as much.
MOST_GROWTH = 30 if ROWS >= 200_000 else 12


class CSVTest(SynchronousTestCase):
    def test_memory_does_not_grow_with_the_rows(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.db.csv_program", fresh_url(), str(ROWS)],
            cwd=ROOT,
            env=environment(TZ="UTC", PGTZ="UTC"),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        self.assertEqual(done.returncode, 0, done.stdout)
        result = json.loads(done.stdout.splitlines()[-1])
        # A row may be cut between two pieces just where it is counted.
        self.assertGreater(result["lines"], ROWS * 0.99)
        self.assertGreater(result["bytes"], ROWS * 60)
        self.assertLess(result["growth"], MOST_GROWTH, result)
