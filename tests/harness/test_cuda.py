"""The target cuda: what can be shown of it on any machine, and on an NVIDIA GPU where there is one."""

import dataclasses
import shutil
from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
import yaml

from baseline import landlock, nvidia, seccomp
from baseline.contract import Case, Contract, load_contract
from baseline.engine import Engine
from baseline.engine.kernels import compiled
from baseline.errors import UsageError
from baseline.targets import cuda
from baseline.variant import Choice, list_variants, parse_variant
from harness import doctor, doctor_view, isolation, metal_launch, sandbox, targets
from harness.answer import line_of
from harness.build import build
from harness.candidate import Status
from harness.config import load_config
from harness.evaluate import evaluate
from harness.ledger import load_rows
from harness.loop import search
from harness.progress import Silent
from harness.sandbox import run_child
from harness.settings import OPS, SearchSettings
from harness.shelf import Shelf
from harness.slots import FRESH_BYTES
from harness.targets import Cuda, Target
from harness.verify import measure_noise, verify
from tests.harness.conftest import CHECKED, KERNELS
from tests.harness.entry_points import RIGHT, check_job, compile_entry

MISSING = targets.no_cuda()
GPU = [pytest.mark.cuda, pytest.mark.skipif(MISSING != "", reason=MISSING)]
WITHOUT = pytest.mark.skipif(not MISSING, reason="this machine has an NVIDIA GPU")
NEEDS_SECCOMP = pytest.mark.skipif(seccomp.missing() != "", reason=seccomp.missing())
TARGET = Target("cuda", (Cuda(),), measures=True)
PROMPT = [5, 6, 7]


def plain(op: str = "qmatvec", target: str = "cuda") -> Choice:
    return Choice.defaults(next(v for v in list_variants(KERNELS, op, target) if v.name == "plain"))


# ---- where there is no GPU -------------------------------------------------------------------------


@WITHOUT
def test_without_a_gpu_one_line_says_what_is_missing(tmp_path, packed, golden, cache):
    settings = SearchSettings(tmp_path / "run", packed, KERNELS, cache, golden, target="cuda")
    with pytest.raises(UsageError, match=r"^target=cuda needs an NVIDIA GPU: [^\n]+$") as of_search:
        search(settings)
    with pytest.raises(UsageError) as of_evaluate:
        evaluate(plain().variant.path.read_text(), "mine", settings, {}, Silent())
    found = doctor._cuda()
    assert not found.usable and str(of_search.value) == str(of_evaluate.value)
    assert str(of_search.value).endswith(found.why) and not settings.run.exists()


@WITHOUT
def test_the_engine_refuses_a_cuda_kernel_by_name(cache):
    contract = load_contract(KERNELS / "qmatvec")
    with pytest.raises(UsageError, match=r"plain\.cu: MLX does not compute on an NVIDIA GPU here"):
        compiled(plain(), contract, [contract.bench[0].constants], cache)


def test_the_configuration_knows_the_target():
    assert load_config(["target=cuda"]).target.name == "cuda"


# ---- building and naming ---------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPS)
def test_every_variant_is_described_for_the_child(op, cache):
    contract = load_contract(KERNELS / op)
    for variant in list_variants(KERNELS, op, "cuda"):
        built, library = build(Choice.defaults(variant), contract, Cuda(), cache)
        assert library is not None, built.failure
        call = library.call(contract.bench[0])
        assert (call["backend"], call["path"]) == ("cuda", str(variant.path.resolve()))
        assert library.code.keys() == {str(variant.path.resolve())}


@pytest.mark.parametrize(
    ("target", "name", "file"), [("cuda", "mine", "mine.cu"), ("metal", "metal_mine", "metal_mine.metal")]
)
def test_what_a_search_writes_lies_beside_cudas_and_is_found_again(tmp_path, target, name, file):
    (tmp_path / "qmatvec").mkdir()
    shutil.copy(KERNELS / "qmatvec" / "contract.yaml", tmp_path / "qmatvec")
    added = Shelf({"qmatvec": {}}, TARGET, tmp_path).add(
        "qmatvec", "mine", plain(target=target).variant.path.read_text()
    )
    assert (added.name, added.target, added.path) == (name, target, tmp_path / "qmatvec" / "cuda" / file)
    assert Shelf({"qmatvec": {}}, TARGET, tmp_path)["qmatvec"] == {name: added}


