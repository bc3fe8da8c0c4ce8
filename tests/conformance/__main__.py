"""``python -m tests.conformance [ROW …]``: run Tornado's tests on cycloneish and compare.

Exit status 1 if a test that is expected to pass does not.  ``--update`` writes what was seen to
``expected.json`` (reasons that stand there are kept) and the table in ``docs/conformance.md``;
``--test NAME`` runs only tests whose id contains NAME, with their tracebacks.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tornado

from tests.conformance.rows import ALL_ROWS, BESIDE_THE_SERVER, ROWS, SECOND_TIER, WITH_OPTION, Row
from tests.programs import environment

EXPECTED = Path(__file__).with_name("expected.json")
PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
#: Seconds that one row may take.
ROW_TIMEOUT = 600

Outcome = dict[str, dict[str, str]]


def read_expected() -> dict[str, Any]:
    """What is known of each row: the tests that fail and those that Tornado skips, with their reasons."""
    return json.loads(EXPECTED.read_text(encoding="utf-8")) if EXPECTED.exists() else {"rows": {}}


def run(row: Row, only: str | None = None) -> Outcome:
    """Run *row* in a process of its own; returns status and text for each test."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "tests.conformance.child", row.key, directory]
        done = subprocess.run(
            command + ([only] if only else []),
            capture_output=True,
            env=environment(),
            timeout=ROW_TIMEOUT,
        )
    results = {line["id"]: line for line in map(json.loads, done.stdout.splitlines())}
    if not results and not only:
        sys.stderr.buffer.write(done.stderr[-4000:])
    return results


def reason_of(result: dict[str, str]) -> str:
    """The last line of a traceback, or why a test was skipped."""
    lines = result["text"].strip().splitlines()
    return lines[-1][:200] if lines else ""


def counts(row: Row, expected: dict[str, Any]) -> tuple[int, int, int, int]:
    """Tests, passed, skipped, not passing."""
    known = expected["rows"].get(row.key, {"failed": {}, "skipped": {}})
    failed, skipped = len(known["failed"]), len(known["skipped"])
    return row.tests, row.tests - failed - skipped, skipped, failed


def the_server(rows: Sequence[Row]) -> list[Row]:
    """The rows that are about the server and what handlers use."""
    return [row for row in rows if row.name not in BESIDE_THE_SERVER]


def table(rows: Sequence[Row], expected: dict[str, Any], total: str = "total") -> list[str]:
    """One line for each row, and their sum."""
    numbers = [counts(row, expected) for row in rows]
    sums = [sum(column) for column in zip(*numbers, strict=True)]
    return [
        "| module | tests | passed | skipped by Tornado | not passing |",
        "|---|--:|--:|--:|--:|",
        *(f"| {row.key} | " + " | ".join(map(str, of)) + " |" for row, of in zip(rows, numbers, strict=True)),
        f"| **{total}** | " + " | ".join(f"**{number}**" for number in sums) + " |",
    ]


def reasons(rows: Sequence[Row], expected: dict[str, Any]) -> list[str]:
    """Why each test does not pass that does not."""
    lines = ["| module | test | why |", "|---|---|---|"]
    for row in rows:
        known = expected["rows"].get(row.key, {"failed": {}, "skipped": {}})
        for why, tests in (("", known["failed"]), ("skipped: ", known["skipped"])):
            lines += [f"| {row.key} | `{name}` | {why}{text} |" for name, text in sorted(tests.items())]
    return lines


def page(expected: dict[str, Any]) -> str:
    """The tables of ``docs/conformance.md``."""
    changed = {row.name: row for row in WITH_OPTION}
    lines = table(ROWS, expected)
    if len(the_server(ROWS)) < len(ROWS):
        lines += table(the_server(ROWS), expected, "of these, the server")[-1:]
    lines += ["", "The rows that the server option `tornado_statuses` changes, run with it:", ""]
    with_option = [changed.get(row.name, row) for row in the_server(ROWS)]
    lines += table(WITH_OPTION, expected)[:-1]
    lines += table(with_option, expected, "the server with the option")[-1:]
    lines += ["", "## Tests that do not pass", "", *reasons([*ROWS, *WITH_OPTION], expected)]
    if SECOND_TIER:
        lines += ["", "## Second tier: names for scheduling", "", *table(SECOND_TIER, expected)]
        lines += ["", *reasons(SECOND_TIER, expected)]
    return "\n".join(lines) + "\n"


def write_page(expected: dict[str, Any]) -> None:
    """Put the table between the two markers of the page."""
    start, end = "<!-- table -->\n", "<!-- end of table -->"
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(start)[0], text.partition(end)[2]
    PAGE.write_text(before + start + page(expected) + end + after, encoding="utf-8")


def regressions(row: Row, expected: dict[str, Any]) -> tuple[Outcome, dict[str, str]]:
    """Run *row*; returns all results, and what is worse than expected.

    Some of Tornado's tests wait for seconds of their own, which a busy machine may not have: what is worse is
    run once more.
    """
    results = run(row)
    worse = compare(row, results, expected)
    if worse:
        results = run(row)
        again = compare(row, results, expected)
        worse = {name: why for name, why in again.items() if name in worse}
    return results, worse


def compare(row: Row, results: Outcome, expected: dict[str, Any]) -> dict[str, str]:
    """The tests that do not pass and should, with their reason."""
    known = expected["rows"].get(row.key, {"failed": {}})["failed"]
    worse = {
        name: reason_of(result)
        for name, result in results.items()
        if result["status"] == "failed" and name not in known
    }
    if len(results) != row.tests:
        worse["(number of tests)"] = f"{len(results)} ran, {row.tests} are expected"
    return worse


def with_status(results: Outcome, status: str) -> dict[str, str]:
    """Name and reason of the tests that ended so."""
    return {name: reason_of(result) for name, result in results.items() if result["status"] == status}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("rows", nargs="*", help="rows to run, all by default")
    parser.add_argument("--test", help="run only tests whose id contains this, with tracebacks")
    parser.add_argument("--update", action="store_true", help="write expected.json and the page")
    options = parser.parse_args()
    expected = read_expected()
    rows = [row for row in ALL_ROWS if not options.rows or {row.name, row.key} & set(options.rows)]
    if options.test:
        for row in rows:
            for name, result in run(row, options.test).items():
                print(f"{row.key} {name}: {result['status']}\n{result['text']}")
        return 0
    any_worse = False
    total = total_passed = 0
    for row in rows:
        results, worse = regressions(row, expected)
        known = expected["rows"].setdefault(row.key, {"failed": {}, "skipped": {}})
        failed, skipped = with_status(results, "failed"), with_status(results, "skipped")
        passed = len(results) - len(failed) - len(skipped)
        print(
            f"{row.key:33} {row.tests:4} tests, {passed} passed, {len(failed)} failed, {len(skipped)} skipped"
        )
        for name, why in sorted(worse.items()):
            print(f"  WORSE {name}: {why}")
        for name in sorted(set(known["failed"]) - set(failed)):
            print(f"  better: {name} passes now; run with --update")
        any_worse = any_worse or bool(worse)
        if row in ROWS:
            total += row.tests
            total_passed += passed
        if options.update:
            known["failed"] = {name: known["failed"].get(name, why) for name, why in failed.items()}
            known["skipped"] = {name: known["skipped"].get(name, why) for name, why in skipped.items()}
    print(f"Tornado {tornado.version}: {total_passed} of {total} passed")
    if options.update:
        expected["tornado"] = tornado.version
        EXPECTED.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        write_page(expected)
        return 0
    return 1 if any_worse else 0


if __name__ == "__main__":
    sys.exit(main())
