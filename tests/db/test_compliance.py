"""SQLAlchemy's own suite for dialects: nothing fails, and what does not run is what the documentation says.

Here without the two longest series (reflection and JSON, each hundreds of combinations);
``python -m tests.compliance`` runs everything, and ``CYCLONEISH_COMPLIANCE=full`` does so here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.compliance.requirements import EXCLUDED
from tests.programs import ROOT, environment

FULL = os.environ.get("CYCLONEISH_COMPLIANCE") == "full"
#: How many tests pass at least: a suite that no longer finds its tests shall not look green.
LEAST = 1850 if FULL else 850


class ComplianceTest(SynchronousTestCase):
    def test_the_suite(self) -> None:
        command = [sys.executable, "-m", "tests.compliance"]
        if not FULL:
            command += ["-k", "not ComponentReflectionTest_ and not JSONTest_"]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800 if FULL else 600,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-5000:])
        passed = re.search(r"(\d+) passed", done.stdout)
        assert passed is not None
        self.assertGreaterEqual(int(passed.group(1)), LEAST)
        self.assertNotRegex(done.stdout, r"\d+ (failed|error)")
        self.assertEqual(sorted(skipped(done.stdout)), sorted(EXCLUDED))

    def test_the_documentation_tells_what_is_excluded(self) -> None:
        page = (ROOT / "docs" / "guides" / "orm.md").read_text()
        for test, reason in EXCLUDED.items():
            self.assertIn(test.replace("::", "."), page)
            self.assertIn(reason, page)


def skipped(output: str) -> list[str]:
    """The tests that pytest reports as skipped, by class, name and first argument."""
    found = re.findall(r"suite\.py::(\w+?)_postgresql\S*::(\w+)(\[\w+)?", output)
    return [f"{case}::{test}" + (f"{argument}]" if argument else "") for case, test, argument in found]
