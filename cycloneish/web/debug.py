"""The error page of debug mode: traceback across awaits, the source around each frame, and the request.

`RequestHandler.write_error` calls `render_debug_page` when the application runs with `debug=True`; nothing
else does. What may be shown is decided in `cycloneish.web.redaction`; here it is put into HTML.

The page has no script, and forbids any. Making it runs no code of the application but the `__str__` of the
exception: of the values of local variables only plain data is shown, of everything else the type.
"""

from __future__ import annotations

import linecache
import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from html import escape
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.internet.defer import FirstError

from cycloneish.web.redaction import Redactor

if TYPE_CHECKING:
    from cycloneish.web.handler import RequestHandler

__all__ = ["render_debug_page"]

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]

_MOST_FRAMES = 60  # shown of one exception; a runaway recursion has a thousand alike
_MOST_EXCEPTIONS = 12
_MOST_LOCALS = 40
_LINES_AROUND = 6
_LOCALS = (lambda: type(sys._getframe().f_locals))()  # of a function: a dict, since Python 3.13 a proxy

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARIES = tuple(
    path + os.sep
    for path in {
        *(sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")),
        *(site.getsitepackages() if hasattr(site, "getsitepackages") else ()),
    }
    if path
)


class _Frame(NamedTuple):
    file: str
    line: int
    name: str
    source: list[tuple[int, str]]
    variables: list[tuple[str, str]]
    is_application: bool


class _Problem(NamedTuple):
    """One exception of a chain; *link* says what it has to do with the one before."""

    link: str
    error: BaseException
    traceback: TracebackType | None


def render_debug_page(handler: RequestHandler, exc_info: ExcInfo) -> str:
    """Return the page that shows the exception *exc_info* with which *handler* failed.

    :param exc_info: as from `sys.exc_info()`.
    :returns: a whole HTML document.
    """
    redactor = Redactor(handler)
    error = exc_info[1]
    problems = list(_chain(error, exc_info[2]))[:_MOST_EXCEPTIONS] if error is not None else []
    for problem in problems:
        _learn_secrets(problem.traceback, redactor)
    title = _title(error, redactor) if error is not None else "Error"
    sections = [_problem_html(problem, redactor) for problem in problems]
    request = handler.request
    target = redactor.url(request.uri)
    return _PAGE.format(
        style=_STYLE,
        title=_text(title),
        kind=_text(_type_name(error)),
        message=_text(_message(error, redactor)),
        status=handler.get_status(),
        target=_text(f"{request.method} {target}"),
        handler=_text(f"{type(handler).__module__}.{type(handler).__qualname__}"),
        problems="".join(sections),
        request=_request_html(handler, redactor),
        plain=_text("\n".join(_plain(problem, redactor) for problem in problems)),
    )


# -- what happened ------------------------------------------------------------------------------------


def _chain(error: BaseException, traceback: TracebackType | None) -> Iterator[_Problem]:
    """The exception, and those it came from, the one that was raised last first."""
    seen: set[int] = set()
    waiting = [_Problem("", error, traceback or error.__traceback__)]
    while waiting:
        problem = waiting.pop(0)
        error = problem.error
        if id(error) in seen:
            continue
        seen.add(id(error))
        yield problem
        if error.__cause__ is not None:
            cause = error.__cause__
            waiting.append(_Problem("It was caused by", cause, cause.__traceback__))
        elif error.__context__ is not None and not error.__suppress_context__:
            context = error.__context__
            waiting.append(_Problem("It happened while this was handled", context, context.__traceback__))
        if isinstance(error, FirstError):
            failure = error.subFailure
            link = f"The Deferred number {error.index} failed with"
            if failure.value is not None:
                waiting.append(_Problem(link, failure.value, failure.getTracebackObject()))
        if isinstance(error, BaseExceptionGroup):
            for number, member in enumerate(error.exceptions, 1):
                link = f"Number {number} of {len(error.exceptions)} in the group"
                waiting.append(_Problem(link, member, member.__traceback__))


def _learn_secrets(traceback: TracebackType | None, redactor: Redactor) -> None:
    """Have what is in variables with secret names hidden in the message and the source as well."""
    for _ in range(_MOST_FRAMES):
        if traceback is None:
            return
        for name, value in _locals(traceback.tb_frame):
            redactor.learn(str(name), value)
        traceback = traceback.tb_next


def _frames(traceback: TracebackType | None, redactor: Redactor) -> list[_Frame | int]:
    """The frames from the outermost to the one that raised; a number stands for so many left out."""
    entries: list[tuple[Any, int]] = []
    while traceback is not None:
        entries.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    left_out = len(entries) - _MOST_FRAMES
    if left_out <= 0:
        return [_frame(frame, line, redactor) for frame, line in entries]
    half = _MOST_FRAMES // 2
    return [
        *(_frame(frame, line, redactor) for frame, line in entries[:half]),
        left_out,
        *(_frame(frame, line, redactor) for frame, line in entries[-half:]),
    ]


def _frame(frame: Any, line: int, redactor: Redactor) -> _Frame:
    code = frame.f_code
    file = str(code.co_filename)
    return _Frame(
        file=file,
        line=line,
        name=str(getattr(code, "co_qualname", code.co_name)),
        source=_source(file, line, getattr(frame, "f_globals", None), redactor),
        variables=_variables(frame, redactor),
        is_application=not file.startswith((_PACKAGE, *_LIBRARIES)) and not file.startswith("<frozen"),
    )


def _source(file: str, line: int, module: Any, redactor: Redactor) -> list[tuple[int, str]]:
    linecache.checkcache(file)
    lines = linecache.getlines(file, module if isinstance(module, dict) else None)
    first = max(1, line - _LINES_AROUND)
    shown = lines[first - 1 : line + _LINES_AROUND]
    return [(number, redactor.source(text.rstrip("\n"))) for number, text in enumerate(shown, first)]


def _locals(frame: Any) -> list[tuple[Any, Any]]:
    """The first local variables of a function's frame; a class body may have a mapping with its own code."""
    variables: Any = getattr(frame, "f_locals", None)
    if type(variables) not in (dict, _LOCALS) or frame.f_code.co_name == "<module>":
        return []
    return list(variables.items())[:_MOST_LOCALS]


def _variables(frame: Any, redactor: Redactor) -> list[tuple[str, str]]:
    found = []
    for name, value in _locals(frame):
        if isinstance(name, str) and not name.startswith("__"):
            found.append((name, redactor.variable(name, value)))
    return found


def _type_name(error: BaseException | None) -> str:
    if error is None:
        return "Error"
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException | None, redactor: Redactor) -> str:
    if error is None:
        return ""
    try:
        message = str(error)
    except Exception:
        return "(its text cannot be made: str() fails)"
    return redactor.text(message, 4000)


