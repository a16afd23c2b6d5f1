"""What a search is given, or finds changed while it runs: damaged models and shortened files."""

import dataclasses
import json
import os
import shutil

import pytest

from baseline.engine import Engine
from baseline.errors import CheckError, UsageError
from baseline.layout import load_layout
from baseline.policy import IoPolicy
from harness.loop import search
from harness.settings import SearchSettings
from tests.cheats.conftest import CHEATS
from tests.harness.conftest import KERNELS, cut_kernels

LAYER = "experts/layer_03.bin"


@pytest.fixture
def settings(tmp_path, packed, golden, cache):
    """A search of qmatvec with one honest, faster kernel."""
    kernels = cut_kernels(tmp_path / "kernels")
    shutil.copy(CHEATS / "honest" / "cpu" / "qmatvec" / "words.cpp", kernels / "qmatvec" / "cpu")
    mine = shutil.copytree(golden, tmp_path / "golden")
    return SearchSettings(
        tmp_path / "run", packed, kernels, cache, mine, ops=("qmatvec",), timeout_s=20.0, candidates=1
    )


@pytest.fixture
def damaged(settings, tmp_path):
    """The same with a packed model of its own, to be damaged."""
    return dataclasses.replace(settings, packed=shutil.copytree(settings.packed, tmp_path / "packed"))


def damage_records(path):
    """Zeroes the second half of every expert: what a layout leaves that drops bytes."""
    content = bytearray(path.read_bytes())
    stride = len(content) // 64
    for record in range(0, len(content), stride):
        content[record + stride // 2 : record + stride] = bytes(stride - stride // 2)
    path.write_bytes(content)


def test_a_shortened_layer_is_named(damaged):
    file = damaged.packed / LAYER
    os.truncate(file, file.stat().st_size - 4096)
    with pytest.raises(CheckError, match=r"layer_03\.bin has \d+ bytes; the manifest says \d+"):
        search(damaged)


@pytest.mark.parametrize("method", ["auto", "pread"])
def test_reads_that_come_short_are_an_error_that_names_the_layer(method, damaged):
    """Whatever the I/O policy: no answer is made of half a record."""
    engine = Engine.load(damaged.packed)
    engine.configure({}, dataclasses.replace(IoPolicy(), method=method), kernels=damaged.kernels, cache=damaged.cache)
    os.truncate(damaged.packed / LAYER, 4096)
    with pytest.raises(RuntimeError, match=r"layer_03\.bin: layer 3, expert \d+"):
        engine.decode([5, 6, 7], 3)


def test_a_layout_that_drops_bytes_answers_otherwise(damaged):
    for file in sorted((damaged.packed / "experts").glob("*.bin")):
        damage_records(file)
    with pytest.raises(CheckError, match="the seed is not sound in the engine: golden: "):
        search(damaged)


def test_a_layout_without_a_tensor_is_refused(tmp_path):
    text = (KERNELS / "layouts" / "whole_expert.yaml").read_text()
    shorter = "\n".join(line for line in text.splitlines() if "down_proj.biases" not in line)
    assert shorter != text.rstrip("\n")
    (tmp_path / "whole_expert.yaml").write_text(shorter)
    with pytest.raises(UsageError, match="down_proj"):
        load_layout(tmp_path / "whole_expert.yaml")


def test_a_manifest_that_drops_bytes_is_refused(damaged):
    path = damaged.packed / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["layers"][3]["segments"][0]["nbytes"] -= 4
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckError, match=r"manifest\.json: .*layer_03\.bin: .* cannot have \d+ bytes"):
        search(damaged)
