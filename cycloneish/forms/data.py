"""What a client sent, as WTForms wants to read it: form fields, files and JSON under one roof.

Made by :class:`~cycloneish.forms.Form` out of a handler's request.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cycloneish.escape import to_unicode
from cycloneish.web import HTTPError

if TYPE_CHECKING:
    from cycloneish.httputil import HTTPFile
    from cycloneish.web import RequestHandler

__all__ = ["FormData", "is_json_request", "wants_json"]

#: How many values a JSON body may hold, as many as a form may have arguments.
MAX_VALUES = 1000
#: How deep its objects and lists may be nested.
MAX_DEPTH = 20
#: How long the name of a value in a list may be, in characters.
MAX_NAME = 300

# As `get_argument` replaces them; JSON can spell half of a surrogate pair, which is no UTF-8.
_UNFIT = re.compile("[\x00-\x08\x0e-\x1f\ud800-\udfff]")


class FormData(Mapping[str, list[Any]]):
    """Lists of values by field names; text for fields, :class:`~cycloneish.httputil.HTTPFile` for files.

    :ivar document: what the JSON body said, None for a form.
    """

    def __init__(self, values: dict[str, list[Any]], document: dict[str, Any] | None = None) -> None:
        self._values = values
        # Lists look for numbers in the names; int() fails for other digits and for thousands of them. Every
        # list of every form inside another goes through all of them, so they are sorted out once.
        self._names = [name for name in values if len(name) <= MAX_NAME and not _has_other_digits(name)]
        self.document = document

    @classmethod
    def of_body(cls, handler: RequestHandler) -> FormData:
        """Read the request's body: urlencoded, multipart or JSON.

        :raises HTTPError: 400, the body is not what its type says.
        """
        if is_json_request(handler):
            return cls._of_json(handler.request.body)
        request = handler.request
        values: dict[str, list[Any]] = _texts(request._known_body_arguments())
        files: dict[str, list[HTTPFile]] = request.files
        for name, uploads in files.items():
            # A browser sends a file field that was left empty without a name and without content.
            values[name] = values.get(name, []) + [file for file in uploads if file.filename or file.body]
        return cls(values)

    @classmethod
    def of_query(cls, handler: RequestHandler) -> FormData:
        """Read the arguments in the URL."""
        return cls(_texts(handler.request._known_query_arguments()))

    @classmethod
    def _of_json(cls, body: bytes) -> FormData:
        try:
            document = json.loads(body, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise HTTPError(400, f"the body is not JSON: {error}") from None
        if not isinstance(document, dict):
            raise HTTPError(400, "the JSON body is not an object")
        values: dict[str, list[Any]] = {}
        for name, value in document.items():
            _flatten(name, value, values, MAX_DEPTH)
        return cls(values, document)

    def getlist(self, name: str) -> list[Any]:
        """The values of a field; WTForms' name for it."""
        return self._values.get(name, [])

    def __getitem__(self, name: str) -> list[Any]:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._values)

    def __bool__(self) -> bool:
        # An empty form was sent all the same: every box is unchecked.
        return True


def is_json_request(handler: RequestHandler) -> bool:
    """Whether the body says that it is JSON."""
    media_type = handler.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def wants_json(handler: RequestHandler) -> bool:
    """Whether the client would rather have JSON than a page, by *Accept* (RFC 9110 section 12.5.1).

    Where it does not care, it gets what it sent.
    """
    accept = handler.request.headers.get("Accept", "")
    json_quality = html_quality = 0.0
    for entry in accept.split(",")[:50]:
        media_range, *parameters = (part.strip().lower() for part in entry.split(";"))
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = min(max(float(parameter[2:6]), 0.0), 1.0)
                except ValueError:
                    quality = 0.0
        if media_range in ("application/json", "application/problem+json"):
            json_quality = max(json_quality, quality)
        elif media_range in ("text/html", "application/xhtml+xml"):
            html_quality = max(html_quality, quality)
    if json_quality == html_quality:
        return is_json_request(handler)
    return json_quality > html_quality


def _has_other_digits(name: str) -> bool:
    """Whether there is a digit in *name* that is not ASCII's, such as a superscript."""
    return not name.isascii() and any(c.isdigit() and not c.isascii() for c in name)


def _texts(arguments: dict[str, list[bytes]]) -> dict[str, list[Any]]:
    try:
        return {name: [_clean(to_unicode(value)) for value in values] for name, values in arguments.items()}
    except UnicodeDecodeError:
        raise HTTPError(400, "the form is not UTF-8") from None


def _flatten(name: str, value: Any, values: dict[str, list[Any]], depth: int) -> None:
    """Put *value* where WTForms looks for it: ``a-b`` for objects, ``a`` and ``a-0`` for lists."""
    if depth == 0:
        raise HTTPError(400, "the JSON body is nested too deep")
    if value is None:
        return
    if len(values) >= MAX_VALUES:
        raise HTTPError(400, f"the JSON body has more than {MAX_VALUES} values")
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(f"{name}-{key}", inner, values, depth - 1)
    elif isinstance(value, list):
        values[name] = [_text(inner) for inner in value if not isinstance(inner, dict | list | None)]
        for index, inner in enumerate(value):
            _flatten(f"{name}-{index}", inner, values, depth - 1)
    else:
        values[name] = [_text(value)]


def _text(value: Any) -> str:
    if value is True or value is False:
        return "true" if value else "false"
    return _clean(value) if isinstance(value, str) else str(value)


def _clean(text: str) -> str:
    """*text* as a page and PostgreSQL can hold it: no control characters, no half of a surrogate pair."""
    if text.isprintable():
        return text
    return _UNFIT.sub(" ", text)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not in the standard")