@pytest.mark.parametrize(
    "reason", ["Failed to compile kernel: warp.cu(31): error: identifier", "plain.metal(31): error: expected a"]
)
def test_a_line_that_nvrtc_names_is_found(reason):
    assert line_of(reason) == 31


# ---- launching, with a kernel that MLX's CPU computes ----------------------------------------------


@dataclasses.dataclass(frozen=True)
class Doubling:
    """In place of a `cuda.Kernel`: twice an input, but for elements that it leaves as they were filled."""

    choice: Choice
    contract: Contract
    instance: Mapping[str, int | str]
    watermark: bool = False
    fill: float | None = None
    left: int = 0

    def __call__(self, inputs, dims):
        (shape,) = [self.contract.shape(t, Case(self.instance, dims)) for t in self.contract.outputs]
        made = mx.full(shape, 2 * inputs["x"].reshape(-1)[0])
        made[..., : self.left] = 7.0 if self.fill is None else self.fill
        return [made]


@pytest.fixture
def qmatvec():
    """A call of qmatvec at its bench shape; its inputs, large and small; room for its output."""
    contract = load_contract(KERNELS / "qmatvec")
    case = contract.bench[0]
    call = {"path": str(plain().variant.path), "tunables": plain().tunables, "constants": case.constants}
    shapes = {t.name: contract.shape(t, case) for t in (*contract.inputs, *contract.outputs)}
    kinds = {"x": np.float32, "w": np.uint32, "y": np.float32}
    arrays = {name: np.ones(shape, kinds.get(name, np.uint16)) for name, shape in shapes.items()}
    inputs = [arrays[t.name] for t in contract.inputs]
    return call | {"dims": [case.dims[d] for d in contract.dims]}, inputs, [arrays["y"]]


def test_timed_calls_leave_their_own_results(qmatvec, monkeypatch):
    monkeypatch.setattr(cuda, "Kernel", Doubling)
    call, inputs, outputs = qmatvec
    launch, others = metal_launch.CudaLaunch(call), [3 * inputs[0], *inputs[1:]]
    placed = launch.place([(inputs, outputs), (others, outputs)])
    assert launch.seconds(placed) > 0
    for number, expected in enumerate((2.0, 6.0)):
        launch.results(placed[number], outputs)
        assert (outputs[0] == expected).all()


def test_large_inputs_are_copied_once_for_all_kernels_and_small_ones_are_not(qmatvec, monkeypatch):
    monkeypatch.setattr(cuda, "Kernel", Doubling)
    call, inputs, outputs = qmatvec
    first, second = metal_launch.CudaLaunch(call), metal_launch.CudaLaunch(call)
    for array in inputs:
        (copy,), (again,) = first._column([array]), second._column([array])
        assert (copy is again) == (array.nbytes > FRESH_BYTES)
    inputs[0][:] = 5.0
    placed = second.place([(inputs, outputs)])
    second.seconds(placed)
    second.results(placed[0], outputs)
    assert (outputs[0] == 10.0).all()


def test_a_check_sees_what_a_kernel_left_unwritten(qmatvec, monkeypatch):
    monkeypatch.setattr(cuda, "Kernel", lambda *given, **options: Doubling(*given, **options, left=2))
    call, inputs, outputs = qmatvec
    launch = metal_launch.CudaLaunch(call)
    assert launch.run(inputs, outputs) == []
    assert np.isnan(outputs[0]).sum() == 2 and (outputs[0][..., 2:] == 2.0).all()


# ---- confinement -----------------------------------------------------------------------------------


@pytest.fixture
def as_on_cuda(monkeypatch):
    """Has a child that computes on the CPU be given what one on NVIDIA's GPU gets."""
    monkeypatch.setattr(sandbox, "cuda", lambda job: True)
    monkeypatch.setattr(nvidia, "in_use", lambda: True)
    if MISSING:
        monkeypatch.setattr(nvidia, "toolchain", lambda: "sm_90")


