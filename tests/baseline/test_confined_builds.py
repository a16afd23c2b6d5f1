"""What a source may have the compiler do, each thing alone; the honest source beside it is built."""

import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import baseline
from baseline import confined, confinement, landlock, seccomp, supervisor
from baseline.confinement import Access, Limits
from baseline.targets import compiler
from baseline.targets.build_folder import build_folder
from baseline.targets.compiler import BuildError
from tests.baseline.test_cpu_target import awaited, ended

NEEDS_LANDLOCK = pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock, or an old one")
NEEDS_SECCOMP = pytest.mark.skipif(seccomp.missing() != "", reason=seccomp.missing())
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="macOS does not limit memory")
BASELINE = Path(baseline.__file__).parent
SECRETS = [BASELINE / "reference.py", BASELINE / "models" / "tiny-moe" / "config.json"]
SECRETS += sorted((BASELINE / "golden" / "tiny-moe").iterdir())
CLOSED = re.compile("Permission denied|file not found|Could not find")  # as compilers and assemblers put it
HONEST = '#include <vector>\nextern "C" int f() { return int(std::vector<int>(3).size()); }\n'


def build(folder: Path, source: str, reads: tuple[Path, ...] = ()) -> Path:
    """The library of a source, built in the cache `folder`/cache."""
    tools = compiler.toolchain(("-std=c++20", "-w", "-fPIC", "-shared"))
    path, command = folder / "cache" / "made.so", [*tools.command, *tools.flags]
    compiler.compile_into(tools, path, source, lambda unit, out: [[*command, str(unit), "-o", str(out)]], reads)
    return path


def refused(folder: Path, source: str) -> str:
    """What the compiler says of a source that it does not build."""
    with pytest.raises(BuildError) as caught:
        build(folder, source)
    assert [*(folder / "cache").iterdir()] == []
    return str(caught.value)


def included(path: Path) -> str:
    return f'#include "{path}"\n'


def embedded(path: Path) -> str:
    return f'asm(".section .rodata\\n.incbin \\"{path}\\"\\n.text");\n'


def assembled(path: Path) -> str:
    return f'asm(".include \\"{path}\\"");\n'


WAYS = (included, embedded, assembled)


