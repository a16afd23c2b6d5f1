"""What several modules use: a file of packed experts, and compiled entry points."""

from pathlib import Path

import numpy as np
import pytest

from tests.expert_files import write_records
from tests.threaded_kernels import compile_kernels


@pytest.fixture(scope="session")
def packed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A file of packed experts, and what is in it."""
    path = tmp_path_factory.mktemp("packed") / "layer_07.bin"
    return path, write_records(path)


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library of `tests.threaded_kernels`."""
    return compile_kernels(tmp_path_factory.mktemp("kernels"))
