"""What all tests share: arithmetic on the CPU, so that results are the same on every machine; and compiled kernels."""

import os
from pathlib import Path

import hypothesis
import mlx.core as mx
import pytest

mx.set_default_device(mx.cpu)
hypothesis.settings.register_profile("shared machine", deadline=None)  # an example's time says nothing there
hypothesis.settings.load_profile("shared machine")


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled kernels, of this run and its workers: a library's name is a hash of all that it is made of."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    return folder
