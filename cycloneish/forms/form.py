"""``Form``: WTForms' declarative form, filled from a handler's request, with validators that may wait."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import wtforms
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.python.failure import Failure
from wtforms.meta import DefaultMeta
from wtforms.validators import StopValidation, ValidationError

from cycloneish.coroutines import as_deferred, is_awaitable
from cycloneish.forms.data import FormData
from cycloneish.forms.messages import Messages

if TYPE_CHECKING:
    from cycloneish.web import RequestHandler

__all__ = ["Form"]

#: Seconds that the validators of a form may take together.
VALIDATION_TIMEOUT = 10.0

_WITH_BODY = frozenset(("POST", "PUT", "PATCH", "DELETE"))


class Form(wtforms.Form):
    """A form of fields, as WTForms has it::

        class SignUp(Form):
            name = StringField("Name", [DataRequired(), Length(max=40)])
            password = PasswordField("Password", [Length(min=10)])

            async def validate_name(self, field):
                if await self.handler.db.scalar(select(User.id).where(User.name == field.data)):
                    raise ValidationError("This name is taken.")

        form = SignUp(self)                  # in a handler
        if await form.validate():
            form.populate_obj(user)

    :param handler: the handler whose request is read, whose locale is spoken, and whose XSRF token is put
        into the page.  None for a form without a request.
    :param obj: an object whose attributes are shown until something is sent.
    :param source: what is read: ``"body"`` (form fields, files or JSON), ``"query"``, or nothing (None).
        ``"auto"`` is the body of a POST, PUT, PATCH or DELETE.
    :param prefix: put in front of the names, where a page has several forms.
    :param data: a dictionary to show until something is sent.
    :param formdata: what was sent, instead of the request.
    :param values: further values to show, by the names of the fields.
    :raises HTTPError: 400, the body is not what its type says.

    The XSRF token is the handler's own (setting ``xsrf_cookies``) and is checked before the handler's method
    runs, so WTForms' protection is off.  What is sent and has no field is ignored.
    """

    class Meta(DefaultMeta):
        """Options for WTForms."""

        handler: RequestHandler | None = None

        def get_translations(self, form: wtforms.Form) -> Any:
            """Messages in the language of the handler."""
            handler = self.handler
            if handler is None and form._parent_form is not None:
                handler = getattr(form._parent_form, "handler", None)
            return None if handler is None else Messages(handler.locale)

    def __init__(
        self,
        handler: RequestHandler | None = None,
        obj: Any = None,
        *,
        source: Literal["auto", "body", "query"] | None = "auto",
        prefix: str = "",
        data: Mapping[str, Any] | None = None,
        formdata: Any = None,
        meta: dict[str, Any] | None = None,
        **values: Any,
    ) -> None:
        parent = (meta or {}).get("_parent_form")
        self.handler: RequestHandler | None = handler or getattr(parent, "handler", None)
        self.obj = obj
        self._waiting: list[tuple[wtforms.Field, Any]] = []
        if formdata is None and handler is not None and parent is None:
            formdata = _read(handler, source)
        super().__init__(
            formdata=formdata,
            obj=obj,
            prefix=prefix,
            data=data,
            meta={"handler": self.handler, **(meta or {})},
            **values,
        )

    def post_process(self, formdata: Any = None) -> None:
        """Called by WTForms when all fields have read what was sent."""
        super().post_process(formdata)
        document = getattr(formdata, "document", None)
        if document is not None and self._parent_form is None:
            _check_types(self, document)

    # -- validation ------------------------------------------------------------------------------

    def validate(
        self,
        extra_validators: Mapping[str, Sequence[Callable[..., Any]]] | None = None,
        *,
        timeout: float = VALIDATION_TIMEOUT,
    ) -> Deferred[bool]:
        """Check what was sent; fires with whether it is good.  What is wrong is then in ``errors``.

        Validators are those of the fields, methods called ``validate_<field>``, and at last :meth:`clean`.
        Each may be ``async def`` or return a Deferred.  Those that wait run side by side after all others,
        and only for fields that have no error yet.

        :param extra_validators: further validators by the names of fields.
        :param timeout: seconds for those that wait.
        :raises twisted.internet.defer.TimeoutError: they took longer; they are cancelled.

        Cancelling the Deferred cancels what they wait for.  An exception that is no :exc:`ValidationError`
        is an error of the program: it fails the Deferred.
        """
        good = self._check_now(extra_validators)
        if self._parent_form is not None:
            # WTForms validates a form inside a form; who waits is the outermost.
            return good  # type: ignore[return-value]
        waiting = [
            as_deferred(awaited).addErrback(_take_error, field)
            for field, awaited in self._all_waiting()
            if not _drop(field, awaited)
        ]
        if not waiting:
            return self._finish(timeout)
        return _in_time(_together(waiting), timeout).addCallback(lambda _: self._finish(timeout))

    def clean(self) -> Any:
        """Check the fields together; override.  May raise :exc:`ValidationError`, may be ``async def``.

        Called when no field has an error.  The error is one of the form, in ``form_errors``.
        """

    def _finish(self, timeout: float) -> Deferred[bool]:
        _collect_list_errors(self)
        if self.errors:
            return succeed(False)
        try:
            cleaned = self.clean()
        except ValidationError as error:
            self.form_errors.append(str(error))
            return succeed(False)
        if not is_awaitable(cleaned):
            return succeed(not self.errors)

        def failed(failure: Failure) -> None:
            failure.trap(ValidationError)
            self.form_errors.append(failure.getErrorMessage())

        return (
            _in_time(as_deferred(cleaned), timeout).addErrback(failed).addCallback(lambda _: not self.errors)
        )

    def _check_now(self, extra_validators: Mapping[str, Sequence[Callable[..., Any]]] | None) -> bool:
        """Run the validators that do not wait, and keep what the others returned in ``_waiting``."""
        self._waiting = []
        self.form_errors: list[str] = []
        extra = {name: [self._kept(v) for v in more] for name, more in (extra_validators or {}).items()}
        for name in self._fields:
            inline = getattr(type(self), f"validate_{name}", None)
            if inline is not None:
                extra.setdefault(name, []).append(self._kept(inline))
        fields = list(_leaves(self))
        declared = [field.validators for field in fields]
        try:
            for field in fields:
                field.validators = [self._kept(validator) for validator in field.validators]
            return bool(wtforms.form.BaseForm.validate(self, extra))
        finally:
            for field, validators in zip(fields, declared, strict=True):
                field.validators = validators

    def _kept(self, validator: Callable[..., Any]) -> Callable[..., None]:
        """*validator*, whose result is kept when it has to be waited for."""

        def run(form: wtforms.Form, field: wtforms.Field) -> None:
            result = validator(form, field)
            if is_awaitable(result):
                self._waiting.append((field, result))

        return run

    def _all_waiting(self) -> Iterator[tuple[wtforms.Field, Any]]:
        yield from self._waiting
        for form in _inner_forms(self):
            if isinstance(form, Form):
                yield from form._all_waiting()

    # -- what a handler does with it -------------------------------------------------------------

    @property
    def has_files(self) -> bool:
        """Whether a field takes files, so that the page has to send ``multipart/form-data``."""
        return any(isinstance(field, wtforms.FileField) for field in _leaves(self, deep=True))


def _read(handler: RequestHandler, source: str | None) -> FormData | None:
    if source == "query":
        return FormData.of_query(handler)
    if source == "body" or (source == "auto" and handler.request.method in _WITH_BODY):
        return FormData.of_body(handler)
    return None


def _leaves(form: wtforms.Form, deep: bool = False) -> Iterator[wtforms.Field]:
    """The fields of *form*, those in lists included; with *deep* those of forms inside it as well."""
    waiting = list(form._fields.values())
    while waiting:
        field = waiting.pop()
        if isinstance(field, wtforms.FormField):
            if deep:
                waiting += field.form._fields.values()
            continue
        yield field
        waiting += getattr(field, "entries", [])


def _inner_forms(form: wtforms.Form) -> Iterator[wtforms.Form]:
    """The forms directly inside *form*, in fields and in lists."""
    waiting = list(form._fields.values())
    while waiting:
        field = waiting.pop()
        if isinstance(field, wtforms.FormField):
            yield field.form
        else:
            waiting += getattr(field, "entries", [])


def _drop(field: wtforms.Field, awaited: Any) -> bool:
    """Whether nobody has to wait, since the field has an error already; then *awaited* is ended."""
    if not field.errors:
        return False
    if isinstance(awaited, Deferred):
        awaited.addErrback(lambda _: None)
        awaited.cancel()
    elif hasattr(awaited, "close"):
        awaited.close()
    return True


def _take_error(failure: Failure, field: wtforms.Field) -> None:
    """Put what a validator complains about to the field's errors."""
    failure.trap(ValidationError, StopValidation)
    message = failure.getErrorMessage()
    if message:
        field.errors = [*field.errors, message]


