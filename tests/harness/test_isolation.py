"""What a candidate's code may try, each thing alone; the honest kernel beside it passes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from baseline import confinement, landlock, macos, seccomp
from baseline.confinement import Access, Limits
from baseline.errors import UsageError
from baseline.golden import load
from baseline.policy import IoPolicy
from baseline.tolerance import Tolerance
from baseline.variant import Choice, parse_variant
from harness import isolation, sandbox
from harness.conversation import Conversation, Ended
from harness.copies import save_copies
from harness.dispatch import Proof
from harness.isolation import Layers
from harness.loop import search
from harness.measure import EngineArm, EnginePlan, EngineSetting, run_engine
from harness.paths import bundled_golden
from harness.run_folder import RunFolder
from harness.sandbox import ChildStatus, environment, run_child
from harness.settings import OPS, SearchSettings
from harness.slots import Slots, unwritten
from tests.harness import variants
from tests.harness.entry_points import RIGHT, check_job, compile_entry
from tests.harness.test_sandbox import gone, outputs, pid_in

NEEDS_LANDLOCK = pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock, or an old one")
NEEDS_SECCOMP = pytest.mark.skipif(seccomp.missing() != "", reason=seccomp.missing())
ROOT = Path(sandbox.__file__).parents[1]
X = np.linspace(-1, 1, 1001, dtype=np.float32)
FORBIDDEN = "made a forbidden system call"
CALLS = {
    "fork": "fork();",
    "a timer": "sigevent wakes = {}; timer_t timer; timer_create(CLOCK_MONOTONIC, &wakes, &timer);",
    "vfork": "if (vfork() == 0) _exit(0);",
    "clone": "syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);",
    "exec": 'execl("/bin/true", "true", (char*)0);',
    "system": 'if (system("true")) {}',
    "thread": "pthread_t t; pthread_create(&t, 0, [](void*) -> void* { return nullptr; }, 0);",
    "socket": "socket(AF_INET, SOCK_STREAM, 0);",
    "unix socket": "int pair[2]; socketpair(AF_UNIX, SOCK_STREAM, 0, pair);",
    "setsid": "setsid();",
    "setpgid": "setpgid(0, 0);",
    "ptrace": "ptrace(PTRACE_ATTACH, getppid(), 0, 0);",
    "kill the parent": "kill(getppid(), SIGKILL);",
    "kill the group": "kill(0, SIGKILL);",
    "outlive the parent": "prctl(PR_SET_PDEATHSIG, 0);",
    "raise a limit": "rlimit all = {RLIM_INFINITY, RLIM_INFINITY}; setrlimit(RLIMIT_FSIZE, &all);",
    "set the clock": "timespec now = {0, 0}; clock_settime(CLOCK_REALTIME, &now);",
    "io_uring": "char params[120] = {}; syscall(SYS_io_uring_setup, 8, params);",
    "chmod": 'chmod("/tmp", 0777);',
    "memfd": 'syscall(SYS_memfd_create, "code", 0);',
    "shared memory": "shmget(1, 4096, IPC_CREAT | 0600);",
    "the parent's memory": "iovec one = {}; process_vm_readv(getppid(), &one, 1, &one, 1, 0);",
}


def check(folder, body, timeout_s=20.0):
    library = compile_entry(folder, f"if (thread == 0) {{ {body} }} {RIGHT}")
    return run_child(check_job(folder, library, X), folder, timeout_s)


def said(result):
    """The lines that a kernel printed, each once: a check repeats its calls."""
    return [*dict.fromkeys(result.stderr.splitlines())]


def tried(path, mode):
    """A body that says in the log whether a file can be opened."""
    return f'FILE* f = fopen("{path}", "{mode}"); fputs(f ? "opened\\n" : "refused\\n", stderr); if (f) fclose(f);'


@pytest.fixture
def limited(monkeypatch):
    """Gives children other limits than the machine's."""

    def limit(**changes):
        given = sandbox.limits
        monkeypatch.setattr(sandbox, "limits", lambda job, timeout_s: replace(given(job, timeout_s), **changes))

    return limit


# ---- files -----------------------------------------------------------------------------------------


