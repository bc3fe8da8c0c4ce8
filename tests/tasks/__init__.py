"""Tests of background tasks: one suite of behaviour, run over every transport."""
