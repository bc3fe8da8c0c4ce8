"""SQLAlchemy's own compliance suite for dialects, run by pytest in a process of its own."""
