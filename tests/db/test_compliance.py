"""SQLAlchemy's own suite for dialects: nothing fails, and what is left out is what the documentation says."""

from __future__ import annotations

import re
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.compliance.requirements import EXCLUDED
from tests.programs import ROOT, environment

#: How many tests pass at least: a suite that no longer finds its tests shall not look green.
LEAST = 1850
#: Seconds for all of it. It takes less than a minute; a slow and busy machine may take far longer.
PATIENCE = 1200


class ComplianceTest(SynchronousTestCase):
    def test_the_suite(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tests.compliance"],
            cwd=ROOT,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
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
