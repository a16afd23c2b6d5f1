"""The drop-in's builds: what is refused and where, and what is built anew."""

import os
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from baseline.targets import compiler, emulated
from baseline.targets.emulated import BuildError, metal_kernel
from tests.launches import TWICE, I, launch, same


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A build cache of this module's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("texture2d<float> image;", "texture2d is not emulated"),
        ("constexpr sampler s;", "sampler is not emulated"),
        ("threadgroup float a[2] = {1, 2};", "threadgroup float a[2] = {1, 2}"),
        ("y[i] = no_such_function(x[i]);", "no_such_function"),
        ("y[i] = x[i] +;", "error: expected"),
        ("float a[int(x[0]) + 5]; y[i] = a[0];", "variable length array"),
        ("y[i] = erf(x[i]);", "erf"),
    ],
)
def test_what_cannot_be_built_is_named_with_its_line_in_the_body(line: str, message: str) -> None:
    with pytest.raises(BuildError) as caught:
        launch(metal_kernel("broken", ["x"], ["y"], f"{I}y[i] = 0;\n{line}\n"), mx.ones(8))
    assert message in str(caught.value)
    assert "body:3:" in str(caught.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ('\n#include "helpers.h"\n', '#include "helpers.h" is not emulated'),
        ("\nconstant int N [[function_constant(0)]];\n", "function_constant is not emulated"),
        ("\nthreadgroup float shared[8];\n", "`threadgroup float shared[8]` is not emulated"),
        ("\nfloat f(float x) { return undeclared; }\n", "undeclared"),
    ],
)
def test_what_cannot_be_built_is_named_with_its_line_in_the_header(header: str, message: str) -> None:
    with pytest.raises(BuildError) as caught:
        launch(metal_kernel("broken", ["x"], ["y"], f"{I}y[i] = 0;", header), mx.ones(8))
    assert message in str(caught.value)
    assert "header:2:" in str(caught.value)


def test_overloads_that_differ_in_address_spaces_alone_are_refused() -> None:
    header = "float at(const device float* p) { return *p; }\nfloat at(const threadgroup float* p) { return *p; }\n"
    with pytest.raises(BuildError) as caught:
        launch(metal_kernel("overloads", ["x"], ["y"], f"{I}y[i] = at(x + i);", header), mx.ones(8))
    first, note, *_ = str(caught.value).splitlines()
    assert first.startswith("header:2:") and "at(" in first
    assert note == "note: overloads that differ in address spaces alone are not emulated"


def test_more_buffers_than_metal_has_are_refused() -> None:
    names = [f"x{n}" for n in range(31)]
    with pytest.raises(BuildError, match="32 buffers; Metal has 31"):
        launch(metal_kernel("many", names, ["y"], f"{I}y[i] = x0[i];"), *[mx.ones(8)] * 31)


@pytest.fixture
def compiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The libraries that the compiler was asked for, in a cache of its own."""
    asked, compile_into = list[Path](), compiler.compile_into

    def counted(tools: compiler.Toolchain, path: Path, *rest: Any) -> None:
        asked.append(path)
        compile_into(tools, path, *rest)

    monkeypatch.setattr(compiler, "compile_into", counted)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return asked


def test_a_kernel_is_built_once_for_its_types(compiles: list[Path]) -> None:
    for n in (8, 9):
        same(launch(TWICE, mx.ones(n)), np.full(n, 2.0))
    again = metal_kernel("twice", ["x"], ["y"], TWICE.source)
    same(launch(again, mx.ones(8)), np.full(8, 2.0))
    assert len(compiles) == 1
    same(launch(TWICE, mx.ones(7)), np.full(7, 2.0))  # comes as a constant
    assert len(compiles) == 2


def test_other_flags_or_headers_are_another_library(
    compiles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = TWICE._kernel([mx.ones(8)], [mx.float32], ())
    paths = [emulated.build([source], tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(emulated, "FLAGS", (*emulated.FLAGS, "-DNOTHING"))
        paths.append(emulated.build([source], tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(emulated, "_headers", lambda: "other text")
        paths.append(emulated.build([source], tmp_path))
    paths.append(emulated.build([source], tmp_path))
    assert (len(set(paths)), paths[0], len(compiles)) == (3, paths[3], 3)
    assert os.path.exists(paths[0])