def _title(error: BaseException, redactor: Redactor) -> str:
    message = _message(error, redactor)
    return f"{type(error).__qualname__}: {message[:120]}" if message else type(error).__qualname__


# -- as HTML --------------------------------------------------------------------------------------------


def _text(value: object) -> str:
    return escape(str(value), quote=True)


def _problem_html(problem: _Problem, redactor: Redactor) -> str:
    frames = _frames(problem.traceback, redactor)
    own = [frame for frame in frames if isinstance(frame, _Frame) and frame.is_application]
    # Open is what one came to see: the application's own frames, or else the place where it was raised.
    last = next((frame for frame in reversed(frames) if isinstance(frame, _Frame)), None)
    opened = own or ([last] if last is not None else [])
    parts = ["<section>"]
    if problem.link:
        parts.append(
            f'<p class="link">{_text(problem.link)}</p><h2>{_text(_type_name(problem.error))}</h2>'
            f'<p class="message">{_text(_message(problem.error, redactor))}</p>'
        )
    for note in getattr(problem.error, "__notes__", ()):
        parts.append(f'<p class="note">{_text(redactor.text(str(note), 1000))}</p>')
    parts.append('<ol class="frames">')
    for frame in frames:
        if isinstance(frame, int):
            parts.append(f'<li class="gap">{frame} more frames</li>')
        else:
            parts.append(_frame_html(frame, frame in opened))
    parts.append("</ol></section>")
    return "".join(parts)


def _frame_html(frame: _Frame, opened: bool) -> str:
    lines = "".join(
        f'<code class="{"here" if number == frame.line else ""}"><i>{number}</i>{_text(text) or " "}</code>'
        for number, text in frame.source
    )
    variables = _table(frame.variables)
    if variables:
        variables = f"<details><summary>Local variables</summary>{variables}</details>"
    return (
        f'<li><details class="frame{" own" if frame.is_application else ""}"{" open" if opened else ""}>'
        f"<summary><b>{_text(frame.name)}</b> <span>{_text(frame.file)}:{frame.line}</span></summary>"
        f"<pre>{lines}</pre>{variables}</details></li>"
    )


def _request_html(handler: RequestHandler, redactor: Redactor) -> str:
    request = handler.request
    parts = [
        _table(
            [
                ("URL", redactor.url(request.full_url())),
                ("Client", str(request.remote_ip)),
                ("Protocol", f"{request.version} over {request.protocol}"),
                ("Path arguments", redactor.plain(getattr(handler, "path_args", []))),
                ("Named path arguments", redactor.plain(getattr(handler, "path_kwargs", {}))),
            ]
        )
    ]
    for title, rows in (
        ("Query arguments", redactor.arguments("query_arguments")),
        ("Form fields", redactor.arguments("body_arguments")),
        ("Uploaded files", redactor.files()),
        ("Headers", redactor.headers()),
        ("Cookies", redactor.cookies()),
    ):
        if rows:
            parts.append(f"<h3>{title}</h3>{_table(rows)}")
    return "".join(parts)


