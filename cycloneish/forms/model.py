"""``ModelForm``: a form out of a class that SQLAlchemy maps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import wtforms
from twisted.internet.defer import Deferred
from wtforms import SelectChoice
from wtforms.fields.core import UnboundField
from wtforms.validators import InputRequired, ValidationError
from wtforms.validators import Optional as OptionalValue

from cycloneish.coroutines import drive
from cycloneish.forms.form import Form

try:
    import sqlalchemy
    from sqlalchemy.exc import IntegrityError
    from sqlalchemy.orm import ColumnProperty, Mapper, RelationshipProperty
    from sqlalchemy.orm.interfaces import MANYTOMANY, MANYTOONE
except ImportError as error:
    raise ImportError("model forms need more libraries: pip install 'cycloneish[orm,forms]'") from error

from cycloneish.forms.columns import field_for, label_of

__all__ = ["ModelForm", "ModelSelectField", "ModelSelectMultipleField"]

#: How many rows a choice offers.
MAX_CHOICES = 1000


class _ModelChoice:
    """What both selections of rows have in common: which class, and how its keys are written."""

    flags: Any
    gettext: Any

    def __init__(self, *args: Any, model: Any, order_by: Any = None, **kwargs: Any) -> None:
        self.model = model
        self.order_by = order_by
        self.found: list[Any] = []
        options: dict[str, Any] = {"coerce": str, "choices": [], "validate_choice": False}
        super().__init__(*args, **options, **kwargs)

    def key_of(self, row: Any) -> str:
        """The primary key of *row* as text."""
        mapper = sqlalchemy.inspect(self.model)
        return ",".join(str(value) for value in mapper.primary_key_from_instance(row))

    async def load(self, session: Any) -> None:
        """Read the choices: at most :data:`MAX_CHOICES` rows, in the order of their keys or *order_by*."""
        mapper = sqlalchemy.inspect(self.model)
        order = self.order_by if self.order_by is not None else mapper.primary_key
        statement = sqlalchemy.select(self.model).limit(MAX_CHOICES)
        rows = (await session.scalars(statement.order_by(*_listed(order)))).all()
        self.choices = [SelectChoice(self.key_of(row), str(row)) for row in rows]
        if self.flags.optional and not isinstance(self, ModelSelectMultipleField):
            self.choices.insert(0, SelectChoice("", "—"))

    async def row_for(self, session: Any, text: str) -> Any:
        """The row whose key is *text*.

        :raises ValidationError: there is none.
        """
        mapper = sqlalchemy.inspect(self.model)
        parts = text.split(",")
        if len(parts) == len(mapper.primary_key):
            try:
                key = [
                    column.type.python_type(part)
                    for column, part in zip(mapper.primary_key, parts, strict=True)
                ]
                row = await session.get(self.model, key[0] if len(key) == 1 else tuple(key))
            except (ValueError, TypeError, sqlalchemy.exc.DBAPIError, sqlalchemy.exc.StatementError):
                row = None
            if row is not None:
                return row
        raise ValidationError(self.gettext("Not a valid choice."))


class ModelSelectField(_ModelChoice, wtforms.SelectField):
    """One row of another table; its data is the key as text, and ``found`` the row after validation."""

    def process_data(self, value: Any) -> None:
        """Take a row, or None."""
        self.data = "" if value is None else value if isinstance(value, str) else self.key_of(value)

    def populate_obj(self, obj: Any, name: str) -> None:
        """Put the row there."""
        setattr(obj, name, self.found[0] if self.found else None)

    async def resolve(self, session: Any) -> None:
        """Find the row that was chosen."""
        self.found = [await self.row_for(session, self.data)] if self.data else []


class ModelSelectMultipleField(_ModelChoice, wtforms.SelectMultipleField):
    """Several rows of another table; its data are their keys, and ``found`` the rows after validation."""

    def process_data(self, value: Any) -> None:
        """Take a collection of rows."""
        self.data = [row if isinstance(row, str) else self.key_of(row) for row in value or ()]

    def populate_obj(self, obj: Any, name: str) -> None:
        """Put the rows there."""
        setattr(obj, name, list(self.found))

    async def resolve(self, session: Any) -> None:
        """Find the rows that were chosen."""
        self.found = [await self.row_for(session, text) for text in dict.fromkeys(self.data or ())]


class ModelForm(Form):
    """A form whose fields come from a mapped class::

        class BookForm(ModelForm):
            class Meta:
                model = Book
                only = ["title", "author", "published"]

        form = BookForm(self, obj=book)                    # in a handler that has self.db
        if await form.validate() and await form.save():
            await self.db.commit()

    ``Meta`` has ``model``; ``only`` or ``exclude``, names of attributes; and ``field_args``, arguments for
    the fields by their names.  A field that the class declares itself goes first.

    Columns bring their type, length, range, and whether they may be empty; ``info={"label": …, "help": …,
    "form_field": …}`` of a column says the rest.  Primary keys, keys of other tables, and types that no field
    is for (JSON, arrays, binary) are left out; many-to-one and many-to-many relationships become choices,
    whose rows :meth:`load_choices` reads for the page.  What is unique is looked up while validating, and
    :meth:`save` notices what came in between.

    :param session: the session to ask; by default the handler's ``self.db``, and only when it is needed.
    """

    def __init__(self, handler: Any = None, obj: Any = None, *, session: Any = None, **options: Any) -> None:
        self._session = session
        super().__init__(handler, obj, **options)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        meta = cls.__dict__.get("Meta")
        model = getattr(meta, "model", None)
        if model is not None:
            for name, field in _fields_of(cls, model, meta):
                setattr(cls, name, field)

    @property
    def model(self) -> Any:
        """The mapped class."""
        return self.meta.model

    @property
    def session(self) -> Any:
        """The session that is asked.

        :raises RuntimeError: there is none.
        """
        if self._session is None:
            if self.handler is None:
                raise RuntimeError(f"{type(self).__name__} has to ask the database: give it session=…")
            self._session = self.handler.db
        return self._session

    def load_choices(self) -> Deferred[None]:
        """Read the rows that relationships offer; to be waited for before the form is shown."""

        async def load() -> None:
            for field in self._choices():
                await field.load(self.session)

        return drive(load())

    def clean(self) -> Any:
        """Find the chosen rows, and look whether what is unique is taken."""
        return drive(self._ask())

    async def _ask(self) -> None:
        for field in self._choices():
            try:
                await field.resolve(self.session)
            except ValidationError as error:
                field.errors = [*field.errors, str(error)]
        if self.errors:
            return
        for names in self._unique_names():
            if await self._is_taken(names):
                self._say_taken(names)

    def _choices(self) -> Iterator[Any]:
        return (field for field in self if isinstance(field, _ModelChoice))

    def _unique_names(self) -> Iterator[tuple[str, ...]]:
        """The names of fields that are unique, alone or together."""
        mapper: Mapper[Any] = sqlalchemy.inspect(self.model)
        for columns in _unique_columns(mapper):
            names = tuple(mapper.get_property_by_column(column).key for column in columns)
            if all(name in self._fields for name in names):
                yield names

    async def _is_taken(self, names: Sequence[str]) -> bool:
        values = [self._fields[name].data for name in names]
        if None in values:
            return False  # NULL equals nothing
        mapper: Mapper[Any] = sqlalchemy.inspect(self.model)
        conditions = [getattr(self.model, name) == value for name, value in zip(names, values, strict=True)]
        if self.obj is not None and sqlalchemy.inspect(self.obj).has_identity:
            own = mapper.primary_key_from_instance(self.obj)
            conditions.append(
                sqlalchemy.not_(
                    sqlalchemy.and_(
                        *(column == value for column, value in zip(mapper.primary_key, own, strict=True))
                    )
                )
            )
        found = await self.session.scalar(sqlalchemy.select(sqlalchemy.exists().where(*conditions)))
        return bool(found)

    def _say_taken(self, names: Sequence[str]) -> None:
        field = self._fields[names[0]]
        if len(names) == 1:
            field.errors = [*field.errors, field.gettext("This is taken already.")]
        else:
            labels = ", ".join(self._fields[name].label.text for name in names)
            self.form_errors.append(
                field.gettext("There is one with the same %(fields)s already.") % {"fields": labels}
            )

    def save(self) -> Deferred[Any]:
        """Put the values into ``obj``, or a new object, and send it to the database; fires with the object.

        It fires with None, and ``errors`` says why, where the database finds something taken that was free a
        moment before.  Committing is left to the caller.

        :raises sqlalchemy.exc.IntegrityError: another rule of the database is broken.
        """
        return drive(self._save())

    async def _save(self) -> Any:
        obj = self.model() if self.obj is None else self.obj
        try:
            async with self.session.begin_nested():
                self.populate_obj(obj)
                self.session.add(obj)
                await self.session.flush()
        except IntegrityError as error:
            names = self._broken(error)
            if names is None:
                raise
            self._say_taken(names)
            return None
        self.obj = obj
        return obj

    def _broken(self, error: IntegrityError) -> tuple[str, ...] | None:
        """The fields of the unique constraint that *error* speaks of."""
        diagnostics = getattr(error.orig, "diag", None)
        constraint = getattr(diagnostics, "constraint_name", None)
        text = str(error.orig)
        mapper: Mapper[Any] = sqlalchemy.inspect(self.model)
        for names in self._unique_names():
            columns = [mapper.get_property(name).columns[0] for name in names]
            table = columns[0].table
            known = {
                str(c.name) for c in (*table.constraints, *table.indexes) if set(c.columns) == set(columns)
            }
            known.add(f"{table.name}_{'_'.join(column.name for column in columns)}_key")
            if constraint is not None and constraint in known:
                return names
            # SQLite says "UNIQUE constraint failed: user.name".
            if all(f"{table.name}.{column.name}" in text for column in columns) and "UNIQUE" in text:
                return names
        return None


def _fields_of(form: type, model: Any, meta: Any) -> Iterator[tuple[str, UnboundField]]:
    mapper: Mapper[Any] = sqlalchemy.inspect(model)
    only: Sequence[str] | None = getattr(meta, "only", None)
    excluded = set(getattr(meta, "exclude", ()))
    arguments: dict[str, dict[str, Any]] = getattr(meta, "field_args", {})
    known = {prop.key for prop in mapper.attrs}
    unknown = (set(only or ()) | excluded | set(arguments)) - known - set(dir(form))
    if unknown:
        raise TypeError(f"{form.__name__}: {model.__name__} has no {', '.join(sorted(unknown))}")
    for prop in _in_order(mapper, only):
        name = prop.key
        if name in excluded or hasattr(getattr(form, name, None), "_formfield"):
            continue
        made = _field_of(prop, arguments.get(name, {}), wanted=only is not None)
        if made is not None:
            yield name, made


def _in_order(mapper: Mapper[Any], only: Sequence[str] | None) -> list[Any]:
    if only is not None:
        return [mapper.attrs[name] for name in only if name in mapper.attrs]
    # Relationships stand first among a mapper's attributes; a form begins with the columns.
    return [*mapper.column_attrs, *mapper.relationships]


def _field_of(prop: Any, options: dict[str, Any], wanted: bool) -> UnboundField | None:
    if isinstance(prop, ColumnProperty):
        column: Any = prop.columns[0]
        skipped = getattr(column, "primary_key", False) or getattr(column, "foreign_keys", None)
        return None if skipped and not wanted else field_for(prop, **options)
    if not isinstance(prop, RelationshipProperty) or prop.viewonly:
        return None
    given = {"label": label_of(prop.key, prop.info), "description": prop.info.get("help", "")}
    if prop.direction is MANYTOONE:
        optional = all(column.nullable for column in prop.local_columns)
        given["validators"] = [OptionalValue() if optional else InputRequired()]
        return ModelSelectField(model=prop.mapper.class_, **{**given, **options})
    if prop.direction is MANYTOMANY:
        return ModelSelectMultipleField(model=prop.mapper.class_, **{**given, **options})
    return None


def _unique_columns(mapper: Mapper[Any]) -> Iterator[list[Any]]:
    """Columns that are unique, alone or together; each set once."""
    table: Any = mapper.local_table
    seen: set[frozenset[str]] = set()
    constraints = [c for c in table.constraints if isinstance(c, sqlalchemy.UniqueConstraint)]
    indexes = [index for index in table.indexes if index.unique and not index.dialect_options]
    for found in (*constraints, *indexes):
        columns = list(found.columns)
        key = frozenset(column.name for column in columns)
        if columns and key not in seen:
            seen.add(key)
            yield columns


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else (value,)