def _in_time(deferred: Deferred[Any], timeout: float) -> Deferred[Any]:
    from twisted.internet import reactor

    return deferred.addTimeout(timeout, reactor)


def _together(waiting: list[Deferred[None]]) -> Deferred[Any]:
    """Fires when all have; the first that fails ends the others, and so does cancelling."""

    def failed(failure: Failure) -> Failure:
        for deferred in waiting:
            deferred.cancel()
        inner = getattr(failure.value, "subFailure", None)
        return inner if isinstance(inner, Failure) else failure

    return gatherResults(waiting, consumeErrors=True).addErrback(failed)


def _collect_list_errors(form: wtforms.Form) -> None:
    """Put the errors of entries, which came later, to those of their lists."""
    for field in form._fields.values():
        if isinstance(field, wtforms.FieldList):
            inner = [list(entry.errors) for entry in field.entries]
            own = [error for error in field.errors if isinstance(error, str)]
            field.errors = [*inner, *own] if any(inner) else own
    for inside in _inner_forms(form):
        _collect_list_errors(inside)


def _check_types(form: wtforms.Form, document: dict[str, Any]) -> None:
    """Refuse JSON of the wrong shape: a list where one value is wanted, text where an object is."""
    for field in form._fields.values():
        _check_type(field, document.get(field.short_name))


