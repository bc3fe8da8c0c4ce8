"""What is measured: one :class:`Scenario` for each kind of request, and how its answer is checked.

``benchmarks.measure`` asks every server for one answer before the first round and refuses to measure a server
whose answer is wrong: speed of a wrong answer is worth nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.servers import common


@dataclass(frozen=True)
class Answer:
    """One checked response: status, headers by lower-case name, body."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Scenario:
    """One kind of request.

    ``kind`` is ``"wrk"`` (requests under load), ``"idle"`` (memory of idle connections) or ``"startup"``
    (time until the first answer, memory at rest). ``first_path`` is fetched once before, and ``headers_from``
    makes request headers of that answer (a cookie, an ETag). ``connections`` overrides wrk's 50; ``pipeline``
    sends that many requests at once. ``limit`` tells whether the raw servers can play: they only know the
    fixed replies.
    """

    name: str
    title: str
    path: str = "/"
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    check: Callable[[Answer], bool] = lambda answer: answer.status == 200
    first_path: str | None = None
    headers_from: Callable[[Answer], dict[str, str]] | None = None
    connections: int | None = None
    pipeline: int = 1
    limit: bool = False
    kind: str = "wrk"


def _is_hello(answer: Answer) -> bool:
    return answer.status == 200 and answer.body == common.HELLO


def _is_table(answer: Answer) -> bool:
    return (
        answer.status == 200
        and answer.body.count(b"<tr>") == len(common.ROWS)
        and b"Item &lt;49&gt; &amp; more" in answer.body
    )


def _validators(answer: Answer) -> dict[str, str]:
    headers = {}
    if "etag" in answer.headers:
        headers["If-None-Match"] = answer.headers["etag"]
    if "last-modified" in answer.headers:
        headers["If-Modified-Since"] = answer.headers["last-modified"]
    return headers


def _cookie(answer: Answer) -> dict[str, str]:
    return {"Cookie": answer.headers["set-cookie"].partition(";")[0]}


FORM_BODY = b"&".join(
    [b"name=Ada+Lovelace", b"email=ada%40example.com"] + [b"field%d=value+%d" % (n, n) for n in range(8)]
)
UPLOAD_SIZE = 1024 * 1024
UPLOAD_BODY = (
    b'--benchmark-boundary\r\nContent-Disposition: form-data; name="title"\r\n\r\nA title\r\n'
    b'--benchmark-boundary\r\nContent-Disposition: form-data; name="file"; filename="blob.bin"\r\n'
    b"Content-Type: application/octet-stream\r\n\r\n"
    + bytes(range(256)) * (UPLOAD_SIZE // 256)
    + b"\r\n--benchmark-boundary--\r\n"
)

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("plain", "GET / as text", check=_is_hello, limit=True),
    Scenario(
        "json",
        "JSON with a path and a query argument",
        "/items/42?q=abc",
        check=lambda answer: json.loads(answer.body) == {"id": 42, "q": "abc"},
        limit=True,
    ),
    Scenario("template", "template with 50 rows", "/table", check=_is_table),
    Scenario(
        "form",
        "urlencoded form of 10 fields",
        "/form",
        "POST",
        {"Content-Type": "application/x-www-form-urlencoded"},
        FORM_BODY,
        check=lambda answer: answer.body == b"Ada Lovelace,ada@example.com",
    ),
    Scenario(
        "upload",
        "multipart upload of 1 MiB",
        "/upload",
        "POST",
        {"Content-Type": "multipart/form-data; boundary=benchmark-boundary"},
        UPLOAD_BODY,
        check=lambda answer: answer.body == b"%d" % UPLOAD_SIZE,
        connections=8,
    ),
    Scenario(
        "static",
        "static file of 100 KiB",
        f"/static/{common.STATIC_NAME}",
        check=lambda answer: answer.status == 200 and len(answer.body) == common.STATIC_SIZE,
    ),
    Scenario(
        "not-modified",
        "304 for the static file",
        f"/static/{common.STATIC_NAME}",
        first_path=f"/static/{common.STATIC_NAME}",
        headers_from=_validators,
        check=lambda answer: answer.status == 304,
    ),
    Scenario(
        "cookie",
        "signed cookie verified",
        "/whoami",
        first_path="/login",
        headers_from=_cookie,
        check=lambda answer: answer.body == common.COOKIE_VALUE.encode(),
    ),
    Scenario("hop", "one awaited hop through the event loop", "/hop", check=_is_hello),
    Scenario("pipelining", "GET / pipelined by 16", check=_is_hello, pipeline=16, limit=True),
    Scenario(
        "stream",
        "64 MiB streamed",
        "/stream",
        check=lambda answer: len(answer.body) == len(common.STREAM_CHUNK) * common.STREAM_CHUNKS,
        connections=4,
    ),
    Scenario("idle", "memory for each idle connection", kind="idle", check=_is_hello),
    Scenario("startup", "start to first answer", kind="startup", check=_is_hello),
)

DEFAULT_SCENARIOS = ("plain", "json")
