"""``FormMixin``: a page with a form in a few lines, and the same for programs that send JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cycloneish.coroutines import as_deferred, drive
from cycloneish.escape import json_encode
from cycloneish.forms.data import wants_json
from cycloneish.forms.form import Form
from cycloneish.forms.problems import CONTENT_TYPE, STATUS, problem_details

if TYPE_CHECKING:
    from cycloneish.web import RequestHandler as _Base
else:
    _Base = object

__all__ = ["FormMixin"]


class FormMixin(_Base):
    """Shows a form on GET and takes it on POST, with Django's names for the steps::

        class SignUpHandler(FormMixin, RequestHandler):
            form_class = SignUp
            template_name = "sign-up.html"
            success_url = "/welcome"

            async def form_valid(self, form):
                self.db.add(User(name=form.name.data))
                await self.db.commit()
                self.redirect(self.success_url)

    The template gets the form as ``form``.  A form that is wrong is shown again with status 422; a client
    that wants JSON (*Accept*, or it sent JSON) gets the problem details of RFC 9457.
    """

    #: The form.
    form_class: type[Form] = Form
    #: The template that shows it.
    template_name: str | None = None
    #: Where the visitor goes afterwards.
    success_url: str | None = None

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """Show the form."""
        return drive(self._show(200))

    def post(self, *args: Any, **kwargs: Any) -> Any:
        """Take the form."""
        return drive(self._take())

    async def _show(self, status: int, form: Form | None = None) -> None:
        self.set_status(status)
        shown = await as_deferred(self.get_form()) if form is None else form
        await as_deferred(self.show_form(shown))

    async def _take(self) -> None:
        form = await as_deferred(self.get_form())
        handled = self.form_valid(form) if await form.validate() else self.form_invalid(form)
        await as_deferred(handled)

    def get_form(self) -> Any:
        """Make the form; override to give it an object.  May be ``async def``."""
        return self.form_class(self)

    def show_form(self, form: Form) -> Any:
        """Render the page.  May be ``async def``."""
        if self.template_name is None:
            raise TypeError(f"{type(self).__name__} needs a template_name, or a show_form of its own")
        return self.render(self.template_name, form=form)

    def form_valid(self, form: Form) -> Any:
        """What is done with a form that is good; override.  May be ``async def``."""
        if self.success_url is None:
            raise TypeError(f"{type(self).__name__} needs a success_url, or a form_valid of its own")
        self.redirect(self.success_url, status=303)

    def form_invalid(self, form: Form) -> Any:
        """Say what is wrong; override to say it otherwise."""
        if wants_json(self):
            return self.write_problem(form)
        return drive(self._show(STATUS, form))

    def write_problem(self, form: Form) -> Any:
        """Answer with the errors of *form* as problem details."""
        self.set_status(STATUS)
        self.set_header("Content-Type", CONTENT_TYPE)
        return self.finish(json_encode(problem_details(form)))
