"""Tests of the wire engines."""
