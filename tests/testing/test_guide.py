"""The examples of the guide to testing run as it says."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
EXAMPLES = os.path.join(ROOT, "docs", "examples", "testing_kit")


class GuideTests(SynchronousTestCase):
    def run_in_examples(self, *command: str) -> str:
        out = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=EXAMPLES,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, EXAMPLES])},
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(out.returncode, 0, out.stdout + out.stderr)
        return out.stdout

    def test_with_trial(self) -> None:
        out = self.run_in_examples(
            "twisted.trial", "--temp-directory", os.path.abspath(self.mktemp()), "test_notes"
        )
        self.assertIn("PASSED (successes=10)", out)

    def test_with_pytest(self) -> None:
        out = self.run_in_examples("pytest", "-q", "-p", "no:cacheprovider", "test_notes_pytest.py")
        self.assertIn("2 passed", out)
