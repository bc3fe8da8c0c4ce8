"""``python -m benchmarks``: measure cycloneish beside its peers in one run and print the ratios.

``benchmarks/README.md`` says how to read the figures.
"""

from __future__ import annotations

import argparse
import compileall
import dataclasses
import json
import os
import platform
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cycloneish
from benchmarks import measure
from benchmarks.measure import BenchmarkError, Cores, Running, Sample
from benchmarks.report import Table, format_table, make_table
from benchmarks.scenarios import DEFAULT_SCENARIOS, SCENARIOS, Scenario
from benchmarks.servers import SERVERS, Server

RESULTS = Path(__file__).resolve().parent / "results"
PACKAGES = (
    "cycloneish",
    "tornado",
    "twisted",
    "klein",
    "aiohttp",
    "starlette",
    "uvicorn",
    "httptools",
    "uvloop",
)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    scenario_names = [scenario.name for scenario in SCENARIOS]
    server_names = [server.name for server in SERVERS]
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.partition("\n\n")[0])
    parser.add_argument(
        "--scenarios",
        default=",".join(DEFAULT_SCENARIOS),
        help=f"comma-separated, or 'all': {', '.join(scenario_names)} (default: %(default)s)",
    )
    parser.add_argument(
        "--servers",
        default="all",
        help=f"comma-separated, or 'all': {', '.join(server_names)} (default: all)",
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of every server (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=3, help="seconds of each round (default: %(default)s)"
    )
    parser.add_argument(
        "--connections", type=int, default=50, help="connections of wrk (default: %(default)s)"
    )
    parser.add_argument(
        "--server-core", type=int, default=0, help="CPU core of the server (default: %(default)s)"
    )
    parser.add_argument("--client-core", type=int, default=1, help="CPU core of wrk (default: %(default)s)")
    parser.add_argument(
        "--json", type=Path, help="where to write the figures (default: benchmarks/results/TIME.json)"
    )
    options = parser.parse_args(argv)
    for name, known in (("scenarios", scenario_names), ("servers", server_names)):
        asked = getattr(options, name)
        names = known if asked == "all" else [part.strip() for part in asked.split(",") if part.strip()]
        unknown = sorted(set(names) - set(known))
        if unknown:
            parser.error(f"unknown {name}: {', '.join(unknown)}; there are: {', '.join(known)}")
        setattr(options, name, names)
    if not {options.server_core, options.client_core} <= os.sched_getaffinity(0):
        parser.error(
            "this machine does not have the cores that were asked for (--server-core, --client-core)"
        )
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed (on Debian: apt-get install wrk)")
    return options


def can_play(server: Server, scenario: Scenario) -> bool:
    return server.kind != "limit" or scenario.limit or scenario.kind != "wrk"


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run_load(
    scenario: Scenario, servers: Sequence[Server], options: argparse.Namespace
) -> dict[str, list[Sample]]:
    """All rounds of a scenario under load. A server that fails its check is left out and named."""
    cores = Cores(options.server_core, options.client_core)
    samples: dict[str, list[Sample]] = {}
    with ExitStack() as stack:
        ready: dict[str, tuple[Running, bytes]] = {}
        for server in servers:
            try:
                started = stack.enter_context(measure.running(server, cores))
                payload = measure.request_bytes(scenario, measure.request_headers(scenario, started))
                measure.wrk(started, scenario, payload, 1, options.connections, cores.client)
            except BenchmarkError as error:
                say(f"left out: {error}")
                continue
            ready[server.name] = (started, payload)
        for number, server in measure.interleave([s for s in servers if s.name in ready], options.rounds):
            started, payload = ready[server.name]
            sample = measure.load_once(
                started, scenario, payload, options.seconds, options.connections, cores.client
            )
            samples.setdefault(server.name, []).append(sample)
            figures = f"{sample.value:,.0f}/s, {sample.cpu:.1f} µs CPU"
            say(f"{scenario.name} round {number + 1}: {server.name} {figures}")
    return samples


def run_special(
    scenario: Scenario, servers: Sequence[Server], options: argparse.Namespace
) -> tuple[dict[str, list[Sample]], dict[str, float]]:
    """The scenarios without load: memory of idle connections, and start-up. Also MiB at rest."""
    cores = Cores(options.server_core, options.client_core)
    samples: dict[str, list[Sample]] = {}
    at_rest: dict[str, float] = {}
    broken: set[str] = set()
    for _, server in measure.interleave(servers, options.rounds):
        if server.name in broken:
            continue
        try:
            if scenario.kind == "idle":
                sample = measure.idle_once(server, cores)
            else:
                sample, at_rest[server.name] = measure.startup_once(server, cores)
        except BenchmarkError as error:
            broken.add(server.name)
            say(f"left out: {error}")
            continue
        samples.setdefault(server.name, []).append(sample)
    return samples, at_rest


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def as_json(
    tables: Sequence[Table], at_rest: dict[str, float], options: argparse.Namespace
) -> dict[str, Any]:
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"kernel": platform.release(), "arch": platform.machine(), "cores": os.cpu_count()},
        "versions": versions(),
        "options": {
            name: getattr(options, name)
            for name in ("rounds", "seconds", "connections", "server_core", "client_core")
        },
        "resident_mib_at_rest": at_rest,
        "scenarios": {
            table.scenario.name: {
                "title": table.scenario.title,
                "best_peer": table.best_peer,
                "servers": {row.server: dataclasses.asdict(row) for row in table.rows},
            }
            for table in tables
        },
    }


def main(argv: Sequence[str] | None = None) -> int:
    options = parse_arguments(argv)
    chosen = [server for server in SERVERS if server.name in options.servers]
    # pip has compiled the peers; a checkout is compiled only where Python may write, and is here.
    compileall.compile_dir(Path(cycloneish.__file__).parent, quiet=1)
    tables: list[Table] = []
    at_rest: dict[str, float] = {}
    for scenario in (scenario for scenario in SCENARIOS if scenario.name in options.scenarios):
        players = [server for server in chosen if can_play(server, scenario)]
        if scenario.kind == "wrk":
            samples = run_load(scenario, players, options)
        else:
            samples, measured = run_special(scenario, players, options)
            at_rest.update(measured)
        table = make_table(scenario, samples)
        tables.append(table)
        print(format_table(table), end="\n\n", flush=True)
    for name, mebibytes in at_rest.items():
        print(f"memory at rest: {name} {mebibytes:.1f} MiB")
    path: Path = options.json or RESULTS / f"{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(as_json(tables, at_rest, options), indent=1, ensure_ascii=False) + "\n")
    say(f"written to {path}")
    return 0 if all(table.rows for table in tables) else 1


if __name__ == "__main__":
    sys.exit(main())