@pytest.fixture
def own_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes a script the compiler: it runs shell commands first when a library is asked for."""

    def make(text: str) -> None:
        real, path = compiler.toolchain(()).command[0], tmp_path / "bin" / "own-c++"
        path.parent.mkdir()
        path.write_text(f'#!/bin/sh\ncase "$*" in *-shared*-o*) {text};; esac\nexec {real} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("CXX", str(path))

    return make


@NEEDS_LANDLOCK
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("path", SECRETS, ids=lambda path: path.name)
def test_no_answer_comes_into_a_library(tmp_path: Path, path: Path, way: Callable[[Path], str]) -> None:
    assert path.is_file()
    said = refused(tmp_path, way(path) + HONEST)
    assert str(path) in said and CLOSED.search(said)


@NEEDS_LANDLOCK
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("place", ["ledger.tsv", "cache/building-other/unit.cpp", "cache/other.cpp", "home/.netrc"])
def test_nor_does_what_lies_beside_it(tmp_path: Path, place: str, way: Callable[[Path], str]) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    with pytest.raises(BuildError) as caught:
        build(tmp_path, way(file) + HONEST)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("way", WAYS)
def test_what_is_given_does(tmp_path: Path, way: Callable[[Path], str]) -> None:
    given = tmp_path / "given"
    given.write_text("")
    assert build(tmp_path, way(given) + HONEST, (given,)).is_file()


@NEEDS_LANDLOCK
def test_paths_are_the_build_folders_not_the_parents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "secret").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CPATH", os.pathsep)
    for path in ("secret", "../../secret", "/proc/self/cwd/secret"):
        assert path in refused(tmp_path, included(Path(path)))


@NEEDS_LANDLOCK
def test_a_compiler_writes_in_its_own_folder_alone(tmp_path: Path, own_compiler: Callable[[str], None]) -> None:
    own_compiler(f'echo x > mine || exit 1; echo x > {tmp_path}/made; echo x > "$0"; [ -s mine ] || exit 1')
    assert build(tmp_path, HONEST).is_file()
    assert not (tmp_path / "made").exists() and (tmp_path / "bin" / "own-c++").read_text().startswith("#!/bin/sh")


def test_its_environment_is_what_it_needs(
    tmp_path: Path, own_compiler: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("LANG", "C")
    own_compiler("env; pwd; exit 1")
    *pairs, folder = refused(tmp_path, HONEST).splitlines()
    given = dict(pair.split("=", 1) for pair in pairs)
    assert given["LANG"] == "C" and {given["HOME"], given["TMPDIR"]} == {folder}
    shell, ours = {"PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}, {"HOME", "TMPDIR", *confined.environment()}
    assert given.keys() <= {*compiler.PASSED_ON, *shell, *ours}


@NEEDS_SECCOMP
def test_no_socket_is_opened(tmp_path: Path) -> None:
    access = Access(confinement.readable((sys.prefix, sys.base_prefix)), (str(tmp_path),))
    job = confinement.to_job(access, Limits(60, 1 << 30), seccomp.COMPILING)
    given = [sys.executable, "-c", "import socket; print('on', flush=True); socket.socket()"]
    environment = {**os.environ, **confined.environment()}
    done = subprocess.run(confined.command(given, job, tmp_path), env=environment, capture_output=True, check=False)
    assert (done.stdout, done.returncode) == (b"on\n", -signal.SIGSYS)


@ON_LINUX
@pytest.mark.parametrize(
    "source",
    [
        included(Path("/dev/zero")),
        "template <int N, int M> struct A { A<N - 1, 2 * M> a; A<N - 1, 2 * M + 1> b; };\n"
        "template <int M> struct A<0, M> {};\nA<24, 1> endless;\n",
    ],
    ids=["zeros", "templates"],
)
def test_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.setattr(compiler, "COMPILE_BYTES", 256 << 20)
    assert "memory" in refused(tmp_path, source)


def test_files_are_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "LIBRARY_BYTES", 8 << 20)
    refused(tmp_path, "char large[64 << 20] = {1};\n")


@NEEDS_SECCOMP
def test_where_a_layer_fails_nothing_is_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "program", lambda allowed: b"no instruction")
    with pytest.raises(RuntimeError, match=r"cannot be started confined: .*seccomp"):
        build(tmp_path, HONEST)
    assert [*(tmp_path / "cache").iterdir()] == []


# ---- a builder that is killed ----------------------------------------------------------------------


BUILDS = """
import sys
from pathlib import Path
from tests.baseline.test_confined_builds import HONEST, build
build(Path(sys.argv[1]), HONEST)
"""


@pytest.fixture
def killed(tmp_path: Path, own_compiler: Callable[[str], None]) -> int:
    """Kills a builder while its compiler runs; the process that this compiler has started."""
    own_compiler("sleep 300 & echo $! > child; wait")
    builder = subprocess.Popen([sys.executable, "-c", BUILDS, str(tmp_path)], cwd=BASELINE.parent)
    started = int(awaited(tmp_path / "cache", "building-*/child"))
    builder.kill()
    builder.wait()
    return started


def test_killing_the_builder_leaves_no_compiler(killed: int) -> None:
    assert ended(killed)


@pytest.mark.parametrize(("body", "status"), [("exit 3", 3), ("kill -9 $$", supervisor.SIGNALLED + signal.SIGKILL)])
def test_a_supervisor_ends_as_what_it_supervises(body: str, status: int) -> None:
    with supervisor.lifeline() as lifeline:
        given = supervisor.command(["sh", "-c", body])
        assert subprocess.run(given, stdin=lifeline, timeout=60, check=False).returncode == status


def test_the_next_build_removes_what_it_left(tmp_path: Path, killed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ended(killed)
    monkeypatch.delenv("CXX")
    assert len([*(tmp_path / "cache").glob("building-*")]) == 1
    assert build(tmp_path, HONEST).is_file()
    assert not any((tmp_path / "cache").glob("building-*"))


def test_and_nothing_of_a_builder_that_lives(tmp_path: Path) -> None:
    with build_folder(tmp_path) as living:
        (tmp_path / "building-dead").mkdir()
        with build_folder(tmp_path) as other:
            assert {*tmp_path.iterdir()} == {living, other}
    assert not any(tmp_path.iterdir())
