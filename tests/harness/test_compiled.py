"""What NVRTC makes of a kernel is kept once, by its text, and no child writes where it is kept. NVRTC is acted here."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from baseline import nvidia
from baseline.contract import Case, load_contract
from baseline.engine import Engine
from baseline.engine.kernels import distinct
from baseline.targets.compiler import BuildError
from baseline.targets.metal import geometry
from baseline.variant import Choice, list_variants
from harness import compile_job, sandbox
from harness import compiled as store
from harness.sandbox import ChildResult, ChildStatus
from harness.settings import OPS
from harness.targets import Cuda
from tests.harness.conftest import KERNELS

NVRTC = """
#include <stddef.h>
#include <string.h>
typedef struct { int compiled; } Program;
static Program one;
int nvrtcCreateProgram(void** p, const char* s, const char* n, int c, const char* const* h, const char* const* i)
{ *p = &one; one.compiled = 0; return 0; }
int nvrtcCompileProgram(void* p) { ((Program*)p)->compiled = 1; return 0; }
int nvrtcGetLoweredName(void* p, const char* n, const char** l) { *l = "_Zk"; return 0; }
int nvrtcGetCUBINSize(void* p, size_t* size) { *size = 5; return 0; }
int nvrtcGetCUBIN(void* p, char* code) { memcpy(code, "cubin", 5); return ((Program*)p)->compiled ? 0 : 9; }
int nvrtcDestroyProgram(void** p) { *p = NULL; return 0; }
"""
MLX = """
#include <stddef.h>
int nvrtcCreateProgram(void**, const char*, const char*, int, const char* const*, const char* const*);
int nvrtcCompileProgram(void*);
int nvrtcGetLoweredName(void*, const char*, const char**);
int nvrtcGetCUBIN(void*, char*);
int nvrtcDestroyProgram(void**);
int make(const char* name, int compile) {
    void* program; const char* lowered; char code[5];
    nvrtcCreateProgram(&program, "", name, 0, NULL, NULL);
    if (compile) nvrtcCompileProgram(program);
    nvrtcGetLoweredName(program, "k<1>", &lowered);
    int result = nvrtcGetCUBIN(program, code);
    nvrtcDestroyProgram(&program);
    return result;
}
"""
USE = """
import ctypes, sys
from pathlib import Path
from baseline import keeper
folder = Path(sys.argv[1])
keeper.keep(folder / "first")
mlx = ctypes.CDLL(str(folder / "mlx.so"))
made = [mlx.make(b"one.cu", 1), mlx.make(b"broken.cu", 0)]
keeper.keep(folder / "second")
print(made + [mlx.make(b"two.cu", 1)])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="NVRTC's functions are replaced on Linux alone")
def test_what_nvrtc_compiles_is_kept_as_mlx_looks_for_it_and_is_not_launched(tmp_path):
    library = tmp_path / "libnvrtc.so.13"
    for source, made, more in ((NVRTC, library, ["-Wl,-soname,libnvrtc.so.13"]), (MLX, tmp_path / "mlx.so", [library])):
        (tmp_path / "unit.c").write_text(source)
        command = ["cc", "-shared", "-fPIC", "-o", made, tmp_path / "unit.c", *more, f"-Wl,-rpath,{tmp_path}"]
        subprocess.run(command, check=True)
    done = subprocess.run([sys.executable, "-c", USE, tmp_path], capture_output=True, text=True, check=True)
    stopped = 11  # NVRTC_ERROR_INTERNAL_ERROR: MLX loads nothing after it
    assert json.loads(done.stdout) == [stopped, 9, stopped]
    kept = {str(file.relative_to(tmp_path)): file.read_text() for file in tmp_path.glob("*/*")}
    assert kept == {
        f"{folder}/{name}.{suffix}": content
        for folder, name in (("first", "one"), ("second", "two"))
        for suffix, content in (("ptx", "cubin"), ("txt", "k<1>\t_Zk\n"))
    }