@NEEDS_LANDLOCK
@pytest.mark.parametrize("mode", ["r", "w"])
@pytest.mark.parametrize(
    "path",
    [
        *(ROOT / "baseline" / name for name in ("reference.py", "models/tiny-moe/config.json")),
        *sorted(bundled_golden().iterdir())[:1],
        *(ROOT / name for name in ("pyproject.toml", "tests/conftest.py", ".git/HEAD")),
    ],
    ids=lambda path: path.name,
)
def test_no_answer_can_be_opened(tmp_path, path, mode):
    assert path.is_file() or mode == "r"
    before = path.read_bytes() if path.is_file() else b""
    result = check(tmp_path, tried(path, "r" if mode == "r" else "r+"))
    assert result.status is ChildStatus.OK and said(result) == ["refused"]
    assert not path.is_file() or path.read_bytes() == before
    assert np.array_equal(outputs(tmp_path), 2 * X)


@NEEDS_LANDLOCK
@pytest.mark.parametrize("mode", ["r", "a"])
@pytest.mark.parametrize("place", ["ledger.tsv", "candidates/other/candidate.json", "candidates/own/candidate.json"])
def test_the_run_folder_is_closed(tmp_path, place, mode):
    file, own = tmp_path / place, tmp_path / "candidates" / "own"
    own.mkdir(parents=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("a record")
    result = check(own, tried(file, mode))
    assert result.status is ChildStatus.OK and said(result) == ["refused"] and file.read_text() == "a record"


@NEEDS_LANDLOCK
@pytest.mark.parametrize("mode", ["r", "a"])
def test_the_home_folder_is_closed_and_the_childs_is_its_scratch_folder(tmp_path, monkeypatch, mode):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "secret").write_text("x")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    body = tried(tmp_path / "home" / "secret", mode) + ' fprintf(stderr, "%s\\n", getenv("HOME"));'
    result = check(tmp_path, body)
    assert said(result) == ["refused", str(tmp_path / "check.scratch")]


@NEEDS_LANDLOCK
@pytest.mark.parametrize("path", ["/dev/shm/nightforge-test", "/tmp/nightforge-test", "../made", "kernel.so"])
def test_nothing_is_written_outside_the_scratch_folder(tmp_path, path):
    shown = tmp_path / path if path == "kernel.so" else path
    assert said(check(tmp_path, tried(shown, "a"))) == ["refused"]
    assert not Path(path).exists()


@NEEDS_LANDLOCK
def test_inside_it_files_are_written_and_nothing_leads_out(tmp_path):
    body = tried("made", "w") + ' fprintf(stderr, "%d\\n", symlink("/etc/passwd", "link") | mkfifo("pipe", 0600));'
    result = check(tmp_path, body)
    assert result.status is ChildStatus.OK and said(result) == ["opened", "-1"]
    assert not (tmp_path / "check.scratch").exists()


