"""Tells Alembic where the models are, so that it can compare them with the database."""

from cycloneish.db.migrations import run_environment
from cycloneish.demo.models import Base

run_environment(Base.metadata)