@NEEDS_SECCOMP
@pytest.mark.parametrize(
    ("body", "forbidden"),
    [
        ("pthread_t t; pthread_create(&t, 0, [](void*) -> void* { return nullptr; }, 0); pthread_join(t, 0);", False),
        ("fork();", True),
        ("vfork();", True),
        ("syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);", True),
        ('execl("/bin/true", "true", (char*)0);', True),
        ("rlimit l{1 << 20, RLIM_INFINITY}; setrlimit(RLIMIT_STACK, &l);", False),
        ("rlimit l{1 << 20, RLIM_INFINITY}; prlimit(getppid(), RLIMIT_STACK, &l, 0);", True),
        ("rlimit l{9, 9}; setrlimit(RLIMIT_NOFILE, &l);", True),
    ],
    ids=["a thread", "fork", "vfork", "clone", "exec", "stack", "stack of the parent", "files"],
)
def test_threads_may_be_started_and_the_stack_grow_and_no_more(tmp_path, as_on_cuda, body, forbidden):
    library = compile_entry(tmp_path, f"if (thread == 0) {{ {body} }} {RIGHT}")
    result = run_child(check_job(tmp_path, library, np.ones(9, np.float32)), tmp_path, 20.0)
    assert (result.signal == "SIGSYS") == forbidden, result


@pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock, or an old one")
@pytest.mark.parametrize("devices", [(), ("/dev/full",)])
def test_a_device_that_is_let_through_can_be_asked_and_no_other(tmp_path, as_on_cuda, monkeypatch, devices):
    there = nvidia.devices()  # without which MLX's CUDA build does not start
    monkeypatch.setattr(nvidia, "devices", lambda: (*there, *devices))
    ask = 'char mode[256]; int f = open("/dev/full", O_RDWR); bool asked = ioctl(f, TCGETS, mode) && errno == ENOTTY;'
    body = f'{ask} fputs(asked ? "asked\\n" : "refused\\n", stderr);'
    library = compile_entry(tmp_path, f"if (thread == 0) {{ {body} }} {RIGHT}")
    result = run_child(check_job(tmp_path, library, np.ones(9, np.float32)), tmp_path, 20.0)
    assert {*result.stderr.splitlines()} == {"asked" if devices else "refused"}, result


@pytest.mark.parametrize("in_use", [True, False])
def test_devices_are_for_children_whose_mlx_has_them(tmp_path, monkeypatch, in_use):
    monkeypatch.setattr(nvidia, "devices", lambda: ("/dev/zero",))
    monkeypatch.setattr(nvidia, "facts", lambda: ("/proc/devices",))
    monkeypatch.setattr(nvidia, "in_use", lambda: in_use)
    access = sandbox._whole({"kind": "check", "device": "cpu"}, tmp_path, tmp_path / "job", 1.0)["access"]
    assert access["control"] == (("/dev/zero",) if in_use else ())
    assert ("/proc/devices" in access["read"]) is (nvidia.NAMES in access["write"]) is in_use


@NEEDS_SECCOMP
def test_threads_are_for_children_on_the_gpu_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox.sys, "platform", "linux")
    made = {d: sandbox._whole({"kind": "check", "device": d}, tmp_path, tmp_path / "job", 1.0) for d in ("cpu", "gpu")}
    assert made["cpu"]["calls_program"] == seccomp.program().hex() != made["gpu"]["calls_program"]


def test_the_doctor_says_what_holds_less_on_cuda(monkeypatch, capsys):
    monkeypatch.setattr(nvidia, "devices", lambda: ("/dev/nvidiactl",))
    found = isolation.layers.__wrapped__()
    assert found.on_cuda == nvidia.LET_THROUGH
    doctor_view.Console(width=300).print(doctor_view._held(found.in_force, found.missing, found.on_cuda))
    shown = capsys.readouterr().out
    assert all(line in shown for line in nvidia.LET_THROUGH)


# ---- on the GPU ------------------------------------------------------------------------------------