class Compiler:
    """In place of the child: leaves a kernel for each call, or does what a test says. `jobs`: what it was given."""

    def __init__(self) -> None:
        self.jobs: list[dict] = []
        self.result = ChildResult(ChildStatus.OK, 0.0)
        self.more: dict[str, bytes] = {}
        self.prefix = "custom_kernel_qmatvec_plain_"

    def __call__(self, job, folder, timeout_s):
        self.jobs.append(job)
        made = {
            f"{c['number']}/{self.prefix}{n:x}.{s}": b"made" for n, c in enumerate(job["calls"]) for s in ("ptx", "txt")
        }
        save_file({name: np.frombuffer(text, np.uint8) for name, text in {**made, **self.more}.items()}, job["outputs"])
        return self.result


@pytest.fixture
def compiler(monkeypatch) -> Compiler:
    acted = Compiler()
    monkeypatch.setattr(store, "run_child", acted)
    monkeypatch.setattr(nvidia, "in_use", lambda: True)
    monkeypatch.setattr(nvidia, "toolchain", lambda: "sm_90_mlx-1")
    return acted


CONTRACT = load_contract(KERNELS / "qmatvec")
INSTANCES = [case.constants for case in CONTRACT.check[:3]]


def plain() -> Choice:
    return Choice.defaults(next(v for v in list_variants(KERNELS, "qmatvec", "cuda") if v.name == "plain"))


def test_a_kernel_is_compiled_once(compiler, tmp_path, monkeypatch):
    folders = store.compiled(plain(), CONTRACT, INSTANCES, tmp_path)
    assert len({*folders}) == 3 == sum(len(job["calls"]) for job in compiler.jobs)
    assert {file.name[: len(compiler.prefix)] for folder in folders for file in folder.iterdir()} == {compiler.prefix}
    before = len(compiler.jobs)
    assert store.compiled(plain(), CONTRACT, INSTANCES[::-1], tmp_path) == folders[::-1]
    assert len(compiler.jobs) == before
    monkeypatch.setattr(nvidia, "toolchain", lambda: "sm_90_mlx-2")
    assert not {*store.compiled(plain(), CONTRACT, INSTANCES, tmp_path)} & {*folders}


def test_another_text_is_another_kernel(compiler, tmp_path):
    choice = plain()
    name, values = next(iter(choice.variant.tunables.items()))
    other = replace(choice, tunables={**choice.tunables, name: values[1]})
    made = [store.compiled(choice, CONTRACT, INSTANCES, tmp_path), store.compiled(other, CONTRACT, INSTANCES, tmp_path)]
    made.append(store.compiled(choice, CONTRACT, INSTANCES, tmp_path, watermark=True))
    assert len({folder for folders in made for folder in folders}) == 9


def test_of_what_a_child_leaves_its_own_kernel_is_kept_and_nothing_else(compiler, tmp_path):
    names = ("custom_kernel_qmatvec_warp_1.ptx", "custom_kernel_qmatvec_plain_fast_1.ptx", "../custom_kernel_x_1.ptx")
    compiler.more = {f"0/{name}": b"poison" for name in names}
    for folder in store.compiled(plain(), CONTRACT, INSTANCES, tmp_path):
        assert {file.read_bytes() for file in folder.iterdir()} == {b"made"}
    assert not [*tmp_path.rglob("custom_kernel_x*")]


@pytest.mark.parametrize(
    ("result", "prefix", "reason"),
    [
        (
            ChildResult(ChildStatus.OK, 0.0, payload={"refused": "Failed to compile kernel: p.cu(3): error: x"}),
            "",
            "p.cu",
        ),
        (ChildResult(ChildStatus.TIMEOUT, 120.0), "", "did not end within 120 s"),
        (ChildResult(ChildStatus.CRASHED, 1.0, "SIGSEGV"), "", "SIGSEGV"),
        (ChildResult(ChildStatus.OK, 0.0), "custom_kernel_qmatvec_warp_", "left nothing of qmatvec_plain"),
    ],
    ids=["refused", "too slow", "crashed", "another's"],
)
def test_what_goes_wrong_is_the_candidates_and_keeps_nothing(compiler, tmp_path, result, prefix, reason):
    compiler.result, compiler.prefix = result, prefix or compiler.prefix
    with pytest.raises(BuildError, match=reason):
        store.compiled(plain(), CONTRACT, INSTANCES[:1], tmp_path)
    assert not [*(tmp_path / "nvrtc").iterdir()]


