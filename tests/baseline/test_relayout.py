"""A converted model answers as the one it was made of, to the last bit, and is whole or not there."""

import dataclasses
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline.engine import Engine, IoPolicy
from baseline.errors import CheckError, UsageError
from baseline.layout import Layout, load_layout
from baseline.manifest import load_manifest
from baseline.pack import pack, verify
from baseline.relayout import relayout, verify_relayout
from tests.models import TINY_MOE, make_checkpoint
from tests.streamed import KERNELS, LAYOUT, PROMPT, defaults

ROOT = Path(__file__).parents[2]
OTHERS = [load_layout(path) for path in sorted((KERNELS / "layouts").glob("*.yaml")) if path.stem != LAYOUT.name]
PAGES = next(layout for layout in OTHERS if layout.name == "pages")
STEPS = 8 * 64  # experts of the bundled model: a step of progress each
# Converts until so many records are done, says so, and waits there to be killed.
CHILD = """
import sys, time
from pathlib import Path
from baseline.layout import load_layout
from baseline.relayout import relayout

packed, dst, layout, stop = sys.argv[1:]
steps = 0

def progress(done, total):
    global steps
    steps += 1
    if steps == int(stop):
        print("there", flush=True)
        time.sleep(600)

relayout(Path(packed), Path(dst), load_layout(Path(layout)), progress)
"""


