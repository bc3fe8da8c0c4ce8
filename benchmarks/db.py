"""``python -m benchmarks.db``: the database pool beside its peers, alone and behind a handler, in one run.

A private PostgreSQL of the ``embedded`` extra is the server.  ``pool`` asks for one row by primary key with
10 connections and 100 questions in flight; ``http`` is a handler that does the same and answers JSON, under
wrk.  Rounds are interleaved; CPU time is that of the asking process for each operation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2

from benchmarks import measure
from benchmarks.db_clients import CLIENTS, ROWS
from benchmarks.measure import BenchmarkError, Cores, Sample
from benchmarks.scenarios import Scenario
from benchmarks.servers import Server
from cycloneish.db.cluster import Cluster

RESULTS = Path(__file__).resolve().parent / "results"
FAST = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}
#: Each is started as ``python -m benchmarks.servers.MODULE PORT DSN [--uvloop]``.
SERVERS = {
    "cycloneish": ("db_cycloneish",),
    "tornado+asyncpg": ("db_tornado",),
    "aiohttp+asyncpg": ("db_aiohttp",),
    "twisted.web+txpostgres": ("db_twisted_web",),
    "cycloneish-uvloop": ("db_cycloneish", "--uvloop"),
    "aiohttp+asyncpg-uvloop": ("db_aiohttp", "--uvloop"),
}
SCENARIO = Scenario(
    "http",
    "one row through the pool, as JSON",
    "/item/42",
    check=lambda answer: json.loads(answer.body) == {"id": 42, "name": "item 42", "price": 420},
)


def make_table(dsn: str) -> None:
    with psycopg2.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute("create table item (id int primary key, name text not null, price int not null)")
        cursor.execute(
            "insert into item select n, 'item ' || n, n * 10 from generate_series(0, %s) n", (ROWS,)
        )
        cursor.execute("analyze item")
    connection.close()


def run_pool(
    dsn: str, names: list[str], rounds: int, seconds: float, cores: Cores
) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {}
    for number in range(rounds):
        for name in names:
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.db_clients", name, dsn, str(seconds)],
                capture_output=True,
                text=True,
                cwd=measure.ROOT,
                preexec_fn=measure.pin_to(cores.server),
                check=False,
            )
            if done.returncode != 0:
                raise BenchmarkError(f"{name} failed: {done.stderr[-2000:]}")
            found = json.loads(done.stdout.splitlines()[-1])
            count = max(1, found["operations"])
            sample = Sample(count / found["seconds"], "operations/s", found["cpu"] * 1e6 / count)
            samples.setdefault(name, []).append(sample)
            say("pool", number, name, sample)
    return samples


def run_http(
    dsn: str, names: list[str], rounds: int, seconds: float, connections: int, cores: Cores
) -> dict[str, list[Sample]]:
    samples: dict[str, list[Sample]] = {}
    with ExitStack() as stack:
        ready = {}
        for name in names:
            module, *arguments = SERVERS[name]
            started = stack.enter_context(measure.running(Server(name, module, (dsn, *arguments)), cores))
            payload = measure.request_bytes(SCENARIO, measure.request_headers(SCENARIO, started))
            measure.wrk(started, SCENARIO, payload, 1, connections, cores.client)
            ready[name] = started, payload
        for number in range(rounds):
            for name, (started, payload) in ready.items():
                sample = measure.load_once(started, SCENARIO, payload, seconds, connections, cores.client)
                samples.setdefault(name, []).append(sample)
                say("http", number, name, sample)
    return samples


def say(family: str, number: int, name: str, sample: Sample) -> None:
    print(
        f"{family} round {number + 1}: {name} {sample.value:,.0f}/s, {sample.cpu:.1f} µs CPU",
        file=sys.stderr,
        flush=True,
    )


def summary(samples: dict[str, list[Sample]]) -> dict[str, dict[str, Any]]:
    """Medians, and ours divided by each: above 1 means that cycloneish is better.

    The ratios are medians over the rounds, of two neighbours in a round each.
    """
    ours = samples.get("cycloneish", [])
    rows = {}
    for name, rounds in samples.items():
        # A peer that answered nothing in a round has an error to show for it, and no ratio.
        pairs = [(a, b) for a, b in zip(ours, rounds, strict=False) if b.value]
        rows[name] = {
            "per_second": round(statistics.median(sample.value for sample in rounds)),
            "cpu_microseconds": round(statistics.median(sample.cpu or 0 for sample in rounds), 1),
            "p99_ms": statistics.median(sample.p99 or 0 for sample in rounds) or None,
            "errors": sum(sample.errors for sample in rounds),
            "ours_to_it": round(statistics.median(a.value / b.value for a, b in pairs), 2) if pairs else None,
            "ours_to_it_cpu": (
                round(statistics.median((b.cpu or 0) / (a.cpu or 1) for a, b in pairs), 2) if pairs else None
            ),
        }
    return rows


def format_rows(title: str, rows: dict[str, dict[str, Any]]) -> str:
    lines = [title, f"  {'':<26}{'per s':>10}{'CPU µs':>9}{'cycloneish x':>14}{'by CPU':>9}{'errors':>8}"]
    for name, row in rows.items():
        lines.append(
            f"  {name:<26}{row['per_second']:>10,}{row['cpu_microseconds']:>9.1f}"
            f"{row['ours_to_it'] or 0:>14.2f}{row['ours_to_it_cpu'] or 0:>9.2f}{row['errors']:>8}"
        )
    return "\n".join(lines)


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.db", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--families", default="pool,http", help="comma-separated (default: %(default)s)")
    parser.add_argument("--clients", default=",".join(CLIENTS), help="of pool (default: all)")
    parser.add_argument("--servers", default=",".join(SERVERS), help="of http (default: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=50, help="of wrk (default: %(default)s)")
    parser.add_argument("--server-core", type=int, default=0, help="core of the asking process")
    parser.add_argument("--client-core", type=int, default=1, help="core of wrk and PostgreSQL")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    options = parse_arguments(argv)
    cores = Cores(options.server_core, options.client_core)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="cycloneish-bench-") as directory:
        os.chmod(directory, 0o711)
        cluster = Cluster(Path(directory, "db"), settings=FAST)
        dsn = cluster.start()
        try:
            pid = cluster.pid()
            assert pid is not None
            os.sched_setaffinity(pid, {cores.client})
            make_table(dsn)
            if "pool" in options.families:
                names = options.clients.split(",")
                figures["pool"] = summary(run_pool(dsn, names, options.rounds, options.seconds, cores))
                print(
                    format_rows(
                        "pool: one row by primary key, 10 connections, 100 in flight", figures["pool"]
                    )
                )
            if "http" in options.families:
                names = options.servers.split(",")
                found = run_http(dsn, names, options.rounds, options.seconds, options.connections, cores)
                figures["http"] = summary(found)
                print(format_rows("http: a handler that reads one row and answers JSON", figures["http"]))
        finally:
            cluster.stop()
    path: Path = options.json or RESULTS / f"db-{datetime.now(UTC):%Y%m%dT%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"written to {path}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