@pytest.mark.parametrize("op", OPS)
def test_every_variant_is_compiled_for_what_the_model_has(compiler, op, packed, tmp_path):
    contract = load_contract(KERNELS / op)
    instances = distinct(Engine.load(packed).instances(op), contract.constants)
    for variant in list_variants(KERNELS, op, "cuda"):
        compiler.prefix = f"custom_kernel_{op}_{variant.path.stem}_"
        supported = [instance for instance in instances if variant.supports_instance(instance)]
        choice = Choice.defaults(variant)
        compiler.jobs.clear()
        built = Cuda().build(choice, contract, supported, tmp_path)
        for call in (call for job in compiler.jobs for call in job["calls"]):
            case = Case(call["constants"], dict(zip(contract.dims, call["dims"], strict=True)))
            assert geometry(choice, case) and [contract.shape(tensor, case) for tensor in contract.outputs]
        assert all(Path(entry["compiled"]).is_dir() for entry in built) and len(built) == len(supported)


def test_a_child_gets_copies_the_first_of_a_name_and_cannot_reach_what_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(nvidia, "in_use", lambda: True)
    monkeypatch.setattr(nvidia, "toolchain", lambda: "sm_90")
    for owner, names in (("champion", ("a.ptx",)), ("candidate", ("a.ptx", "b.ptx"))):
        (tmp_path / owner).mkdir()
        for name in names:
            (tmp_path / owner / name).write_text(owner)
    calls = [{"compiled": str(tmp_path / owner)} for owner in ("champion", "candidate")]
    job, folder = {"kind": "check", "device": "cpu", "calls": calls}, tmp_path / "job"
    child = sandbox.start_child(job, folder, 20.0)
    found = nvidia.compiled_in(sandbox.scratch_folder("check", folder))
    sandbox.end_child(child, 0)
    assert {file.name: file.read_text() for file in found.iterdir()} == {"a.ptx": "champion", "b.ptx": "candidate"}
    access = json.loads((folder / "check.job.json").read_text())["access"]
    assert not any(Path(call["compiled"]).is_relative_to(path) for path in access["write"] for call in calls)
    assert not any(path == call["compiled"] for path in access["read"] for call in calls)
    assert sandbox.nvidia_settings(found.parents[1])[nvidia.COMPILED] == str(found)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        ("nvrtcGetCUBIN(prog, ptx.data()) failed: NVRTC_ERROR_INTERNAL_ERROR", ""),
        ("Failed to compile kernel: plain.cu(3): error: x", "Failed to compile kernel: plain.cu(3): error: x"),
        ("out of memory", None),
        (None, None),
    ],
    ids=["kept", "refused", "something else", "launched"],
)
def test_a_compiling_child_tells_what_nvrtc_refuses_from_what_was_kept(monkeypatch, error, said):
    class Acted:
        def __init__(self, *given) -> None: ...

        def __call__(self, inputs, dims):
            assert [*inputs] == [tensor.name for tensor in CONTRACT.inputs] and dims == case.dims
            if error is not None:
                raise RuntimeError(error)
            return []

    case = CONTRACT.check[0]
    call = {"path": str(plain().variant.path), "tunables": plain().tunables, "constants": case.constants}
    call |= {"dims": [case.dims[name] for name in CONTRACT.dims], "watermark": False}
    monkeypatch.setattr(compile_job, "Kernel", Acted)
    if said is None:
        with pytest.raises(RuntimeError, match=error or "was launched"):
            compile_job.refusal(call)
    else:
        assert compile_job.refusal(call) == said
