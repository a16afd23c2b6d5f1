"""The doctor: measures, tries, says why not, and leaves nothing behind."""

import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baseline import probe
from harness import doctor, doctor_view, isolation
from harness.doctor import Report
from tests.harness.test_cli import ROOT, assert_refused, command, environment, run

TARGETS = {"cpu", "metal", "cuda", "emulated"}
NEEDS_O_DIRECT = pytest.mark.skipif(sys.platform != "linux", reason="O_DIRECT is Linux's")


@pytest.fixture
def quick(monkeypatch) -> None:
    """A small file, short reads."""
    monkeypatch.setattr(probe, "FILE_BYTES", 32 << 20)
    monkeypatch.setattr(probe, "READ_SECONDS", 0.2)


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Report:
    """What the doctor finds here, the disk read quickly."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setattr(probe, "FILE_BYTES", 32 << 20)
        patch.setattr(probe, "READ_SECONDS", 0.2)
        found = doctor.examine(folder / "models", lambda text: None)
    assert [path for path in folder.rglob("*") if path.is_file() or path.name.startswith(("probe-", "doctor-"))] == []
    return found


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if not path.is_dir()]


# ---- memory ----------------------------------------------------------------------------------------


def test_memory_is_read_at_a_speed_that_memory_has(report):
    """In GB/s: no clock in other units, no read that the compiler left out."""
    assert report.memory.gbps is not None, report.memory.reason
    assert 0.5 < report.memory.gbps < 5000 and report.memory.threads >= 1


def test_the_buffer_is_larger_than_the_last_level_cache(monkeypatch):
    monkeypatch.setattr(probe, "memory_bytes", lambda: 1 << 40)
    monkeypatch.setattr(probe, "last_level_cache", lambda: 1 << 30)
    assert probe._buffer_bytes() == 4 << 30
    monkeypatch.setattr(probe, "memory_bytes", lambda: 8 << 30)
    assert probe._buffer_bytes() == 1 << 30


def test_a_compiler_that_fails_is_the_reason_for_no_figure(tmp_path, monkeypatch):
    broken = tmp_path / "broken"
    works = 'case "$*" in *-dM*) exit 0;; esac'
    broken.write_text(f"#!/bin/sh\n{works}\necho 'unit.cpp:1:1: error: no headers' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    found = probe.memory_read(tmp_path / "build")
    assert (found.gbps, found.reason) == (None, "unit.cpp:1:1: error: no headers")


# ---- disk ------------------------------------------------------------------------------------------


def test_every_size_is_read_from_a_file_that_has_no_name(tmp_path, quick):
    seen: list[int] = []

    def on_size(size: int) -> None:
        seen.append(size)
        assert leftovers(tmp_path) == []

    found = probe.disk_read(tmp_path / "models", on_size)
    assert found.reads is not None, found.reason
    assert tuple(seen) == tuple(read.bytes for read in found.reads) == probe.READ_BYTES
    assert all(read.gbps > 0 for read in found.reads)
    assert found.file_bytes == 32 << 20


@pytest.mark.parametrize("size", [4096, 1 << 20, 16 << 20])
def test_a_round_reads_each_block_once(tmp_path, size):
    path = tmp_path / "file"
    path.write_bytes(bytes(32 << 20))
    fd = os.open(path, os.O_RDONLY)
    try:
        offsets, buffers = range(0, 32 << 20, size), [probe.read_buffer(size) for _ in range(3)]
        assert probe._round(fd, buffers, offsets, time.perf_counter() + 60) == 32 << 20
        assert probe._round(fd, buffers, offsets, time.perf_counter()) == 0
    finally:
        os.close(fd)


def test_what_is_written_does_not_compress(tmp_path, quick):
    with probe._scratch(tmp_path) as scratch:
        block = np.frombuffer(_block(scratch.fd), np.uint8)
    counts = np.bincount(block, minlength=256)
    assert counts.min() > 0.9 * counts.mean()


def _block(fd: int) -> bytes:
    """The first 16 MiB, in memory aligned as direct reads need it."""
    buffer = probe.read_buffer(16 << 20)
    assert os.preadv(fd, [buffer], 0) == 16 << 20
    return bytes(buffer)


@NEEDS_O_DIRECT
@pytest.mark.parametrize("refused", ["the flag", "the read"])
def test_a_file_system_without_o_direct_is_read_through_the_page_cache(tmp_path, monkeypatch, quick, refused):
    set_flags, read = fcntl.fcntl, os.preadv

    def fcntl_(fd, request, argument=0):
        if refused == "the flag" and request == fcntl.F_SETFL and argument & os.O_DIRECT:
            raise OSError(errno.EINVAL, "refused")
        return set_flags(fd, request, argument)

    def preadv(fd, buffers, offset):
        if set_flags(fd, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "refused")
        return read(fd, buffers, offset)

    monkeypatch.setattr(fcntl, "fcntl", fcntl_)
    if refused == "the read":
        monkeypatch.setattr(os, "preadv", preadv)
    found = probe.disk_read(tmp_path)
    assert found.cache == "DONTNEED" and found.reads is not None


def test_a_disk_with_little_room_is_left_alone(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10 << 30, 9 << 30, 1 << 30))
    monkeypatch.setattr(probe, "_scratch", lambda folder: pytest.fail("it wrote"))
    found = probe.disk_read(tmp_path)
    assert found.reads is None and found.free_bytes == 1 << 30
    assert "only 1.1 GB free" in found.reason


def test_a_disk_that_fills_up_is_a_reason(tmp_path, monkeypatch):
    def full(fd, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    found = probe.disk_read(tmp_path)
    assert found.reads is None and "No space left" in found.reason
    assert leftovers(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_reason(tmp_path):
    (tmp_path / "file").write_text("")
    found = probe.disk_read(tmp_path / "file" / "models")
    assert found.reads is None and "Not a directory" in found.reason


# ---- targets ---------------------------------------------------------------------------------------


def test_each_target_has_an_answer_and_a_reason(report):
    assert set(report.targets) == TARGETS
    for ability in report.targets.values():
        assert ability.why and "\n" not in ability.why


def test_cpu_and_emulated_are_tried_and_work_here(report):
    assert report.targets["cpu"].usable, report.targets["cpu"].why
    assert report.targets["emulated"].usable, report.targets["emulated"].why
    assert "and its line" in report.targets["emulated"].why


def test_lines_of_faults_need_the_symbolizer(tmp_path, monkeypatch):
    for name in ("addr2line", "atos"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    found = doctor._tried(doctor._try_emulated)
    assert found.usable and "its line not" in found.why


def test_an_emulator_that_misses_a_missing_barrier_is_not_usable(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "_emulate", lambda library, index, x: (x[::-1], []))
    monkeypatch.setattr(doctor.emulated, "build", lambda sources, folder: folder)
    found = doctor._try_emulated(tmp_path)
    assert not found.usable and "lacks a barrier" in found.why


# ---- the report ------------------------------------------------------------------------------------


def test_the_report_is_json_with_the_promised_keys(report):
    fields = json.loads(json.dumps(report.to_json()))
    assert fields.keys() >= {"machine", "memory_gbps", "disk", "compilers", "targets", "sandbox", "watched"}
    assert fields["machine"].keys() >= {"chip", "cores", "memory_bytes", "os", "python", "mlx"}


def test_exactly_one_compiler_is_the_used_one_and_comes_first(report):
    assert [compiler.used for compiler in report.compilers] == [True] + [False] * (len(report.compilers) - 1)


@pytest.mark.parametrize("bare", [False, True])
def test_the_table_fits_80_columns(report, monkeypatch, capsys, bare):
    monkeypatch.setenv("COLUMNS", "80")
    if bare:  # nothing works, and says so at length
        disk = replace(report.disk, folder="/a" * 60, reads=None, reason="why " * 40)
        targets = {name: doctor.Ability(False, "why " * 40) for name in TARGETS}
        report = replace(
            report, memory=replace(report.memory, gbps=None, reason="x" * 200), disk=disk, targets=targets, compilers=()
        )
    doctor_view.show(report)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line[:1].strip()] == [
        *("machine", "memory", "disk", "compilers", "targets", "sandbox", "watched")
    ]


# ---- the command -----------------------------------------------------------------------------------


def test_without_a_compiler_it_still_ends_well(tmp_path):
    (tmp_path / "bin").mkdir()
    done = run(tmp_path, "doctor", "--json", env={"PATH": str(tmp_path / "bin"), "CXX": ""})
    assert done.returncode == 0, done.stderr
    fields = json.loads(done.stdout)
    assert fields["memory_gbps"] is None and "no C++ compiler" in fields["memory"]["reason"]
    assert not fields["targets"]["cpu"]["usable"] and not fields["targets"]["emulated"]["usable"]
    assert len(fields["disk"]["reads"]) == 7
    assert leftovers(tmp_path) == []


def test_a_model_that_does_not_exist_is_refused(tmp_path):
    assert_refused(run(tmp_path, "doctor", f"model={tmp_path}/none"), 2, "nor a folder")


@pytest.mark.parametrize("step", ["memory: ", "disk: reading 4 KiB"])
def test_ctrl_c_leaves_nothing(tmp_path, step):
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = subprocess.Popen(command("doctor"), cwd=ROOT, env=environment(tmp_path), **pipes)
    assert started.stderr is not None
    while not (line := started.stderr.readline()).startswith(step):
        assert line, "it ended"
    time.sleep(0.2)
    started.send_signal(signal.SIGINT)
    out, errors = started.communicate(timeout=60)
    assert (started.returncode, out) == (130, "")
    assert "Traceback" not in errors
    assert leftovers(tmp_path) == []


# ---- the sandbox -----------------------------------------------------------------------------------


def test_the_sandbox_is_what_candidates_get(report, monkeypatch, capsys):
    assert report.sandbox == isolation.layers()
    short = replace(report, sandbox=isolation.Layers(("wall time",), ("Landlock: why", "seccomp: why not")))
    doctor_view.show(short)
    shown = capsys.readouterr().out
    assert (
        "in force  wall time" in shown and "missing   Landlock: why" in shown and "missing   seccomp: why not" in shown
    )
