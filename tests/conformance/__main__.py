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
from pathlib import Path
from typing import Any

import tornado

from tests.conformance.rows import ROWS, Row

EXPECTED = Path(__file__).with_name("expected.json")
PAGE = Path(__file__).parents[2] / "docs" / "conformance.md"
#: Seconds that one row may take.
ROW_TIMEOUT = 600

Outcome = dict[str, dict[str, str]]


def run(row: Row, only: str | None = None) -> Outcome:
    """Run *row* in a process of its own; returns status and text for each test."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "tests.conformance.child", row.name, directory]
        done = subprocess.run(
            command + ([only] if only else []),
            capture_output=True,
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


def page(expected: dict[str, Any]) -> str:
    """The table of ``docs/conformance.md``."""
    rows = ["| module | tests | passed | skipped by Tornado | not passing |", "|---|--:|--:|--:|--:|"]
    totals = [0, 0, 0, 0]
    details = []
    for row in ROWS:
        known = expected["rows"].get(row.name, {"failed": {}, "skipped": {}})
        failed, skipped = known["failed"], known["skipped"]
        numbers = [row.tests, row.tests - len(failed) - len(skipped), len(skipped), len(failed)]
        totals = [total + number for total, number in zip(totals, numbers, strict=True)]
        rows.append(f"| {row.name} | " + " | ".join(map(str, numbers)) + " |")
        details += [f"| {row.name} | `{name}` | {why} |" for name, why in sorted(failed.items())]
        details += [f"| {row.name} | `{name}` | skipped: {why} |" for name, why in sorted(skipped.items())]
    rows.append("| **total** | " + " | ".join(f"**{total}**" for total in totals) + " |")
    head = ["| module | test | why |", "|---|---|---|"]
    return "\n".join([*rows, "", "## Tests that do not pass", "", *head, *details]) + "\n"


def write_page(expected: dict[str, Any]) -> None:
    """Put the table between the two markers of the page."""
    start, end = "<!-- table -->\n", "<!-- end of table -->"
    text = PAGE.read_text(encoding="utf-8")
    before, after = text.partition(start)[0], text.partition(end)[2]
    PAGE.write_text(before + start + page(expected) + end + after, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance")
    parser.add_argument("rows", nargs="*", help="rows to run, all by default")
    parser.add_argument("--test", help="run only tests whose id contains this, with tracebacks")
    parser.add_argument("--update", action="store_true", help="write expected.json and the page")
    options = parser.parse_args()
    expected = json.loads(EXPECTED.read_text(encoding="utf-8")) if EXPECTED.exists() else {"rows": {}}
    worse = total = total_passed = 0
    for row in [row for row in ROWS if not options.rows or row.name in options.rows]:
        results = run(row, options.test)
        known = expected["rows"].setdefault(row.name, {"failed": {}, "skipped": {}})
        failed = {name: reason_of(r) for name, r in results.items() if r["status"] == "failed"}
        skipped = {name: reason_of(r) for name, r in results.items() if r["status"] == "skipped"}
        if options.test:
            for name, result in results.items():
                print(f"{row.name} {name}: {result['status']}\n{result['text']}")
            continue
        missing = row.tests - len(results)
        new = sorted(set(failed) - set(known["failed"]))
        passed = len(results) - len(failed) - len(skipped)
        total += row.tests
        total_passed += passed
        counts = f"{passed} passed, {len(failed)} failed, {len(skipped)} skipped"
        print(f"{row.name:18} {row.tests:4} tests, {counts}")
        if missing:
            print(f"  {missing} tests did not run")
        for name in new:
            print(f"  WORSE {name}: {failed[name]}")
        for name in sorted(set(known["failed"]) - set(failed)):
            print(f"  better: {name} passes now; run with --update")
        worse += len(new) + abs(missing)
        if options.update:
            known["failed"] = {name: known["failed"].get(name, why) for name, why in failed.items()}
            known["skipped"] = {name: known["skipped"].get(name, why) for name, why in skipped.items()}
    if options.test:
        return 0
    print(f"Tornado {tornado.version}: {total_passed} of {total} passed")
    if options.update:
        expected["tornado"] = tornado.version
        EXPECTED.write_text(json.dumps(expected, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        write_page(expected)
        return 0
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
