"""What a search is given, or finds changed while it runs: damaged models, shortened files, edited judges."""

import dataclasses
import json
import os
import shutil

import pytest

from baseline.errors import CheckError, UsageError
from baseline.layout import load_layout
from harness.candidate import Stage
from harness.ledger import load_rows
from harness.loop import search
from harness.settings import SearchSettings
from tests.cheats.conftest import CHEATS, KERNELS, write_kernels

LAYER = "experts/layer_03.bin"


class Tamperer:
    """An observer that changes something when the first candidate comes to a stage."""

    def __init__(self, stage, change):
        self.stage, self.change = stage, change

    def on_stage(self, candidate, stage):
        if stage is self.stage and candidate.proposer != "seed":
            self.change()

    def __getattr__(self, name):
        return lambda *told: None


@pytest.fixture
def settings(tmp_path, packed, golden, cache):
    """A search of qmatvec with one honest, faster kernel; all that it reads may be changed."""
    kernels = write_kernels(tmp_path / "kernels")
    shutil.copy(CHEATS / "honest" / "cpu" / "qmatvec" / "words.cpp", kernels / "qmatvec" / "cpu")
    folders = {name: shutil.copytree(path, tmp_path / name) for name, path in (("packed", packed), ("golden", golden))}
    return SearchSettings(
        tmp_path / "run", kernels=kernels, cache=cache, ops=("qmatvec",), timeout_s=20.0, candidates=1, **folders
    )


def flip(path):
    """Changes a byte in the middle of a file, but neither its size nor its time."""
    stat, content = path.stat(), bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def damage_records(path):
    """Zeroes the second half of every expert: what a layout leaves that drops bytes."""
    content = bytearray(path.read_bytes())
    stride = len(content) // 64
    for record in range(0, len(content), stride):
        content[record + stride // 2 : record + stride] = bytes(stride - stride // 2)
    path.write_bytes(content)


@pytest.mark.parametrize(("name", "file"), [("contracts", "kernels/qmatvec/contract.yaml"), ("golden record", "golden")])
def test_an_edited_judge_keeps_nothing(name, file, settings, tmp_path):
    path = tmp_path / file
    path = path if path.is_file() else path / "golden.safetensors"
    with pytest.raises(CheckError, match=f"the {name} changed during the search"):
        search(settings, Tamperer(Stage.BENCH, lambda: flip(path)))
    assert len(load_rows(settings.run / "ledger.tsv")) == 1  # the seed's


def test_a_shortened_layer_is_named(settings):
    file = settings.packed / LAYER
    os.truncate(file, file.stat().st_size - 4096)
    with pytest.raises(CheckError, match=r"layer_03\.bin has \d+ bytes; the manifest says \d+"):
        search(settings)


def test_a_layer_that_becomes_short_during_the_search_is_named(settings):
    """An I/O policy whose reads come short: the engine says so, and takes no answer from half a record."""
    file = settings.packed / LAYER
    tamperer = Tamperer(Stage.ENGINE, lambda: os.truncate(file, file.stat().st_size // 64 * 2))
    search(settings := dataclasses.replace(settings, timeout_s=60.0), tamperer) if False else None
    with pytest.raises(CheckError):
        search(settings, tamperer)


def test_a_layout_that_drops_bytes_answers_otherwise(settings):
    for file in sorted((settings.packed / "experts").glob("*.bin")):
        damage_records(file)
    with pytest.raises(CheckError, match="the seed is not sound in the engine: golden: "):
        search(settings)


def test_a_layout_without_a_tensor_is_refused(tmp_path):
    text = (KERNELS / "layouts" / "whole_expert.yaml").read_text()
    shorter = "\n".join(line for line in text.splitlines() if "down_proj.biases" not in line)
    assert shorter != text.rstrip("\n")
    (tmp_path / "short.yaml").write_text(shorter)
    with pytest.raises(UsageError, match="down_proj"):
        load_layout(tmp_path / "short.yaml")


def test_a_manifest_that_drops_bytes_is_refused(settings):
    path = settings.packed / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["layers"][3]["segments"][0]["nbytes"] -= 4
    path.write_text(json.dumps(manifest))
    with pytest.raises(CheckError, match=r"manifest\.json: .*layer_03\.bin: .* cannot have \d+ bytes"):
        search(settings)