@NEEDS_LANDLOCK
def test_the_keys_of_the_parent_are_out_of_reach(tmp_path, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    body = 'fprintf(stderr, "%d\\n", getenv("ANTHROPIC_API_KEY") != 0);' + tried(f"/proc/{os.getpid()}/environ", "r")
    assert said(check(tmp_path, body)) == ["0", "refused"]
    assert b"secret" not in (tmp_path / "check.job.json").read_bytes()


# ---- calls -----------------------------------------------------------------------------------------


@NEEDS_SECCOMP
@pytest.mark.parametrize("body", CALLS.values(), ids=CALLS.keys())
def test_a_forbidden_call_is_the_end(tmp_path, body):
    result = check(tmp_path, body)
    assert (result.status, result.signal, result.reason) == (ChildStatus.CRASHED, "SIGSYS", FORBIDDEN)


@NEEDS_SECCOMP
def test_every_thread_of_the_pool_is_bound(tmp_path):
    library = compile_entry(tmp_path, RIGHT + "if (thread == n_threads - 1) fork();")
    assert run_child(check_job(tmp_path, library, X), tmp_path, 20.0).reason == FORBIDDEN


@NEEDS_SECCOMP
def test_what_a_library_does_when_it_is_loaded_is_bound_too(tmp_path):
    library = compile_entry(tmp_path, RIGHT + "} __attribute__((constructor)) void early() { fork();")
    assert run_child(check_job(tmp_path, library, X), tmp_path, 20.0).reason == FORBIDDEN


@pytest.mark.parametrize(("body", "ended"), [("abort();", "SIGABRT"), ("__builtin_trap();", "SIGILL")])
def test_a_crash_of_its_own_is_still_a_crash(tmp_path, body, ended):
    found = check(tmp_path, body).signal
    assert found == ended or (ended == "SIGABRT" and landlock.abi() < landlock.SCOPE_ABI)


# ---- limits ----------------------------------------------------------------------------------------


def test_cpu_time(tmp_path, limited):
    limited(cpu_s=2)
    result = check(tmp_path, "for (volatile long i = 0;; i = i + 1) {}")
    assert result.reason == "used more than 2 s of CPU time"


def test_file_size(tmp_path, limited):
    limited(file_bytes=8 << 20)
    body = 'FILE* f = fopen("big", "w"); static char block[1 << 20]; for (;;) fwrite(block, 1, sizeof block, f);'
    assert check(tmp_path, body).reason == "wrote a file of more than 8 MB"
    assert check(tmp_path, "static char block[1 << 20]; for (;;) fwrite(block, 1, sizeof block, stderr);").reason == (
        "wrote a file of more than 8 MB"
    )


def mapped(protection, flags, descriptor="-1"):
    """A body that touches up to 3 GiB of mappings; it ends there, lest it takes the machine where nothing limits it."""
    return f"""int zeros = open("/dev/zero", O_RDONLY); (void)zeros;
        for (static int block = 0; block < 48; ++block) {{
            void* m = mmap(nullptr, 64 << 20, {protection}, {flags}, {descriptor}, 0);
            if (m == MAP_FAILED) throw std::bad_alloc();
            for (long i = 0; i < 64 << 20; i += 4096) (void)static_cast<volatile char*>(m)[i];
        }}"""


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit memory")
@pytest.mark.parametrize(
    "body",
    [
        "static char* volatile all = new char[100L << 30]; all[5] = 1;",
        "static char* volatile m; for (;;) { m = new char[1 << 20]; for (int i = 0; i < 256; ++i) m[i * 4096] = 1; }",
        mapped("PROT_READ | PROT_WRITE", "MAP_SHARED | MAP_ANONYMOUS"),
        mapped("PROT_READ | PROT_WRITE", "MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN"),
        mapped("PROT_READ", "MAP_SHARED", "zeros"),
    ],
    ids=["100 GiB at once", "without end", "shared", "stacks", "zeros"],
)
def test_memory(tmp_path, limited, body):
    limited(memory_bytes=1 << 30)
    assert check(tmp_path, body).reason == "needed more than 1024 MB of memory"


# ---- the other jobs --------------------------------------------------------------------------------

HOSTILE = {"fork": ("fork();", FORBIDDEN), "honest": ("", "")}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_contestant(tmp_path, what):
    body, reason = HOSTILE[what]
    if body and seccomp.missing():
        pytest.skip(seccomp.missing())
    library = compile_entry(tmp_path, f"if (thread == 0) {{ {body} }} {RIGHT}")
    given = check_job(tmp_path, library, X)
    call = given["calls"][0]
    inputs = {"x": (X.dtype.name, X.shape)}
    slots = Slots.new({**inputs, **{o["name"]: (o["dtype"], o["shape"]) for o in call["outputs"]}})
    save_copies(tmp_path / "copies.npy", inputs, 2, [{"x": X}] * 2)
    job = {"kind": "contest", "device": "cpu", "inputs": str(tmp_path / "copies.npy")}
    job |= {"slots": slots.to_json(), "arms": {"it": call}, "calls": [call]}
    with Conversation(job, ("it",), tmp_path, 20.0, (slots.descriptor,)) as child:
        child.ready()
        slots.arrays["x"][:2] = X
        child.ask("prepare", arm="it", launches=2, first=0)
        if not reason:
            assert child.ask("run", arm="it")["seconds"] > 0
            assert not any(map(unwritten, slots.arrays.values()))
            return
        with pytest.raises(Ended) as ended:
            child.ask("run", arm="it")
        assert ended.value.result.reason == reason


def engine_arm(kernels, qmatvec="plain"):
    names = dict.fromkeys(OPS, "plain") | {"qmatvec": qmatvec}
    paths = {op: kernels / op / "cpu" / f"{name}.cpp" for op, name in names.items()}
    return EngineArm({op: Choice.defaults(parse_variant(path)) for op, path in paths.items()}, asdict(IoPolicy()))


def run(kernels, cache, packed, golden, folder, name):
    setting = EngineSetting(packed, kernels, cache, "cpu", Tolerance())
    arms = engine_arm(kernels), engine_arm(kernels, name)
    return run_engine(
        *arms, load(golden), setting, folder, 120.0, EnginePlan(blocks=(3, 3), tokens=2, prompt=1), Proof({})
    )


def test_the_engine(kernels, cache, packed, golden, tmp_path):
    secret = tmp_path / "ledger.tsv"
    secret.write_text("a record")
    included = "// helpers\n#include <cstdio>\n#include <unistd.h>\n// body\n"
    variants.write_variant(kernels, "reads", f"{included}{{ {tried(secret, 'r')} }} {variants.RIGHT}", bits="2, 4, 8")
    variants.write_variant(kernels, "starts", f"{included}fork(); {variants.RIGHT}", bits="2, 4, 8")
    result = run(kernels, cache, packed, golden, tmp_path, "reads")
    assert result.ran and result.right, result.failure
    if landlock.abi():
        assert {*(tmp_path / "engine.log").read_text().split()} == {"refused"}
    if not seccomp.missing():
        result = run(kernels, cache, packed, golden, tmp_path, "starts")
        assert not result.ran and result.failure.reason == FORBIDDEN


# ---- the parent ------------------------------------------------------------------------------------


ENDS_AT_ONCE = pytest.mark.skipif(sys.platform != "linux", reason="Linux kills the child at once, macOS at its timeout")


@pytest.mark.parametrize("stands", [pytest.param(False, marks=ENDS_AT_ONCE), True], ids=["running", "standing"])
@pytest.mark.parametrize("job", ["check", "contest"])
def test_killing_the_parent_leaves_no_child(tmp_path, job, stands):
    body = 'if (thread == 0) fprintf(stderr, "%d\\n", getpid()); for (;;) pause();'
    given = check_job(tmp_path, compile_entry(tmp_path, body), X)
    script = (
        "import json, sys, time\nfrom pathlib import Path\nfrom harness.sandbox import start_child\n"
        "folder = Path(sys.argv[1])\n"
        "start_child(json.loads((folder / 'job').read_text()), folder, 60, talk=sys.argv[2] == 'contest')\n"
        "time.sleep(60)\n"
    )
    (tmp_path / "job").write_text(json.dumps(given))
    parent = subprocess.Popen([sys.executable, "-c", script, str(tmp_path), job], env=environment())
    pid = pid_in(tmp_path / "check.log")
    if stands:
        os.kill(pid, signal.SIGSTOP)
        while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
    parent.send_signal(signal.SIGKILL)
    parent.wait(10)
    assert gone(pid)


def test_required_refuses_and_names_what_is_missing(monkeypatch):
    isolation.require("best")
    monkeypatch.setattr(isolation, "layers", lambda: Layers((), ("seccomp: no libseccomp",)))
    isolation.require("best")
    with pytest.raises(UsageError, match=r"^sandbox=required: seccomp: no libseccomp; sandbox=best runs without$"):
        isolation.require("required")


def test_without_a_layer_a_child_still_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(seccomp, "missing", lambda: "no libseccomp")
    assert check(tmp_path, 'socket(AF_INET, SOCK_STREAM, 0); fputs("on\\n", stderr);').stderr.split()[0] == "on"


def test_nothing_secret_is_among_what_is_read():
    given = [Path(path) for path in isolation.surroundings()]
    for secret in confinement.secrets():
        assert not any(secret.is_relative_to(path) for path in given), secret
    assert not any(Path.home() == path or Path.home().is_relative_to(path) for path in given)


def test_the_profile_of_macos_says_the_same():
    text = macos.profile(Access(("/opt/python", '/a "quoted" folder'), ("/runs/scratch",)))
    assert text.startswith("(version 1)\n(deny default)\n") and "network" not in text
    read, written = text.split("(allow file-read* ")[0], text.split("(allow file-write*")[1]
    assert "/runs/scratch" in written and "/opt/python" not in written and read
    assert '(subpath "/a \\"quoted\\" folder")' in text and text.count("(") == text.count(")")


def test_limits_and_access_go_through_json():
    access, limits = Access(("/a",), ("/b",)), Limits(1, 2, 3)
    assert Access.from_json(json.loads(json.dumps(asdict(access)))) == access
    assert Limits.from_json(json.loads(json.dumps(asdict(limits)))) == limits


def test_a_search_refuses_where_a_layer_is_missing_and_says_what_was_in_force(
    monkeypatch, kernels, cache, packed, golden, tmp_path
):
    settings = SearchSettings(tmp_path / "run", packed, kernels, cache, golden, sandbox="required")
    RunFolder(settings)
    recorded = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert recorded["sandbox"] == "required" and recorded["confined_by"] == [*isolation.layers().in_force]
    monkeypatch.setattr(isolation, "layers", lambda: Layers((), ("Landlock: none",)))
    with pytest.raises(UsageError, match="sandbox=required: Landlock: none"):
        search(settings)
    with pytest.raises(UsageError, match="sandbox must be best or required, got 'none'"):
        replace(settings, sandbox="none")
