"""What is wrong with a form as JSON: problem details of RFC 9457, ``application/problem+json``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import wtforms

from cycloneish.forms.messages import own_errors
from cycloneish.httputil import responses

__all__ = ["CONTENT_TYPE", "STATUS", "problem_details"]

CONTENT_TYPE = "application/problem+json"

#: Unprocessable Content (RFC 9110 section 15.5.21): it could be read, and what it says is wrong.
STATUS = 422


def problem_details(form: wtforms.Form, *, status: int = STATUS, detail: str | None = None) -> dict[str, Any]:
    """The problem as a dictionary::

        {"type": "about:blank", "title": "Unprocessable Content", "status": 422,
         "detail": "2 values cannot be accepted.",
         "errors": [{"pointer": "#/name", "detail": "This name is taken.", "field": "name"}]}

    Each error has a JSON Pointer (RFC 6901) to the value, as it stands or would stand in a JSON body, and the
    name of the form field; an error of the whole form points at the whole document.
    """
    errors = list(_errors(form, ""))
    errors += [{"pointer": "#", "detail": str(error)} for error in form.form_errors]
    count = len(errors)
    return {
        "type": "about:blank",
        "title": responses.get(status, "Unknown"),
        "status": status,
        "detail": detail or f"{count} value{'' if count == 1 else 's'} cannot be accepted.",
        "errors": errors,
    }


def _errors(form: wtforms.Form, path: str) -> Iterator[dict[str, str]]:
    for field in form:
        yield from _field_errors(field, f"{path}/{_token(field.short_name)}")


def _field_errors(field: wtforms.Field, path: str) -> Iterator[dict[str, str]]:
    if isinstance(field, wtforms.FormField):
        yield from _errors(field.form, path)
        for error in field.form.form_errors:
            yield {"pointer": f"#{path}", "detail": str(field.gettext(str(error))), "field": field.name}
        return
    if isinstance(field, wtforms.FieldList):
        for index, entry in enumerate(field.entries):
            yield from _field_errors(entry, f"{path}/{index}")
    for error in own_errors(field):
        yield {"pointer": f"#{path}", "detail": error, "field": field.name}


def _token(name: str) -> str:
    """A name as a part of a JSON Pointer (RFC 6901 section 3)."""
    return name.replace("~", "~0").replace("/", "~1")
