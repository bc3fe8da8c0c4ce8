"""Fields that WTForms lacks, or that take more than they should from a stranger.

The rest is handed on unchanged, so that a program imports its fields from one place.
"""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import wtforms
from wtforms import (
    ColorField,
    DateTimeField,
    EmailField,
    FieldList,
    FormField,
    HiddenField,
    MonthField,
    PasswordField,
    RadioField,
    SearchField,
    SelectField,
    SelectMultipleField,
    StringField,
    SubmitField,
    TelField,
    TextAreaField,
    URLField,
    WeekField,
)

if TYPE_CHECKING:
    from cycloneish.httputil import HTTPFile

__all__ = [
    "BooleanField",
    "ColorField",
    "DateField",
    "DateTimeField",
    "DateTimeLocalField",
    "DecimalField",
    "EmailField",
    "FieldList",
    "FileField",
    "FloatField",
    "FormField",
    "HiddenField",
    "IntegerField",
    "MonthField",
    "MultipleFileField",
    "PasswordField",
    "RadioField",
    "SearchField",
    "SelectField",
    "SelectMultipleField",
    "StringField",
    "SubmitField",
    "TelField",
    "TextAreaField",
    "TimeField",
    "URLField",
    "WeekField",
]

_INTEGER = re.compile(r"[+-]?[0-9]{1,300}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,300}(?:\.[0-9]{0,300})?|\.[0-9]{1,300})(?:[eE][+-]?[0-9]{1,3})?")


class _Strict:
    """Reads a number from ASCII digits alone: no full-width ones, ``1_000``, ``inf`` or a million of them."""

    _pattern = _NUMBER
    _refusal = "Not a valid decimal value."

    def process_formdata(self, valuelist: Sequence[Any]) -> None:
        """Read the first value; an empty one is none at all."""
        text = valuelist[0].strip() if valuelist and isinstance(valuelist[0], str) else ""
        if not text:
            self.data = None
            return
        if not self._pattern.fullmatch(text):
            self.data = None
            raise ValueError(self.gettext(self._refusal))  # type: ignore[attr-defined]
        super().process_formdata([text])  # type: ignore[misc]


class IntegerField(_Strict, wtforms.IntegerField):
    """A whole number; None when it was left empty."""

    _pattern = _INTEGER
    _refusal = "Not a valid integer value."


class DecimalField(_Strict, wtforms.DecimalField):
    """A :class:`decimal.Decimal`; None when it was left empty."""

    def _value(self) -> str:
        try:
            return str(super()._value())
        except decimal.InvalidOperation:  # more digits than it can be rounded to
            return str(self.data)


class FloatField(_Strict, wtforms.FloatField):
    """A finite floating-point number; None when it was left empty."""

    _refusal = "Not a valid float value."

    def process_formdata(self, valuelist: Sequence[Any]) -> None:
        """Read the first value; an empty one is none at all."""
        super().process_formdata(valuelist)
        if self.data is not None and not math.isfinite(self.data):
            self.data = None
            raise ValueError(self.gettext(self._refusal))


class _ASCII:
    """Reads text of ASCII characters alone: Python takes the digits of every script for a date."""

    def process_formdata(self, valuelist: Sequence[Any]) -> None:
        """Read the first value."""
        if valuelist and not all(isinstance(value, str) and value.isascii() for value in valuelist):
            self.data = None
            raise ValueError(self.gettext("Invalid input."))  # type: ignore[attr-defined]
        super().process_formdata(valuelist)  # type: ignore[misc]


class DateField(_ASCII, wtforms.DateField):
    """A day."""


class DateTimeLocalField(_ASCII, wtforms.DateTimeLocalField):
    """A day and a time, without a zone."""


class TimeField(_ASCII, wtforms.TimeField):
    """A time of day."""


class BooleanField(wtforms.BooleanField):
    """A box to check; False, which only JSON can say, is the same as one that is not sent."""

    raw_data: list[Any]

    def process_formdata(self, valuelist: Sequence[Any]) -> None:
        """Take the box for checked when it was sent and is not false."""
        super().process_formdata(valuelist)
        if not self.data:
            self.raw_data = []


class FileField(wtforms.FileField):
    """One uploaded file; its data is an :class:`~cycloneish.httputil.HTTPFile` or None."""

    data: HTTPFile | None

    def process_formdata(self, valuelist: Sequence[Any]) -> None:
        """Take the first file; text in its place is no file."""
        self.raw_data = _files(valuelist)
        if self.raw_data:
            self.data = self.raw_data[0]


class MultipleFileField(wtforms.MultipleFileField):
    """Several uploaded files; its data is a list of :class:`~cycloneish.httputil.HTTPFile`."""

    data: list[HTTPFile]

    def process_formdata(self, valuelist: Sequence[Any]) -> None:
        """Take all files."""
        self.raw_data = self.data = _files(valuelist)


def _files(values: Sequence[Any]) -> list[HTTPFile]:
    return [value for value in values if not isinstance(value, str)]