class TestOnAnNvidiaGpu:
    """What runs where MLX's CUDA build finds a GPU."""

    pytestmark = GPU

    @pytest.fixture
    def gpu(self, monkeypatch):
        for name, value in nvidia.SETTINGS.items():
            monkeypatch.setenv(name, value)
        mx.set_default_device(mx.gpu)
        yield
        mx.set_default_device(mx.cpu)

    @pytest.fixture
    def cut(self, tmp_path) -> Path:
        """The kernels for CUDA with few check cases, and plain variants alone. Bench shapes are whole: at small ones a
        launch takes as long as a kernel."""
        for op in OPS:
            (tmp_path / "kernels" / op / "cuda").mkdir(parents=True)
            contract = yaml.safe_load((KERNELS / op / "contract.yaml").read_text())
            contract["check"] = contract["check"][:CHECKED]
            (tmp_path / "kernels" / op / "contract.yaml").write_text(yaml.safe_dump(contract, sort_keys=False))
            shutil.copy(KERNELS / op / "cuda" / "plain.cu", tmp_path / "kernels" / op / "cuda")
        return tmp_path / "kernels"

    @pytest.mark.parametrize("target", ["cuda", "metal"])
    def test_the_engine_decodes_as_mlx_does(self, gpu, packed, cache, target):
        engine = Engine.load(packed)
        own = engine.decode(PROMPT, 3)
        engine.configure({op: plain(op, target) for op in OPS}, kernels=KERNELS, cache=cache)
        ours = engine.decode(PROMPT, 3)
        assert all(kernels.table for kernels in engine.kernels.values()) and ours.tokens == own.tokens
        assert not np.array_equal(ours.logits, own.logits)  # or the kernels did not run
        assert np.abs(ours.logits - own.logits).max() < 1e-4 * np.abs(own.logits).max()

    @pytest.mark.parametrize("op", OPS)
    def test_every_variant_is_right_but_the_one_that_rounds(self, op, cache, tmp_path):
        contract = load_contract(KERNELS / op)
        variants = {v.name: Choice.defaults(v) for v in list_variants(KERNELS, op, "cuda")}
        libraries = {name: build(choice, contract, Cuda(), cache)[1] for name, choice in variants.items()}
        noise = measure_noise(libraries["plain"], 1, tmp_path, 300)
        assert noise.right, noise.failure
        for name, library in libraries.items():
            checked = verify(library, noise.errors, 100, tmp_path, 300)
            assert checked.right == (name != "metal_half_x"), (name, checked.failure)

    def test_a_check_runs_what_was_compiled_before(self, cache, tmp_path):
        _, library = build(plain(), load_contract(KERNELS / "qmatvec"), Cuda(), cache)
        entries = {}
        for number, (instance, entry) in enumerate(library.entries.items()):
            kept = shutil.copytree(entry["compiled"], tmp_path / "kept" / str(number))
            for file in kept.glob("*.ptx"):
                file.write_text("no code")
            entries[instance] = {**entry, "compiled": str(kept)}
        checked = verify(dataclasses.replace(library, entries=entries), {}, 1, tmp_path, 60)
        assert not checked.ran and "Failed to load compiled" in checked.failure.reason

    @pytest.mark.parametrize(
        ("body", "status", "reason"),
        [
            ("y[0] = no_such_name;", Status.FAILED_BUILD, "no_such_name"),
            ("if (blockIdx.x == 0 && threadIdx.x == 0) y[0] = T(0);", Status.WRONG, ""),
            ("if (blockIdx.x == 0) ((T*)x)[0] = T(1);", Status.WRONG, "modified its input x"),
            ("*(volatile int*)nullptr = 1;", Status.CRASHED, ""),
        ],
        ids=["does not compile", "leaves outputs", "writes an input", "faults"],
    )
    def test_what_is_wrong_is_found(self, cut, cache, packed, golden, tmp_path, body, status, reason):
        text = plain().variant.path.read_text()
        text = text[: text.index("// body\n")] + f"// body\n{body}\n"
        settings = SearchSettings(tmp_path / "run", packed, cut, cache, golden, "cuda", ops=("qmatvec",))
        answer = evaluate(text, "bad", settings, {}, Silent())
        assert answer.status == status and reason in answer.reason, answer

    def test_a_search_keeps_a_faster_kernel(self, cut, short, cache, packed, golden, tmp_path):
        shutil.copy(KERNELS / "qmatvec" / "cuda" / "warp.cu", cut / "qmatvec" / "cuda")
        (cut / "qmatvec" / "metal").mkdir()
        shutil.copy(KERNELS / "qmatvec" / "metal" / "rows.metal", cut / "qmatvec" / "metal")
        settings = SearchSettings(tmp_path / "run", packed, cut, cache, golden, "cuda", ops=("qmatvec",))
        summary = search(dataclasses.replace(settings, candidates=2))
        rows = {row.variant: row for row in load_rows(tmp_path / "run" / "ledger.tsv")[1:]}
        assert rows.keys() <= {"warp", "metal_rows", "plain"}, rows
        assert Status.KEPT in {row.status for row in rows.values()}, {n: (r.status, r.reason) for n, r in rows.items()}
        assert summary.confirmed is not None and summary.unmeasured == 0
        assert parse_variant(next((tmp_path / "run" / "candidates").glob("*/qmatvec.*"))).op == "qmatvec"
