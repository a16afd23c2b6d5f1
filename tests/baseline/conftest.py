"""What several modules use: a file of packed experts, compiled entry points, and the bundled model streamed."""

from pathlib import Path

import numpy as np
import pytest

from baseline.engine import Engine
from baseline.pack import pack
from tests.expert_files import write_records
from tests.models import TINY_MOE
from tests.streamed import LAYOUT, resident_outputs
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


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model, packed. Tests that change it pack their own."""
    folder = tmp_path_factory.mktemp("tiny") / "packed"
    pack(TINY_MOE, folder, LAYOUT)
    return folder


@pytest.fixture(scope="module")
def engine(tiny: Path) -> Engine:
    return Engine.load(tiny)


@pytest.fixture(scope="session")
def want() -> tuple[np.ndarray, np.ndarray]:
    """The resident model's logits of the prompt and of 24 tokens."""
    return resident_outputs(TINY_MOE, 24)
