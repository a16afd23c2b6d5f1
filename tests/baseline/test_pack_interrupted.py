"""A pack that was killed, interrupted or out of disk goes on where it stopped, with its own source alone."""

import dataclasses
import json
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baseline.errors import UsageError
from baseline.journal import Journal
from baseline.layout import load_layout
from baseline.manifest import Source, load_manifest
from baseline.pack import fingerprint, pack, verify
from tests.models import TINY_MOE, make_checkpoint

ROOT = Path(__file__).parents[2]
LAYOUT_FILE = ROOT / "kernels" / "layouts" / "whole_expert.yaml"
LAYOUT = load_layout(LAYOUT_FILE)
STRIDE = 28_672
LAYER = 64 * STRIDE

# Packs until a given number of bytes is done, says so, and waits there to be killed.
CHILD = """
import sys, time
from pathlib import Path
from baseline.layout import load_layout
from baseline.pack import pack

src, dst, layout, stop = sys.argv[1:]

def progress(done, total):
    if done >= int(stop):
        print("there", flush=True)
        time.sleep(600)

pack(Path(src), Path(dst), load_layout(Path(layout)), progress)
"""


class Progress:
    """Presses Ctrl-C after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, done: int, total: int) -> None:
        self.steps -= 1
        if self.steps == 0:
            raise KeyboardInterrupt


def interrupt(dst: Path, steps: int, src: Path = TINY_MOE) -> None:
    with pytest.raises(KeyboardInterrupt):
        pack(src, dst, LAYOUT, Progress(steps))


def finished_layers(dst: Path) -> dict[str, tuple[int, int]]:
    """Inode and time of each finished layer: a layer that is packed again has others."""
    return {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in (dst / "experts").glob("*.bin")}


def assert_whole(dst: Path) -> None:
    verify(dst, TINY_MOE)
    names = {path.name for path in dst.iterdir()}
    assert "pack.journal" not in names and not list(dst.rglob("*.partial"))


@pytest.mark.parametrize("layers", [0, 5, 8])
def test_kill_9_leaves_a_folder_that_continues(tmp_path: Path, layers: int) -> None:
    dst = tmp_path / "dst"
    stop = layers * LAYER + 7 * STRIDE if layers < 8 else layers * LAYER + STRIDE
    command = [sys.executable, "-c", CHILD, TINY_MOE, dst, LAYOUT_FILE, str(stop)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "there\n"
        child.send_signal(signal.SIGKILL)
    with pytest.raises(UsageError, match="unfinished pack"):
        load_manifest(dst)
    before = finished_layers(dst)
    assert len(before) == layers
    steps: list[int] = []
    pack(TINY_MOE, dst, LAYOUT, lambda done, total: steps.append(done))
    assert_whole(dst)
    assert {name: finished_layers(dst)[name] for name in before} == before
    # One step for each layer that was there, one for each expert of the others, one for what is resident.
    assert len(steps) == layers + 64 * (8 - layers) + 1


@settings(max_examples=12)
@given(stops=st.lists(st.integers(1, 8 * 64), min_size=1, max_size=3))
def test_any_number_of_interrupts_ends_in_the_same_pack(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int]
) -> None:
    dst = tmp_path_factory.mktemp("interrupted") / "dst"
    for steps in stops:
        try:
            pack(TINY_MOE, dst, LAYOUT, Progress(steps))
        except KeyboardInterrupt:
            assert not (dst / "manifest.json").exists()
    pack(TINY_MOE, dst, LAYOUT)
    assert_whole(dst)


def test_a_torn_journal_line_costs_one_layer(tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    interrupt(dst, 3 * 64 + 1)
    journal = dst / "pack.journal"
    journal.write_bytes(journal.read_bytes()[:-20])
    before = finished_layers(dst)
    interrupt(dst, 2 + 2 * 64 + 1)  # two steps for the layers that are there, then two more layers
    pack(TINY_MOE, dst, LAYOUT)
    after = finished_layers(dst)
    assert_whole(dst)
    assert {name for name in before if after[name] == before[name]} == {"layer_00.bin", "layer_01.bin"}


def test_a_finished_layer_that_was_lost_is_packed_again(tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    interrupt(dst, 3 * 64 + 1)
    (dst / "experts" / "layer_00.bin").unlink()
    with (dst / "experts" / "layer_01.bin").open("r+b") as stream:
        stream.truncate(100)
    pack(TINY_MOE, dst, LAYOUT)
    assert_whole(dst)


def test_a_kill_before_the_first_line_of_the_journal_continues(tmp_path: Path) -> None:
    (tmp_path / "dst").mkdir()
    (tmp_path / "dst" / "pack.journal").touch()
    pack(TINY_MOE, tmp_path / "dst", LAYOUT)
    assert_whole(tmp_path / "dst")


@pytest.mark.parametrize("line", [b"garbage\n", b"[]\n", b'{"file": 3}\n', b"\xff\n"])
def test_a_damaged_journal_is_refused(tmp_path: Path, line: bytes) -> None:
    dst = tmp_path / "dst"
    interrupt(dst, 70)
    with (dst / "pack.journal").open("ab") as stream:
        stream.write(line)
    with pytest.raises(UsageError, match=r"pack\.journal is damaged; delete .*dst and pack again"):
        pack(TINY_MOE, dst, LAYOUT)


def test_an_unfinished_pack_of_something_else_is_refused(tmp_path: Path) -> None:
    dst = tmp_path / "dst"
    interrupt(dst, 70)
    other = make_checkpoint(tmp_path / "other")
    for src, layout in ((other, LAYOUT), (TINY_MOE, dataclasses.replace(LAYOUT, align=8192))):
        with pytest.raises(UsageError, match=f"{dst} holds an unfinished pack of another source or layout"):
            pack(src, dst, layout)
    pack(TINY_MOE, dst, LAYOUT)
    assert_whole(dst)


def test_two_packs_never_write_one_folder(tmp_path: Path) -> None:
    source = Source("tiny-moe", fingerprint(TINY_MOE))
    with (
        Journal(tmp_path, source, LAYOUT),
        pytest.raises(UsageError, match="another nightforge pack is writing"),
    ):
        pack(TINY_MOE, tmp_path, LAYOUT)
    pack(TINY_MOE, tmp_path, LAYOUT)
    assert_whole(tmp_path)


@pytest.mark.parametrize("foreign", ["notes.txt", "experts/layer_00.bin", "config.json"])
def test_a_foreign_folder_is_left_alone(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / foreign
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    with pytest.raises(UsageError, match="is not empty and not a pack; choose another DST"):
        pack(TINY_MOE, tmp_path, LAYOUT)
    assert path.read_text() == "mine" and len(list(tmp_path.iterdir())) == 1


def test_a_checkpoint_is_not_packed_into_itself(tmp_path: Path) -> None:
    src = make_checkpoint(tmp_path / "src")
    before = sorted(src.rglob("*"))
    with pytest.raises(UsageError, match="not empty"):
        pack(src, src, LAYOUT)
    assert sorted(src.rglob("*")) == before


def test_free_space_is_checked_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=15_000_000))
    dst = tmp_path / "deep" / "dst"
    with pytest.raises(UsageError, match=r"dst needs 0\.02 GB more, 0\.01 GB are available") as raised:
        pack(TINY_MOE, dst, LAYOUT)
    assert "\n" not in str(raised.value) and not (tmp_path / "deep").exists()


def test_free_space_counts_what_an_earlier_call_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt(tmp_path / "dst", 6 * 64 + 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=15_000_000))
    pack(TINY_MOE, tmp_path / "dst", LAYOUT)
    assert_whole(tmp_path / "dst")


@contextmanager
def file_size_limit(nbytes: int) -> Iterator[None]:
    """Writing past `nbytes` of a file fails, as on a full disk (Python ignores SIGXFSZ)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("limit", "failed", "layers"), [(1_000_000, "layer_00.bin", 0), (2_500_000, "resident.safetensors", 8)]
)
def test_a_disk_that_fills_up_is_one_line_and_resumable(tmp_path: Path, limit: int, failed: str, layers: int) -> None:
    dst = tmp_path / "dst"
    with (
        file_size_limit(limit),
        pytest.raises(UsageError, match="File too large; finished layers are kept") as raised,
    ):
        pack(TINY_MOE, dst, LAYOUT)
    assert f"cannot write {dst}" in str(raised.value) and "\n" not in str(raised.value)
    assert not list(dst.rglob(failed)) and len(finished_layers(dst)) == layers
    before = finished_layers(dst)
    pack(TINY_MOE, dst, LAYOUT)
    assert_whole(dst)
    assert {name: finished_layers(dst)[name] for name in before} == before


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot write .*file.*: Not a directory"):
        pack(TINY_MOE, tmp_path / "file" / "dst", LAYOUT)
    with pytest.raises(UsageError, match=r"cannot write .*file: File exists"):
        pack(TINY_MOE, tmp_path / "file", LAYOUT)


def test_a_source_cut_short_while_it_is_read_is_named(tmp_path: Path) -> None:
    src = shutil.copytree(TINY_MOE, tmp_path / "src", ignore=shutil.ignore_patterns("heldout"))

    def truncate(done: int, total: int) -> None:
        with (src / "model.safetensors").open("r+b") as stream:
            stream.truncate(100_000)

    with pytest.raises(UsageError, match=r"src/model\.safetensors has no byte \d+ any more"):
        pack(src, tmp_path / "dst", LAYOUT, truncate)


def test_the_journal_names_each_finished_layer(tmp_path: Path) -> None:
    interrupt(tmp_path, 2 * 64 + 5)
    head, *lines = map(json.loads, (tmp_path / "pack.journal").read_text().splitlines())
    assert head == {"fingerprint": fingerprint(TINY_MOE), "layout": LAYOUT.to_json()}
    assert [line["file"] for line in lines] == ["experts/layer_00.bin", "experts/layer_01.bin"]
    manifest = pack(TINY_MOE, tmp_path, LAYOUT)
    assert [tuple(line["checksums"]) for line in lines] == [layer.checksums for layer in manifest.layers[:2]]
