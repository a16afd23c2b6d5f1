import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors.numpy import load_file

from baseline import seccomp
from harness import sandbox
from harness.child import array_hash
from harness.sandbox import ChildStatus, environment, fetch, run_child
from tests.harness.entry_points import RIGHT, check_job, compile_entry

X = np.linspace(-1, 1, 1001, dtype=np.float32)


def check(folder, body, timeout_s=20.0):
    return run_child(check_job(folder, compile_entry(folder, body), X), folder, timeout_s)


def outputs(folder):
    return load_file(folder / "outputs.safetensors")["0.y"]


def alive(pid):
    """Whether a process runs; one that is dead and not yet reaped does not."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid):
    """Whether a process ends within 5 s."""
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not alive(pid)


def pid_in(log):
    """The number that a child wrote into its log, once it is there."""
    deadline = time.monotonic() + 30
    while not (log.exists() and log.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.05)
    return int(log.read_text())


def test_a_right_kernel(tmp_path):
    result = check(tmp_path, RIGHT)
    assert result.status is ChildStatus.OK, result
    assert np.array_equal(outputs(tmp_path), 2 * X)
    assert result.payload["calls"] == [{"hashes": [array_hash(X)], "intact": True, "findings": []}]


def test_a_kernel_that_loops_for_ever(tmp_path):
    start = time.perf_counter()
    result = check(tmp_path, "for (volatile long i = 0;; i = i + 1) {}", timeout_s=2.0)
    assert result.status is ChildStatus.TIMEOUT and time.perf_counter() - start < 10
    assert result.reason == "did not end within 2 s" and result.payload == {}


@pytest.mark.parametrize(
    "body",
    [
        "*reinterpret_cast<volatile int*>(8) = 1;",
        RIGHT + "if (thread == 0) y[n] = 0;",
        RIGHT + "if (thread == 0) { volatile float past = x[n]; (void)past; }",
    ],
    ids=["null", "writes past its output", "reads past its input"],
)
def test_a_kernel_that_crashes(tmp_path, body):
    result = check(tmp_path, body)
    assert result.status is ChildStatus.CRASHED and result.signal in ("SIGSEGV", "SIGBUS")
    assert result.reason == f"crashed with {result.signal}"


def test_a_write_in_front_of_the_output(tmp_path):
    result = check(tmp_path, RIGHT + "if (thread == 0) y[-1] = 0;")
    assert result.payload["calls"][0]["intact"] is False


def test_an_element_left_unwritten_is_not_a_number(tmp_path):
    check(tmp_path, "if (thread == 0) for (long i = 0; i < n; ++i) if (i != 500) y[i] = 2 * x[i];")
    assert np.isnan(outputs(tmp_path)).nonzero()[0].tolist() == [500]


def test_a_kernel_that_modifies_its_input(tmp_path):
    result = check(tmp_path, RIGHT + "if (thread == 0) const_cast<float*>(x)[3] = 0;")
    assert result.payload["calls"][0]["hashes"] != [array_hash(X)]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("end", ["", "for (;;) pause();"], ids=["then ends", "then hangs"])
def test_a_grandchild_dies_with_the_group(monkeypatch, tmp_path, end):
    monkeypatch.setattr(seccomp, "missing", lambda: "no libseccomp")
    fork = 'if (thread == 0) { if (fork() == 0) { fprintf(stderr, "%d\\n", getpid()); for (;;) pause(); } sleep(1); } '
    result = check(tmp_path, RIGHT + fork + end, timeout_s=4.0)
    assert result.status is (ChildStatus.TIMEOUT if end else ChildStatus.OK)
    pids = [int(pid) for pid in result.stderr.split()]  # a call is repeated
    assert pids and all(gone(pid) for pid in pids)


def test_an_exit_without_an_answer(tmp_path):
    result = check(tmp_path, 'fprintf(stderr, "no more\\n"); _exit(0);')
    assert result.status is ChildStatus.ERROR and result.reason == "no more"


def test_no_stale_result_is_taken_for_an_answer(tmp_path):
    assert check(tmp_path, RIGHT).status is ChildStatus.OK
    assert check(tmp_path, "_exit(0);").status is ChildStatus.ERROR


def test_the_environment_is_cut(monkeypatch, tmp_path):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    assert "ANTHROPIC_API_KEY" not in environment() and environment()["PATH"] == os.environ["PATH"]
    result = check(tmp_path, 'if (thread == 0) fprintf(stderr, "%d\\n", getenv("ANTHROPIC_API_KEY") != 0);' + RIGHT)
    assert {*result.stderr.split()} == {"0"}


def test_the_candidates_folder_shadows_no_module(tmp_path):
    (tmp_path / "numpy.py").write_text("raise SystemExit(7)")
    assert check(tmp_path, RIGHT).status is ChildStatus.OK


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_ctrl_c_leaves_no_child(tmp_path):
    body = 'if (thread == 0) fprintf(stderr, "%d\\n", getpid()); for (;;) pause();'
    library = compile_entry(tmp_path, body)
    script = (
        "import json, sys\nfrom pathlib import Path\nfrom harness.sandbox import run_child\n"
        "folder = Path(sys.argv[1])\n"
        "try:\n    run_child(json.loads((folder / 'job').read_text()), folder, 60)\n"
        "except KeyboardInterrupt:\n    sys.exit(42)\n"
    )
    (tmp_path / "job").write_text(json.dumps(check_job(tmp_path, library, X)))
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], env=environment())
    pid = pid_in(tmp_path / "check.log")
    parent.send_signal(signal.SIGINT)
    assert parent.wait(10) == 42
    assert not alive(pid) and not (tmp_path / "check.scratch").exists()


def test_a_failure_before_any_candidate_ran_is_the_harnesss_own(monkeypatch, tmp_path):
    job = check_job(tmp_path, compile_entry(tmp_path, RIGHT), X)
    with pytest.raises(RuntimeError, match=r"(?s)a nonsense process failed before it ran a candidate:.*ValueError"):
        run_child({**job, "kind": "nonsense"}, tmp_path, 20.0)


def test_a_candidate_that_ends_as_if_it_had_never_begun(tmp_path):
    """Nothing that it removes makes its failure the harness's."""
    result = check(tmp_path, 'unlink("started"); unlink("../check.job.json"); _exit(1);')
    assert result.status is ChildStatus.ERROR and not (tmp_path / "outputs.safetensors").exists()


PLACED = {
    "nothing": lambda path, other: None,
    "a link": lambda path, other: path.symlink_to(other),
    "a link to nothing": lambda path, other: path.symlink_to(other / "nothing"),
    "a pipe": lambda path, other: os.mkfifo(path),
    "a folder": lambda path, other: (path.mkdir(), (path / "file").touch()),
}


@pytest.mark.parametrize("name", PLACED)
def test_only_files_leave_the_scratch_folder(name, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("golden")
    PLACED[name](tmp_path / "made", secret)
    fetch(tmp_path / "made", tmp_path / "wanted")
    assert not os.path.lexists(tmp_path / "wanted") and secret.read_text() == "golden"


def test_a_file_leaves_the_scratch_folder(tmp_path):
    (tmp_path / "made").write_text("answers")
    fetch(tmp_path / "made", tmp_path / "wanted")
    assert (tmp_path / "wanted").read_text() == "answers"


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"3", b""], ids=["deep", "bytes", "number", "nothing"])
def test_a_result_that_is_none(content, tmp_path):
    (tmp_path / "result.json").write_bytes(content)
    assert sandbox._payload(tmp_path / "result.json") is None
