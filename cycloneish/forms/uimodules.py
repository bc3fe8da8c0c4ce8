"""Forms in templates: the setting ``ui_modules=cycloneish.forms.uimodules`` and ``{% module Form(form) %}``.

Settings: ``form_classes``, a dictionary that replaces names in
:data:`cycloneish.forms.rendering.CLASSES`; ``form_style``, the URL of a style sheet, or False for none.  By
default the small one of this package is put into the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import wtforms

from cycloneish.forms import rendering
from cycloneish.web import UIModule

__all__ = ["Field", "Form", "FormErrors"]

#: The small style sheet.
STYLE = Path(__file__).with_name("forms.css").read_text(encoding="utf-8")


class _FormModule(UIModule):
    @property
    def classes(self) -> dict[str, str] | None:
        """The site's own names."""
        found: dict[str, str] | None = self.handler.application.settings.get("form_classes")
        return found

    def embedded_css(self) -> str | None:
        """The small style sheet, unless the site has one."""
        wanted = self.handler.application.settings.get("form_style", True)
        return STYLE if wanted is True and self.classes is None else None

    def css_files(self) -> str | None:
        """The site's style sheet for forms."""
        wanted = self.handler.application.settings.get("form_style")
        return wanted if isinstance(wanted, str) else None


class Form(_FormModule):
    """``{% module Form(form) %}``: the whole form, with the XSRF token."""

    def render(
        self, form: wtforms.Form, submit: str | None = None, method: str = "post", **options: Any
    ) -> str:
        """Return the HTML.

        :param submit: the words on the button; "Save", translated, by default.
        :param options: ``action``, ``classes`` and, with other names, attributes of the ``<form>``.
        """
        classes = {**(self.classes or {}), **(options.pop("classes", None) or {})}
        protected = method.lower() != "get" and self.handler.application.settings.get("xsrf_cookies")
        return rendering.render_form(
            form,
            hidden=self.handler.xsrf_form_html() + "\n" if protected else "",
            action=options.pop("action", ""),
            method=method,
            submit=submit or self.locale.translate("Save"),
            classes=classes,
            attributes={name.rstrip("_").replace("_", "-"): value for name, value in options.items()},
        )


class Field(_FormModule):
    """``{% module Field(form.name) %}``: one field with its label, help and errors."""

    def render(self, field: wtforms.Field, **attributes: Any) -> str:
        """Return the HTML; *attributes* are those of the input, as WTForms takes them."""
        return rendering.render_field(field, classes=self.classes, **attributes)


class FormErrors(_FormModule):
    """``{% module FormErrors(form) %}``: what is wrong with the form as a whole."""

    def render(self, form: wtforms.Form) -> str:
        """Return the HTML, nothing where nothing is wrong."""
        return rendering.render_errors(form, classes=self.classes)
