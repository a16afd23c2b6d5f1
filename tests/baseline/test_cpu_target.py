"""The CPU target: the build cache, the compiler's failures and the ones of the machine."""

import ctypes
import os
import stat
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from baseline.contract import Case, load_contract
from baseline.errors import UsageError
from baseline.samples import poisoned_outputs, sample_inputs
from baseline.targets import compiler, cpu
from baseline.targets.cpu_source import HEADERS, PACKED, PRELUDE, translation_unit
from baseline.variant import Choice, Variant, parse_variant
from tests.kernel_call import KERNELS, call

CONTRACT = load_contract(KERNELS / "qmatvec")
CASE = CONTRACT.check[2]
PLAIN = parse_variant(KERNELS / "qmatvec" / "cpu" / "plain.cpp")


def build(variant: Variant, cache: Path, **tunables: int) -> cpu.Library:
    choice = Choice(variant, {**Choice.defaults(variant).tunables, **tunables})
    return cpu.build(choice, CONTRACT, [CASE.constants], cache)


def writes(value: str) -> Variant:
    """A variant that stores one expression in the first output and compiles at once."""
    return replace(PLAIN, helpers="", body=f"if (thread == 0) y[0] = {value};\n")


def first_output(library: cpu.Library) -> float:
    case = Case(CASE.constants, {"m": 2})
    outputs = poisoned_outputs(CONTRACT, case)
    inputs = sample_inputs(CONTRACT, case, np.random.default_rng(0))
    call(library.path, library.symbols[0], CONTRACT, case, inputs, outputs, library.threads)
    return float(outputs["y"][0, 0])


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture
def compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The libraries that the compiler was asked for; it is a script that calls the real one."""
    wrapper, asked = f'exec {" ".join(cpu.toolchain().command)} "$@"', list[Path]()
    monkeypatch.setenv("CXX", str(script(tmp_path / "other-c++", wrapper)))
    compile_into = compiler.compile_into

    def counted(tools: compiler.Toolchain, path: Path, *rest: Any) -> None:
        asked.append(path)
        compile_into(tools, path, *rest)

    monkeypatch.setattr(compiler, "compile_into", counted)
    return asked


def test_a_second_build_comes_from_the_cache(compiles: list[Path], tmp_path: Path) -> None:
    first = build(writes("1"), tmp_path / "cache")
    again = build(writes("1"), tmp_path / "cache")
    assert (first, len(compiles)) == (again, 1)
    assert first_output(again) == 1.0


def test_other_content_is_another_library(compiles: list[Path], tmp_path: Path) -> None:
    libraries = [build(writes(value), tmp_path / "cache") for value in ("1", "2")]
    assert [first_output(library) for library in libraries] == [1.0, 2.0]
    assert (len({library.path for library in libraries}), len(compiles)) == (2, 2)


def test_tunables_reach_the_body_and_the_key(compiles: list[Path], tmp_path: Path) -> None:
    variant = replace(writes("ROWS"), tunables={"ROWS": (2, 4), "THREADS": (2, 1)})
    libraries = [build(variant, tmp_path / "cache", ROWS=rows) for rows in (2, 4)]
    assert [first_output(library) for library in libraries] == [2.0, 4.0]


def test_a_thread_count_that_the_code_does_not_name_needs_no_build(compiles: list[Path], tmp_path: Path) -> None:
    two, four = (build(writes("1"), tmp_path / "cache", THREADS=threads) for threads in (2, 4))
    assert (two.path, two.threads, four.threads, len(compiles)) == (four.path, 2, 4, 1)


def test_other_flags_are_another_library(compiles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(writes("1"), tmp_path / "cache")
    monkeypatch.setattr(cpu, "FLAGS", (*cpu.FLAGS, "-DNOTHING"))
    assert build(writes("1"), tmp_path / "cache").path != first.path


def test_another_compiler_is_another_library(
    compiles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = build(writes("1"), tmp_path / "cache")
    monkeypatch.delenv("CXX")
    assert build(writes("1"), tmp_path / "cache").path != first.path


def test_an_upgraded_compiler_is_another_library(compiles: list[Path], tmp_path: Path) -> None:
    first = build(writes("1"), tmp_path / "cache")
    wrapper = Path(os.environ["CXX"])
    script(wrapper, wrapper.read_text().replace('"$@"\n', '-D__VERSION_OF_TOMORROW__ "$@"\n'))
    os.utime(wrapper, ns=(0, 1))
    assert build(writes("1"), tmp_path / "cache").path != first.path


def test_concurrent_builds_leave_one_whole_library(tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        libraries = list(pool.map(lambda _: build(writes("3"), tmp_path), range(4)))
    assert len(set(libraries)) == 1
    assert first_output(libraries[0]) == 3.0
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".cpp", ".so"]


def test_a_broken_body_gives_the_compilers_message_at_the_variants_line(tmp_path: Path) -> None:
    broken = replace(PLAIN, body="y[0] = undeclared_name;\n")
    with pytest.raises(cpu.BuildError) as caught:
        build(broken, tmp_path)
    assert "undeclared_name" in str(caught.value)
    assert f"plain.cpp:{PLAIN.body_line}" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_broken_helper_is_located_too(tmp_path: Path) -> None:
    broken = replace(PLAIN, helpers="#include <cstddef>\nstatic undeclared_type f();\n")
    with pytest.raises(cpu.BuildError, match=rf"plain\.cpp:{PLAIN.helpers_line + 1}.*undeclared_type"):
        build(broken, tmp_path)


def test_a_required_macro_that_is_missing_is_a_build_error(tmp_path: Path) -> None:
    variant = replace(writes("1"), requires=("__NO_SUCH_FEATURE__", "__cplusplus"))
    assert cpu.missing_features(variant) == ("__NO_SUCH_FEATURE__",)
    with pytest.raises(cpu.BuildError, match="requires __NO_SUCH_FEATURE__"):
        build(variant, tmp_path)


def test_a_compiler_that_never_ends_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = " ".join(cpu.toolchain().command)
    hang = f'case "$*" in *-shared*) sleep 300 & echo $! > child; wait;; esac\nexec {real} "$@"'
    monkeypatch.setenv("CXX", str(script(tmp_path / "hanging-c++", hang)))
    monkeypatch.setattr(compiler, "COMPILE_SECONDS", 3)
    with ThreadPoolExecutor(1) as pool:
        built = pool.submit(build, writes("1"), tmp_path / "cache")
        child = int(awaited(tmp_path / "cache", "building-*/child"))
        with pytest.raises(cpu.BuildError, match="more than 3 s"):
            built.result()
    assert ended(child)


def awaited(folder: Path, pattern: str) -> str:
    """What is in the file that a compiler writes while it runs."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if text := next((file.read_text() for file in folder.glob(pattern)), ""):
            return text
        time.sleep(0.02)
    raise AssertionError(f"no {pattern} appeared")


