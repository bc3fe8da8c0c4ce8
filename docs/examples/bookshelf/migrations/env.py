"""Tells Alembic where the models are, so that it can compare them with the database."""

from models import Base

from cycloneish.db.migrations import run_environment

run_environment(Base.metadata)
