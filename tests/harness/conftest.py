"""A small search: the real ops, model and golden record, at shapes that build and run in a moment; a server that speaks
the Messages API."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pytest_httpserver import HTTPServer

from baseline.layout import load_layout
from baseline.pack import pack
from baseline.record import Sizes, record
from tests.harness.claude.messages_server import MessagesServer
from tests.harness.short_runs import shorten
from tests.models import TINY_MOE

KERNELS = Path(__file__).parents[2] / "kernels"
CHECKED = 3  # check cases of an op
BENCH = {
    "qmatvec": {"N": 512, "K": 512, "BITS": 4, "GROUP": 64, "T": "float32", "S": "bfloat16", "m": 1},
    "expert_gate_up": {
        "H": 512,
        "I": 256,
        "BITS": 4,
        "GROUP": 64,
        "T": "float32",
        "S": "bfloat16",
        "STRIDE": 221184,
    }
    | {"GATE_WEIGHT": 0, "GATE_SCALES": 65536, "GATE_BIASES": 69632}
    | {"UP_WEIGHT": 73728, "UP_SCALES": 139264, "UP_BIASES": 143360, "r": 1, "s": 2, "p": 2},
    "expert_down": {
        "H": 512,
        "I": 256,
        "TOP": 2,
        "BITS": 4,
        "GROUP": 64,
        "T": "float32",
        "S": "bfloat16",
        "STRIDE": 221184,
    }
    | {"DOWN_WEIGHT": 147456, "DOWN_SCALES": 212992, "DOWN_BIASES": 217088, "s": 2, "p": 2},
    "gated_delta_step": {"HK": 2, "HV": 4, "DK": 64, "DV": 64, "T": "float32", "b": 1},
}


def cut_kernels(root: Path) -> Path:
    """The contracts, cut to a few small shapes, with the plain variants alone: tests add others."""
    for op, bench in BENCH.items():
        (root / op / "cpu").mkdir(parents=True)
        contract = yaml.safe_load((KERNELS / op / "contract.yaml").read_text())
        contract |= {"check": contract["check"][:CHECKED], "bench": [bench]}
        (root / op / "contract.yaml").write_text(yaml.safe_dump(contract, sort_keys=False))
        shutil.copy(KERNELS / op / "cpu" / "plain.cpp", root / op / "cpu")
    return root


@pytest.fixture
def kernels(tmp_path) -> Path:
    """See `cut_kernels`."""
    return cut_kernels(tmp_path / "kernels")


@pytest.fixture(scope="session")
def packed(tmp_path_factory) -> Path:
    """The bundled model, packed."""
    folder = tmp_path_factory.mktemp("packed") / "tiny-moe"
    pack(TINY_MOE, folder, load_layout(KERNELS / "layouts" / "whole_expert.yaml"))
    return folder


@pytest.fixture(scope="session")
def golden(tmp_path_factory) -> Path:
    """A golden record that asks little."""
    folder = tmp_path_factory.mktemp("golden")
    texts = folder / "texts"
    texts.mkdir()
    shutil.copy(next((TINY_MOE / "heldout").glob("*.txt")), texts)
    sizes = Sizes(prompts=1, prompt_tokens=12, positions=2, decode_tokens=4, windows=1, window_tokens=16)
    record(TINY_MOE, folder / "record", texts, sizes=sizes)
    return folder / "record"


@pytest.fixture
def short(monkeypatch) -> None:
    """Engine runs of the searches in this process are short."""
    shorten(monkeypatch.setattr)


@pytest.fixture(scope="session")
def http() -> Iterator[HTTPServer]:
    with HTTPServer(threaded=True) as server:
        yield server


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, http: HTTPServer) -> Iterator[MessagesServer]:
    """Where the SDK finds its server, unless it is told another one."""
    http.clear()
    server = MessagesServer(http)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "a key")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    yield server
    server.over.set()