def _table(rows: Iterable[tuple[str, str]]) -> str:
    body = "".join([f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows])
    return f"<table>{body}</table>" if body else ""


def _plain(problem: _Problem, redactor: Redactor) -> str:
    lines = [f"{problem.link}:"] if problem.link else []
    lines.append("Traceback (most recent call last):")
    for frame in _frames(problem.traceback, redactor):
        if isinstance(frame, int):
            lines.append(f"  ... {frame} more frames ...")
            continue
        lines.append(f'  File "{frame.file}", line {frame.line}, in {frame.name}')
        lines += [f"    {text.strip()}" for number, text in frame.source if number == frame.line]
    lines.append(f"{_type_name(problem.error)}: {_message(problem.error, redactor)}")
    return "\n".join(lines) + "\n"


_STYLE = """
:root { color-scheme: light dark; --bg: #fbfaf8; --card: #fff; --ink: #1f2328; --dim: #6a737d;
  --line: #e2dfd9; --accent: #b3261e; --soft: #fdeceb; --mark: #fff3bf; --code: #f6f5f2; }
@media (prefers-color-scheme: dark) { :root { --bg: #16181c; --card: #1e2126; --ink: #e6e6e3; --dim: #9aa2ab;
  --line: #32363d; --accent: #ff8a80; --soft: #35211f; --mark: #4a4016; --code: #191c20; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header { background: var(--soft); border-bottom: 3px solid var(--accent); padding: 1.6rem 0; }
header > *, main { max-width: 70rem; margin: 0 auto; padding: 0 1.2rem; }
h1 { font-size: 1.5rem; line-height: 1.25; color: var(--accent); overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0; } h3 { font-size: .95rem; margin: 1.4rem 0 .4rem; }
h1, .message { margin-bottom: .4rem; margin-top: 0; }
.message { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 1.05rem; }
.where, .link, .gap { color: var(--dim); } .where { overflow-wrap: anywhere; }
.link { margin: 2rem 0 .2rem; } .note { border-left: 3px solid var(--line); padding-left: .8rem; }
.badge { background: var(--accent); color: var(--bg); border-radius: .3rem; padding: 0 .45rem;
  font-weight: 600; }
section, main > details { margin-top: 1.4rem; }
ol.frames { list-style: none; margin: .8rem 0 0; padding: 0; }
details.frame { background: var(--card); border: 1px solid var(--line); border-radius: .5rem;
  margin-bottom: .5rem; overflow: hidden; }
details.frame.own { border-left: 4px solid var(--accent); }
summary { cursor: pointer; padding: .45rem .8rem; overflow-wrap: anywhere; }
summary span { color: var(--dim); font-size: .85rem; margin-left: .4rem; }
details.frame:not(.own) > summary b { font-weight: 500; color: var(--dim); }
details details > summary { color: var(--dim); font-size: .85rem; }
pre { margin: 0; padding: .5rem 0; background: var(--code); overflow-x: auto;
  font: 13px/1.55 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre code { display: block; font: inherit; padding: 0 .8rem; white-space: pre; min-width: max-content;
  tab-size: 4; }
pre code i { display: inline-block; width: 3.2em; color: var(--dim); font-style: normal; text-align: right;
  margin-right: 1.1em; user-select: none; }
pre code.here { background: var(--mark); }
pre.plain { padding: .8rem; border: 1px solid var(--line); border-radius: .5rem; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; background: var(--card); }
th, td { text-align: left; vertical-align: top; padding: .28rem .8rem; border-top: 1px solid var(--line); }
th { width: 14rem; font-weight: 500; color: var(--dim); overflow-wrap: anywhere; }
td { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere;
  white-space: pre-wrap; }
footer { color: var(--dim); font-size: .85rem; padding: 2rem 0 3rem; }
@media (max-width: 40rem) { th { width: 7.5rem; } th, td { padding: .28rem .5rem; }
  summary span { display: block; margin: 0; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{kind}</h1>
<p class="message">{message}</p>
<p class="where"><span class="badge">{status}</span> {target} &middot; {handler}</p>
</header>
<main>
{problems}
<section><h2>Request</h2>{request}</section>
<details><summary>Traceback as text</summary><pre class="plain">{plain}</pre></details>
<footer>This page is shown because the application runs with debug=True. Values that look secret are left
out of it.</footer>
</main>
</body>
</html>
"""
