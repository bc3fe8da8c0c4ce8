"""Medians, ratios and the printed table of a benchmark run; used by ``benchmarks.__main__``."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.measure import Sample
from benchmarks.scenarios import Scenario
from benchmarks.servers import SERVERS

KINDS = {server.name: server.kind for server in SERVERS}


@dataclass(frozen=True)
class Row:
    """The figures of one server in one scenario; a ratio above 1 is always the better one."""

    server: str
    value: float
    unit: str
    spread: float
    cpu: float | None
    p99: float | None
    errors: int
    to_tornado: float | None
    to_best_peer: float | None
    to_limit: float | None
    cpu_to_tornado: float | None


@dataclass(frozen=True)
class Table:
    scenario: Scenario
    best_peer: str | None
    rows: list[Row]


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def make_table(scenario: Scenario, samples: dict[str, list[Sample]]) -> Table:
    """Fold the rounds of each server into a row. ``samples`` maps a server's name to its rounds."""
    less_is_better = scenario.kind != "wrk"
    medians = {name: statistics.median(s.value for s in rounds) for name, rounds in samples.items() if rounds}

    def better(first: float, second: float) -> float:
        return second / first if less_is_better else first / second

    peers = {name: value for name, value in medians.items() if KINDS[name] == "peer"}
    pick = min if less_is_better else max
    best_peer = pick(peers, key=lambda name: peers[name]) if peers else None
    tornado_cpu = _median([sample.cpu for sample in samples.get("tornado", [])])
    rows = []
    for name, value in medians.items():
        rounds = samples[name]
        limit = medians.get("raw-twisted-uvloop" if name.endswith("-uvloop") else "raw-twisted")
        values = [sample.value for sample in rounds]
        cpu = _median([sample.cpu for sample in rounds])
        rows.append(
            Row(
                server=name,
                value=value,
                unit=rounds[0].unit,
                spread=(max(values) - min(values)) / value if value else 0.0,
                cpu=cpu,
                p99=_median([sample.p99 for sample in rounds]),
                errors=sum(sample.errors for sample in rounds),
                to_tornado=better(value, medians["tornado"]) if "tornado" in medians else None,
                to_best_peer=better(value, peers[best_peer]) if best_peer else None,
                to_limit=better(value, limit) if limit else None,
                cpu_to_tornado=tornado_cpu / cpu if tornado_cpu and cpu else None,
            )
        )
    return Table(scenario, best_peer, rows)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def format_table(table: Table) -> str:
    """The table as text, one line for each server."""
    unit = table.rows[0].unit if table.rows else ""
    form = ",.3f" if unit == "seconds" else ",.0f"
    lines = [
        f"{table.scenario.name}: {table.scenario.title}  (best peer: {table.best_peer})",
        f"  {'server':<20}{unit:>12}{'spread':>8}{'CPU µs':>9}{'p99 ms':>9}"
        f"{'CPU x':>8}{'x tornado':>10}{'x best':>8}{'x limit':>9}{'errors':>8}",
    ]
    for row in table.rows:
        lines.append(
            f"  {row.server:<20}{_number(row.value, form):>12}{row.spread:>8.0%}{_number(row.cpu, ',.1f'):>9}"
            f"{_number(row.p99, '.2f'):>9}{_number(row.cpu_to_tornado, '.2f'):>8}"
            f"{_number(row.to_tornado, '.2f'):>10}"
            f"{_number(row.to_best_peer, '.2f'):>8}{_number(row.to_limit, '.2f'):>9}{row.errors:>8}"
        )
    return "\n".join(lines)
