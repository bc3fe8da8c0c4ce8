"""``python -m benchmarks.chart RESULT.json``: a run as a page and a chart of the documentation.

Writes ``docs/benchmarks.md`` and ``docs/benchmarks.svg`` out of what ``python -m benchmarks`` wrote.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

DOCS = Path(__file__).parents[1] / "docs"
OURS = ("cycloneish", "cycloneish-uvloop")
COLOURS = {
    "cycloneish": "#4f46e5",
    "cycloneish-uvloop": "#818cf8",
    "tornado": "#94a3b8",
    "tornado-uvloop": "#cbd5e1",
    "twisted.web": "#d97706",
    "klein": "#fbbf24",
    "aiohttp": "#0e7490",
    "aiohttp-uvloop": "#22d3ee",
    "starlette": "#15803d",
    "starlette-uvloop": "#4ade80",
}
BAR, GAP, LEFT, WIDTH = 14, 26, 230, 520

PAGE = """# Benchmarks

`python -m benchmarks` measures cycloneish beside its peers: every server pinned to one core, the client to
the other, the rounds of all servers interleaved. How, and what it does not say, is in `benchmarks/README.md`.

The figures below are of {when}, medians of {rounds} rounds of {seconds:g} seconds on a virtual machine of
{cores} shared cores: {versions}. Only ratios within one run mean something.

![Requests per second as multiples of Tornado's](benchmarks.svg)

{tables}
"""


def shown(scenario: dict[str, Any]) -> list[dict[str, Any]]:
    """The servers of a scenario that are compared, the best first; the limit is no competitor."""
    servers = [
        s for s in scenario["servers"].values() if s["server"] in COLOURS and s["to_tornado"] is not None
    ]
    return sorted(servers, key=lambda server: -server["to_tornado"])


def chart(scenarios: dict[str, dict[str, Any]]) -> str:
    """One group of bars for each scenario; a bar is as long as the ratio to Tornado."""
    longest = max(server["to_tornado"] for scenario in scenarios.values() for server in shown(scenario))
    parts: list[str] = []
    y = 10
    for scenario in scenarios.values():
        y += GAP
        parts.append(f'<text x="0" y="{y - 8}" font-weight="bold">{escape(scenario["title"])}</text>')
        for server in shown(scenario):
            name, ratio = server["server"], server["to_tornado"]
            width = WIDTH * ratio / longest
            weight = ' font-weight="bold"' if name in OURS else ""
            bar = f'x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 2}" rx="2" fill="{COLOURS[name]}"'
            parts.append(f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end"{weight}>{name}</text>')
            parts.append(f"<rect {bar}/>")
            parts.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + 11}">{ratio:.2f}</text>')
            y += BAR
    size = f'width="{LEFT + WIDTH + 60}" height="{y + 10}" viewBox="0 0 {LEFT + WIDTH + 60} {y + 10}"'
    style = 'font-family="system-ui, sans-serif" font-size="11" fill="#334155"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>\n' + "\n".join(parts) + "\n</svg>\n"


def cell(value: float | None, form: str) -> str:
    """A number, or nothing where there is none."""
    return "" if value is None else format(value, form)


def table(scenario: dict[str, Any]) -> str:
    """One scenario as a table, ours in bold."""
    unit = next(iter(scenario["servers"].values()))["unit"]
    lines = [
        f"## {scenario['title']}",
        "",
        f"| server | {unit} | CPU µs a request | times Tornado | times the best peer | of the limit |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for server in scenario["servers"].values():
        name = f"**{server['server']}**" if server["server"] in OURS else server["server"]
        digits = ",.0f" if server["value"] >= 100 else ".2f"
        figures = [
            cell(server["value"], digits),
            cell(server["cpu"], ",.0f"),
            cell(server["to_tornado"], ".2f"),
            cell(server["to_best_peer"], ".2f"),
            cell(server["to_limit"], ".2f"),
        ]
        lines.append(f"| {name} | " + " | ".join(figures) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    run = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    scenarios = run["scenarios"]
    page = PAGE.format(
        when=run["when"][:10],
        cores=run["machine"]["cores"],
        versions=", ".join(f"{name} {version}" for name, version in run["versions"].items()),
        rounds=run["options"]["rounds"],
        seconds=run["options"]["seconds"],
        tables="\n".join(map(table, scenarios.values())).rstrip(),
    )
    (DOCS / "benchmarks.md").write_text(page, encoding="utf-8")
    (DOCS / "benchmarks.svg").write_text(chart(scenarios), encoding="utf-8")


if __name__ == "__main__":
    main()