@pytest.fixture(scope="module")
def packed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("relayout") / "packed"
    pack(TINY_MOE, folder, LAYOUT)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A model of few, odd tensors, biases and all."""
    folder = tmp_path_factory.mktemp("small")
    checkpoint = make_checkpoint(folder / "model", "olmoe", 6, 32, mlp_bias=True)
    pack(checkpoint, folder / "packed", LAYOUT)
    return folder / "packed"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def answers(folder: Path, build: Path, choices, **io) -> tuple[np.ndarray, np.ndarray]:
    engine = Engine.load(folder)
    engine.configure(choices, IoPolicy(**io), kernels=KERNELS, cache=build)
    return engine.logits(PROMPT), engine.decode(PROMPT, 8).logits


@pytest.mark.parametrize("layout", OTHERS, ids=lambda layout: layout.name)
def test_the_same_model_to_the_last_bit(layout, packed, cache, tmp_path):
    dst = tmp_path / "dst"
    manifest = relayout(packed, dst, layout)
    assert manifest == load_manifest(dst) and manifest.layout == layout
    verify(dst, TINY_MOE)
    verify_relayout(dst, packed)
    for choices, io in (({}, {}), ({}, {"cache": "mapped"}), (defaults("plain"), {"reads_per_expert": 4})):
        before, after = (answers(folder, cache, choices, **io) for folder in (packed, dst))
        assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


def test_it_is_the_pack_in_that_layout(packed, tmp_path):
    relayout(packed, tmp_path / "converted", PAGES)
    pack(TINY_MOE, tmp_path / "packed", PAGES)
    assert contents(tmp_path / "converted") == contents(tmp_path / "packed")


@settings(max_examples=20)
@given(
    order=st.permutations(LAYOUT.order),
    align=st.sampled_from([4096, 8192, 65536]),
    tensor_align=st.sampled_from([1, 2, 64, 4096]),
)
def test_there_and_back_gives_identical_files(tmp_path_factory, small, order, align, tensor_align):
    folder = tmp_path_factory.mktemp("back")
    layout = Layout("there", "A layout by lot.", align, tuple(order), tensor_align)
    relayout(small, folder / "there", layout)
    relayout(folder / "there", folder / "back", LAYOUT)
    assert contents(folder / "back") == contents(small)
    verify_relayout(folder / "there", small)
    segments = load_manifest(folder / "there").layers[0].segments
    assert all(segment.offset % tensor_align == 0 for segment in segments)


def test_what_is_no_expert_is_the_same_file(packed, tmp_path):
    relayout(packed, tmp_path / "dst", PAGES)
    manifest = load_manifest(packed)
    for name in (manifest.resident.file, *manifest.files):
        assert (tmp_path / "dst" / name).samefile(packed / name)


def test_where_there_are_no_links_there_are_copies(packed, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    relayout(packed, tmp_path / "dst", PAGES)
    assert not (tmp_path / "dst" / "resident.safetensors").samefile(packed / "resident.safetensors")
    verify(tmp_path / "dst", TINY_MOE)


def test_a_damaged_record_is_named_and_nothing_is_made_of_it(packed, tmp_path):
    damaged, dst = shutil.copytree(packed, tmp_path / "damaged"), tmp_path / "dst"
    layer = load_manifest(damaged).layers[3]
    with (damaged / layer.file).open("r+b") as stream:
        stream.seek(5 * layer.stride + 100)
        byte = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte[0] ^ 1]))
    with pytest.raises(CheckError, match=r"layer_03\.bin: layer 3 \(.*\), expert 5 is corrupt"):
        relayout(damaged, dst, PAGES)
    with pytest.raises(UsageError, match="unfinished pack"):
        load_manifest(dst)
    assert not (dst / layer.file).exists()
    relayout(packed, dst, PAGES)
    verify_relayout(dst, packed)


def test_free_space_is_checked_before_anything_is_written(packed, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("baseline.durable.shutil.disk_usage", lambda folder: usage(10, 9, 1_000_000))
    with pytest.raises(UsageError, match=r"dst needs \d+\.\d+ GB more, 0\.00 GB are available"):
        relayout(packed, tmp_path / "deep" / "dst", PAGES)
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("stop", [1, 200, STEPS])
def test_kill_9_leaves_a_folder_that_is_not_whole_and_continues(packed, tmp_path, stop):
    dst = tmp_path / "dst"
    command = [sys.executable, "-c", CHILD, packed, dst, KERNELS / "layouts" / "pages.yaml", str(stop)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "there\n"
        child.send_signal(signal.SIGKILL)
    with pytest.raises(UsageError, match="unfinished pack"):
        load_manifest(dst)
    steps: list[int] = []
    relayout(packed, dst, PAGES, lambda done, total: steps.append(done))
    assert len(steps) == STEPS - (stop - 1) // 64 * 63  # a layer that is there is one step
    verify_relayout(dst, packed)
    verify(dst, TINY_MOE)
    assert not list(dst.rglob("*.partial")) and not (dst / "pack.journal").exists()


def test_a_kill_before_the_manifest_continues(packed, tmp_path, monkeypatch):
    """The links are there already: each is made again."""

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as before:
        before.setattr("baseline.relayout.finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            relayout(packed, tmp_path / "dst", PAGES)
    relayout(packed, tmp_path / "dst", PAGES)
    verify(tmp_path / "dst", TINY_MOE)
    assert not list((tmp_path / "dst").rglob("*.partial"))


def test_a_finished_one_is_returned_at_once_and_never_another(packed, tmp_path):
    def never(done, total):
        raise AssertionError("nothing is to be done")

    made = relayout(packed, tmp_path / "dst", PAGES)
    assert relayout(packed, tmp_path / "dst", PAGES, never) == made
    with pytest.raises(UsageError, match="in layout pages; choose another DST"):
        relayout(packed, tmp_path / "dst", OTHERS[0])
    with pytest.raises(UsageError, match="in layout whole_expert; choose another DST"):
        relayout(packed, packed, PAGES)


def test_what_is_no_conversion_does_not_verify(packed, small, tmp_path):
    relayout(packed, tmp_path / "dst", PAGES)
    with pytest.raises(CheckError, match="its source is another"):
        verify_relayout(tmp_path / "dst", small)
    manifest = load_manifest(packed)
    swapped = dataclasses.replace(manifest.layers[0], checksums=manifest.layers[0].checksums[::-1])
    other = shutil.copytree(packed, tmp_path / "other")
    (other / "manifest.json").write_text(
        dataclasses.replace(manifest, layers=(swapped, *manifest.layers[1:])).to_json()
    )
    with pytest.raises(CheckError, match=r"layer 0 \(.*\), expert 0 differs from"):
        verify_relayout(tmp_path / "dst", other)