def _check_type(field: wtforms.Field, value: Any) -> None:
    if value is None:
        return
    if isinstance(field, wtforms.FormField):
        if isinstance(value, dict):
            _check_types(field.form, value)
        else:
            # A form has no validators of its own before clean().
            _refuse(next(iter(field.form)), "An object is expected here.")
    elif isinstance(field, wtforms.FieldList):
        if isinstance(value, list) and len(value) != len(field.entries):
            # Left out by WTForms: what is over max_entries, and what has nothing in it.
            _refuse(field, "This list has too many entries, or empty ones.")
        elif isinstance(value, list):
            for entry, inner_value in zip(field.entries, value, strict=False):
                _check_type(entry, inner_value)
        else:
            _refuse(field, "A list is expected here.")
    elif isinstance(field, wtforms.SelectMultipleField | wtforms.MultipleFileField):
        if isinstance(value, dict) or (
            isinstance(value, list) and any(isinstance(v, dict | list) for v in value)
        ):
            _refuse(field, "A list of values is expected here.")
    elif isinstance(value, dict | list):
        _refuse(field, "A single value is expected here.")


def _refuse(field: wtforms.Field, message: str) -> None:
    """Let *field* have this error, whatever else there is to say of it."""

    def refuse(form: wtforms.Form, field: wtforms.Field) -> None:
        raise StopValidation(field.gettext(message))

    field.process_errors = []
    field.validators = [refuse]
