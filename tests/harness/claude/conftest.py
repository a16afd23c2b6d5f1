"""The search and the server that these tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pytest_httpserver import HTTPServer

from tests.harness.claude.messages_server import MessagesServer
from tests.harness.claude.place import Place


@pytest.fixture(scope="session")
def http() -> Iterator[HTTPServer]:
    with HTTPServer(threaded=True) as server:
        yield server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, http: HTTPServer) -> Iterator[MessagesServer]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a key")
    http.clear()
    server = MessagesServer(http)
    yield server
    server.over.set()


@pytest.fixture
def place(tmp_path: Path, server: MessagesServer) -> Place:
    return Place(tmp_path, server)
