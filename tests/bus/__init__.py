"""Tests of the bus: one suite of behaviour, run over every transport."""
