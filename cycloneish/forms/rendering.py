"""Forms as HTML: labels, help and errors tied to their inputs for those who cannot see them.

Used by the UI modules of :mod:`cycloneish.forms.uimodules`; everything that is put in is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import wtforms
from markupsafe import Markup, escape
from wtforms.widgets import HiddenInput

from cycloneish.forms.messages import own_errors, say

__all__ = ["BOOTSTRAP", "CLASSES", "render_errors", "render_field", "render_form"]

#: The classes of each part; a site replaces those it wants to with the setting ``form_classes``.
CLASSES: Mapping[str, str] = {
    "form": "form",
    "field": "form-field",
    "label": "form-label",
    "input": "form-input",
    "select": "form-input",
    "file": "form-input",
    "check": "form-check",
    "check_input": "form-check-input",
    "check_label": "form-check-label",
    "group": "form-group",
    "legend": "form-legend",
    "invalid": "is-invalid",
    "help": "form-help",
    "error": "form-error",
    "errors": "form-errors",
    "button": "form-button",
}

#: ``form_classes`` for Bootstrap 5.
BOOTSTRAP: Mapping[str, str] = {
    "form": "",
    "field": "mb-3",
    "label": "form-label",
    "input": "form-control",
    "select": "form-select",
    "file": "form-control",
    "check": "form-check",
    "check_input": "form-check-input",
    "check_label": "form-check-label",
    "group": "mb-3",
    "legend": "col-form-label pt-0",
    "invalid": "is-invalid",
    "help": "form-text",
    "error": "invalid-feedback d-block",
    "errors": "alert alert-danger",
    "button": "btn btn-primary",
}


def render_form(
    form: wtforms.Form,
    *,
    hidden: str = "",
    action: str = "",
    method: str = "post",
    submit: str = "Save",
    classes: Mapping[str, str] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Markup:
    """The whole form.

    :param hidden: HTML for the beginning, such as the hidden field with the XSRF token.
    :param action: where it is sent; the page itself by default.
    :param method: ``post`` or ``get``.
    :param submit: the words on the button.
    :param classes: see :data:`CLASSES`.
    :param attributes: further attributes of the ``<form>``.
    """
    names = {**CLASSES, **(classes or {})}
    given: dict[str, Any] = {"class": names["form"], "method": method, "action": action}
    if getattr(form, "has_files", False):
        given["enctype"] = "multipart/form-data"
    # The server says what is wrong in the visitor's language, beside the field.
    given["novalidate"] = bool(form.errors)
    given.update(attributes or {})
    fields = Markup("\n").join(render_field(field, classes=classes) for field in form)
    has_button = any(isinstance(field, wtforms.SubmitField) for field in form)
    button = Markup("") if has_button else _button(submit, names)
    return Markup("<form{}>\n{}{}{}\n{}</form>\n").format(
        _attributes(given), Markup(hidden), render_errors(form, classes=classes), fields, button
    )


def render_errors(form: wtforms.Form, *, classes: Mapping[str, str] | None = None) -> Markup:
    """What is wrong with the form as a whole, and with fields that cannot be seen."""
    names = {**CLASSES, **(classes or {})}
    found = [str(error) for error in form.form_errors]
    for field in form:
        if _is_hidden(field):
            found += [f"{field.label.text}: {error}" for error in field.errors]
    if not found:
        return Markup("")
    inside = Markup("").join(Markup("<p>{}</p>").format(error) for error in found)
    return Markup('<div{} role="alert">{}</div>\n').format(_attributes({"class": names["errors"]}), inside)


def render_field(
    field: wtforms.Field, *, classes: Mapping[str, str] | None = None, **attributes: Any
) -> Markup:
    """One field with its label, help and errors.

    :param classes: see :data:`CLASSES`.
    :param attributes: further attributes of the input, as WTForms takes them.
    """
    names = {**CLASSES, **(classes or {})}
    if _is_hidden(field):
        return Markup(field(**attributes))
    if isinstance(field, wtforms.SubmitField):
        return Markup(field(**{"class_": names["button"], **attributes}))
    if isinstance(field, wtforms.FormField):
        inner = Markup("\n").join(render_field(one, classes=classes) for one in field.form)
        return _group(field, names, Markup("{}{}").format(render_errors(field.form, classes=classes), inner))
    if isinstance(field, wtforms.FieldList):
        inner = Markup("\n").join(render_field(one, classes=classes) for one in field)
        return _group(field, names, inner, described=True)
    if isinstance(field, wtforms.RadioField):
        return _group(field, names, Markup("").join(_radios(field, names, attributes)), described=True)
    check = isinstance(field, wtforms.BooleanField)
    kind = "check_input" if check else _kind(field)
    css = [names[kind], *([names["invalid"]] if field.errors else []), attributes.pop("class_", "")]
    given = {"class_": " ".join(filter(None, css)), **_aria(field), **attributes}
    control = Markup(field(**given))
    label = _label(field, names["check_label" if check else "label"])
    first, second = (control, label) if check else (label, control)
    return Markup("<div{}>{}{}{}</div>").format(
        _attributes({"class": names["check" if check else "field"]}), first, second, _notes(field, names)
    )


def _is_hidden(field: wtforms.Field) -> bool:
    return isinstance(field, wtforms.HiddenField) or isinstance(field.widget, HiddenInput)


def _kind(field: wtforms.Field) -> str:
    if isinstance(field, wtforms.SelectField | wtforms.SelectMultipleField):
        return "select"
    return "file" if isinstance(field, wtforms.FileField) else "input"


def _aria(field: wtforms.Field) -> dict[str, str]:
    """Attributes that tie help and errors to the input."""
    notes = [
        f"{field.id}-{what}"
        for what, there in (("error", own_errors(field)), ("help", field.description))
        if there
    ]
    found = {"aria-describedby": " ".join(notes)} if notes else {}
    return {**found, "aria-invalid": "true"} if field.errors else found


def _notes(field: wtforms.Field, names: Mapping[str, str]) -> Markup:
    found = Markup("")
    errors = own_errors(field)
    if errors:
        found += Markup('<p{} id="{}-error" role="alert">{}</p>').format(
            _attributes({"class": names["error"]}), field.id, Markup("<br>").join(map(escape, errors))
        )
    if field.description:
        found += Markup('<p{} id="{}-help">{}</p>').format(
            _attributes({"class": names["help"]}), field.id, say(field, field.description)
        )
    return found


def _label(field: wtforms.Field, css: str) -> Markup:
    return Markup("<label{}>{}{}</label>").format(
        _attributes({"for": field.id, "class": css}), say(field, field.label.text), _star(field)
    )


def _star(field: wtforms.Field) -> Markup:
    # The input says it to a screen reader itself.
    return Markup(' <span aria-hidden="true">*</span>') if field.flags.required else Markup("")


def _group(field: wtforms.Field, names: Mapping[str, str], inner: Markup, described: bool = False) -> Markup:
    given = {"class": names["group"], "id": field.id, **(_aria(field) if described else {})}
    given.pop("aria-invalid", None)  # not one of a fieldset's attributes
    notes = _notes(field, names) if described else Markup("")
    return Markup("<fieldset{}><legend{}>{}{}</legend>\n{}{}</fieldset>").format(
        _attributes(given),
        _attributes({"class": names["legend"]}),
        say(field, field.label.text),
        _star(field),
        inner,
        notes,
    )


def _radios(
    field: wtforms.RadioField, names: Mapping[str, str], attributes: Mapping[str, Any]
) -> Iterator[Markup]:
    for option in field:
        given = {"class_": names["check_input"], **attributes}
        if field.errors:
            given["aria-invalid"] = "true"
        yield Markup("<div{}>{}<label{}>{}</label></div>").format(
            _attributes({"class": names["check"]}),
            Markup(option(**given)),
            _attributes({"for": option.id, "class": names["check_label"]}),
            say(field, option.label.text),
        )


def _button(words: str, names: Mapping[str, str]) -> Markup:
    return Markup('<button type="submit"{}>{}</button>\n').format(
        _attributes({"class": names["button"]}), words
    )


def _attributes(given: Mapping[str, Any]) -> Markup:
    """Attributes with a blank in front of each; True is one without a value, False, None and "" are none."""
    found = Markup("")
    for name, value in given.items():
        if value is True:
            found += Markup(" {}").format(name)
        elif value or name == "action":
            found += Markup(' {}="{}"').format(name, value)
    return found
