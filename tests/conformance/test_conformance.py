"""The ratchet: what passed of Tornado's own test suite still passes. One test for each row."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.conformance.__main__ import PAGE, page, read_expected, regressions, the_server
from tests.conformance.rows import ALL_ROWS, ROWS, Row


def _test_of(row: Row) -> Any:
    def test(self: SynchronousTestCase) -> None:
        _, worse = regressions(row, read_expected())
        self.assertEqual(worse, {})

    return test


class ConformanceTest(SynchronousTestCase):
    def test_the_page_says_what_is_expected(self) -> None:
        self.assertIn(page(read_expected()), PAGE.read_text(encoding="utf-8"))

    def test_enough_of_the_server_passes(self) -> None:
        # With the option that the page speaks of; see there for the count without it.
        rows = read_expected()["rows"]
        tests = sum(row.tests for row in the_server(ROWS))
        bad = 0
        for row in the_server(ROWS):
            known = rows.get(f"{row.name}:tornado_statuses", rows[row.name])
            bad += len(known["failed"]) + len(known["skipped"])
        self.assertGreaterEqual((tests - bad) / tests, 0.98)


for _row in ALL_ROWS:
    setattr(ConformanceTest, f"test_{_row.key.replace(':', '_with_')}", _test_of(_row))
