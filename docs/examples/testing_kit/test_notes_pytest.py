"""Tests of notes.py for pytest: ``pytest test_notes_pytest.py``."""

import pytest
from notes import make_app

from cycloneish.testing import SyncClient


@pytest.fixture
def client():
    with SyncClient(make_app(), xsrf=True, raise_errors=True) as client:
        yield client


def test_write_a_note(client):
    client.cookies.set_signed("user", "ann")
    client.post("/notes", form={"text": "milk"})
    assert client.get("/notes").json() == {"notes": [{"text": "milk", "files": []}]}


def test_the_shelf(client):
    with pytest.raises(LookupError, match="no such shelf"):
        client.get("/broken")
