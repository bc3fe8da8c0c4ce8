"""Which field a column gets: its type, its length, whether it may be empty.

Used by :class:`cycloneish.forms.ModelForm`.
"""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable
from typing import Any

from wtforms import SelectChoice
from wtforms.fields.core import UnboundField

from cycloneish.forms import fields, validators

from sqlalchemy import types  # isort: skip
from sqlalchemy.orm import ColumnProperty  # isort: skip
from sqlalchemy.sql.schema import Column  # isort: skip

__all__ = ["field_for", "label_of"]

#: Bytes of the integers that have a size.
_SIZES = ((types.SmallInteger, 2), (types.BigInteger, 8), (types.Integer, 4))


def label_of(name: str, info: dict[str, Any]) -> str:
    """The words in front of a field: ``info["label"]`` of the column, else its name."""
    return str(info.get("label") or name.replace("_", " ").strip().capitalize())


def field_for(prop: ColumnProperty[Any], **options: Any) -> UnboundField | None:
    """The field for a mapped column, or None for a type that no field is for.

    :param options: arguments for the field, in place of those found here.
    """
    column = prop.columns[0]
    if not isinstance(column, Column):
        return None  # an expression, which cannot be set
    info = {**column.info, **prop.info}
    make = info.get("form_field") or _maker(column.type)
    if make is None:
        return None
    given: dict[str, Any] = {
        "label": label_of(prop.key, info),
        "description": info.get("help") or column.doc or column.comment or "",
        "validators": [*_presence(column), *_limits(column.type)],
        **_more(column),
        **options,
    }
    made: UnboundField = make(**given)
    return made


def _maker(kind: types.TypeEngine[Any]) -> Callable[..., Any] | None:
    for python_type, make in (
        (types.Boolean, fields.BooleanField),
        (types.Enum, fields.SelectField),
        (types.Integer, fields.IntegerField),
        (types.Float, fields.FloatField),
        (types.Numeric, fields.DecimalField),
        (types.DateTime, fields.DateTimeLocalField),
        (types.Date, fields.DateField),
        (types.Time, fields.TimeField),
        (types.Uuid, fields.StringField),
        (types.Text, fields.TextAreaField),
        (types.String, fields.StringField),
    ):
        if isinstance(kind, python_type):
            return make
    return None


def _presence(column: Column[Any]) -> list[Any]:
    if isinstance(column.type, types.Boolean):
        return []  # a box that is not checked is an answer
    if column.nullable or column.default is not None or column.server_default is not None:
        return [validators.Optional()]
    return [validators.InputRequired()]


def _limits(kind: types.TypeEngine[Any]) -> list[Any]:
    found: list[Any] = []
    length = getattr(kind, "length", None)
    if isinstance(kind, types.String) and not isinstance(kind, types.Enum):
        found.append(_no_nul)
        if length:
            found.append(validators.Length(max=length))
    elif isinstance(kind, types.Integer):
        size = next(size for python_type, size in _SIZES if isinstance(kind, python_type))
        found.append(validators.NumberRange(-(2 ** (8 * size - 1)), 2 ** (8 * size - 1) - 1))
    elif isinstance(kind, types.Numeric) and kind.precision and not isinstance(kind, types.Float):
        most = 10 ** (kind.precision - (kind.scale or 0))
        found.append(_Below(most))
    elif isinstance(kind, types.Uuid):
        found.append(validators.UUID())
    return found


def _more(column: Column[Any]) -> dict[str, Any]:
    kind = column.type
    found: dict[str, Any] = {}
    scalar_default = getattr(column.default, "arg", None) if column.default is not None else None
    if scalar_default is not None and not callable(scalar_default):
        found["default"] = scalar_default
    if isinstance(kind, types.Enum):
        found["choices"], found["coerce"] = _choices(kind, bool(column.nullable))
    elif isinstance(kind, types.Numeric) and not isinstance(kind, types.Float):
        found["places"] = kind.scale
    elif isinstance(kind, types.Uuid):
        found["filters"] = [_to_uuid if kind.as_uuid else _none_if_empty]
    elif isinstance(kind, types.String) and column.nullable:
        found["filters"] = [_none_if_empty]
    return found


def _choices(kind: types.Enum, nullable: bool) -> tuple[list[SelectChoice], Callable[[Any], Any]]:
    enum_class: type[enum.Enum] | None = kind.enum_class
    choices = [SelectChoice(name, str(name).replace("_", " ").capitalize()) for name in kind.enums]
    if nullable:
        choices.insert(0, SelectChoice("", "—"))

    def coerce(value: Any) -> Any:
        if value is None or value == "":
            return None
        if enum_class is None or isinstance(value, enum_class):
            return value
        try:
            return enum_class[value]
        except KeyError:
            raise ValueError(value) from None

    if enum_class is None:
        return choices, coerce
    # WTForms compares what coerce() makes of both.
    return choices, coerce


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


def _to_uuid(value: Any) -> Any:
    if not value or isinstance(value, uuid.UUID):
        return value or None
    try:
        return uuid.UUID(value)
    except ValueError:
        return value  # refused by the validator


def _no_nul(form: Any, field: Any) -> None:
    """PostgreSQL has no text with a NUL in it."""
    if isinstance(field.data, str) and "\0" in field.data:
        raise validators.ValidationError(field.gettext("Invalid input."))


class _Below:
    """A number has no more digits in front of the point than its column."""

    def __init__(self, most: int) -> None:
        self.most = most

    def __call__(self, form: Any, field: Any) -> None:
        if field.data is not None and not abs(field.data) < self.most:
            raise validators.ValidationError(
                field.gettext("Number must be at most %(max)s.") % {"max": self.most - 1}
            )
