"""Tests of `cycloneish.websocket`."""
