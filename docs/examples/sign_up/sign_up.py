"""A sign-up form whose name is looked up while it is validated. Run it with

cycloneish run --app sign_up:make_app
"""

from pathlib import Path

from sqlalchemy import String, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from cycloneish.db import Database
from cycloneish.forms import (
    BooleanField,
    DataRequired,
    EqualTo,
    FileField,
    FileSize,
    FileType,
    Form,
    FormMixin,
    InputRequired,
    Length,
    PasswordField,
    RadioField,
    Regexp,
    StringField,
    ValidationError,
    uimodules,
)
from cycloneish.web import Application, RequestHandler


class Base(DeclarativeBase):
    pass


class Member(Base):
    __tablename__ = "member"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(30), unique=True)
    plan: Mapped[str]


NEW_PASSWORD = {"autocomplete": "new-password"}


class SignUp(Form):
    name = StringField(
        "Name",
        [DataRequired(), Length(max=30), Regexp(r"^[a-z0-9-]*$", message="Only a to z, digits and dashes.")],
        description="Others will see it.",
        render_kw={"autocomplete": "username"},
    )
    password = PasswordField("Password", [InputRequired(), Length(min=10)], render_kw=NEW_PASSWORD)
    again = PasswordField(
        "Password, again", [EqualTo("password", message="The two differ.")], render_kw=NEW_PASSWORD
    )
    plan = RadioField("Plan", [InputRequired()], choices={"free": "Free", "paid": "Paid"}, default="free")
    picture = FileField("Picture", [FileSize(max=1_000_000), FileType("image/png", "image/jpeg")])
    rules = BooleanField("I have read the rules", [InputRequired()])

    async def validate_name(self, field):
        if await self.handler.db.scalar(select(Member.id).where(Member.name == field.data)):
            raise ValidationError("This name is taken.")


class SignUpHandler(FormMixin, RequestHandler):
    form_class = SignUp
    template_name = "sign_up.html"

    async def form_valid(self, form):
        self.db.add(Member(name=form.name.data, plan=form.plan.data))
        try:
            await self.db.commit()
        except IntegrityError:  # somebody was faster
            form.name.errors = [*form.name.errors, "This name is taken."]
            await self.form_invalid(form)
            return
        self.redirect("/welcome", status=303)


class Welcome(RequestHandler):
    def get(self):
        self.write("<!doctype html><title>Welcome</title><h1>Welcome</h1>")


async def create_tables(database):
    await database.run(lambda session: Base.metadata.create_all(session.connection()))


def make_app(folder="sign-up-data"):
    database = Database(f"embedded://{Path(folder).resolve()}", prepare=create_tables)
    app = Application(
        [("/", SignUpHandler), ("/welcome", Welcome)],
        database=database,
        ui_modules=uimodules,
        template_path=str(Path(__file__).parent),
        cookie_secret="change me",
        xsrf_cookies=True,
    )
    app.service = database
    return app
