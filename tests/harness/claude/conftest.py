"""The search that these tests share."""

from pathlib import Path

import pytest

from tests.harness.claude.messages_server import MessagesServer
from tests.harness.claude.place import Place


@pytest.fixture
def place(tmp_path: Path, server: MessagesServer) -> Place:
    return Place(tmp_path, server)