def ended(process: int) -> bool:
    """Whether a killed process is gone within a second, or a zombie that its parent has yet to collect."""
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{process}/stat")
        if state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_no_compiler_is_the_users_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match=r"no C\+\+ compiler: none of c\+\+, g\+\+, clang\+\+"):
        build(writes("1"), tmp_path / "cache")


@pytest.mark.parametrize("text", [None, "echo 'too old' >&2; exit 1"])
def test_a_cxx_that_does_not_work_is_named(text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "my-c++"
    if text is not None:
        script(path, text)
    monkeypatch.setenv("CXX", str(path))
    with pytest.raises(UsageError, match=r"my-c\+\+.*" + ("too old" if text else "no program")):
        build(writes("1"), tmp_path / "cache")


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"the build cache .*file/cache cannot be written"):
        build(writes("1"), tmp_path / "file" / "cache")


def test_constants_that_the_contract_does_not_allow_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="BITS is 5"):
        cpu.build(Choice.defaults(PLAIN), CONTRACT, [{**CASE.constants, "BITS": 5}], tmp_path)


def test_one_library_holds_every_instance(tmp_path: Path) -> None:
    instances = [case.constants for case in CONTRACT.check[:2]]
    library = cpu.build(Choice.defaults(writes("from_float<T>(N)")), CONTRACT, instances, tmp_path)
    assert library.symbols == ("qmatvec_0", "qmatvec_1")
    loaded = ctypes.CDLL(str(library.path))
    assert all(hasattr(loaded, symbol) for symbol in library.symbols)
    assert cpu.build(Choice.defaults(PLAIN), CONTRACT, [], tmp_path).symbols == ()


def test_the_translation_unit_is_a_function_of_its_arguments() -> None:
    texts = {translation_unit(Choice.defaults(PLAIN), CONTRACT, [CASE.constants]) for _ in range(2)}
    assert len(texts) == 1


KINDS = (
    "LIMBS",
    "fit_tiles",
    "vbyte",
    "TokenLimbs",
    "Tile",
    "TileLimbs",
    "floats",
    "staged_tokens",
    "transpose",
    "row_dots",
)


@pytest.mark.parametrize("name", KINDS)
def test_a_header_is_there_for_whatever_kind_of_name_a_kernel_takes_of_it(name: str) -> None:
    unit = translation_unit(Choice.defaults(writes(f"sizeof({name})")), CONTRACT, [CASE.constants])
    assert all(f'#line 1 "{header}"' in unit for header in HEADERS)


def test_a_kernel_that_names_nothing_of_a_header_is_built_without_it() -> None:
    unit = translation_unit(Choice.defaults(PLAIN), CONTRACT, [CASE.constants])
    assert f'#line 1 "{PRELUDE}"' in unit and not any(header in unit for header in PACKED)
