"""What an engine job finds ready made, because it can build nothing: libraries, and what MLX compiles for itself.

A child that runs none of a candidate's code, only the plain kernels, once for a model and a process of ours, finds out
which instances of each op the model has, builds what the engine needs beside the candidates' kernels, and has MLX
compile its graphs. The parent then builds the kernels of each engine job before it starts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from baseline import nvidia
from baseline.contract import Contract, Instance, load_contract
from baseline.engine.kernels import distinct
from baseline.variant import PLAIN, SUFFIXES, Choice, parse_variant
from harness.conversation import Conversation, Ended
from harness.costs import Part, spent_on
from harness.sandbox import lay_out
from harness.targets import Backend, Cpu, Cuda, Emulated, Entry

if TYPE_CHECKING:
    from harness.measure import EngineArm, EngineSetting

JIT = "jit"  # the folder of the build cache that keeps what MLX compiled
TIMEOUT_S = 600.0


@dataclass(frozen=True)
class Prepared:
    """`instances`: those of the model, by op; `libraries`: files that the engine loads beside the arms' kernels."""

    instances: Mapping[str, Sequence[Instance]]
    libraries: tuple[str, ...]


def files(setting: "EngineSetting", arms: Iterable["EngineArm"]) -> dict[str, Any]:
    """The part of an engine job that names its files: the arms' kernels are built, `trusted` are the plain ones.

    BuildError when a kernel does not build; UsageError where there is no compiler; RuntimeError when not even the plain
    kernels run.
    """
    choices = [(op, choice) for arm in arms for op, choice in arm.choices.items()]
    trusted = {op: plain(choice, setting.kernels / op) for op, choice in dict(choices).items()}
    contracts = {op: load_contract(setting.kernels / op) for op in trusted}
    ready = prepared(setting, tuple((op, choice.variant.path) for op, choice in trusted.items()))
    wanted = [*trusted.items(), *choices]
    built = [e for op, choice in wanted for e in _build(setting, choice, ready.instances[op], contracts[op])]
    libraries = dict.fromkeys([*ready.libraries, *(entry["library"] for entry in built if "library" in entry)])
    compiled = dict.fromkeys(entry["compiled"] for entry in built if "compiled" in entry)
    written = {op: {"path": str(c.variant.path), "tunables": dict(c.tunables)} for op, c in trusted.items()}
    ready_made = {"libraries": [*libraries], "compiled": [*compiled], "jit": str(_jit(setting))}
    return {**ready_made, "trusted": written}


def instances(setting: "EngineSetting", arm: "EngineArm") -> Mapping[str, Sequence[Instance]]:
    """Those of the model, by op, for all ops of `arm`. Raises as `prepared`."""
    trusted = {op: plain(choice, setting.kernels / op) for op, choice in arm.choices.items()}
    return prepared(setting, tuple((op, choice.variant.path) for op, choice in trusted.items())).instances


def plain(choice: Choice, op: Path) -> Choice:
    """The plain kernel of the op in the folder `op` for the target of `choice`; of one that was written, recorded or
    copied beside CUDA's, CUDA's."""
    target = choice.variant.path.parent.name
    path = op / target / f"{PLAIN}{SUFFIXES[target]}"
    return Choice.defaults(parse_variant(path.resolve()))


@cache
def prepared(setting: "EngineSetting", trusted: tuple[tuple[str, Path], ...]) -> Prepared:
    """Asks a child. RuntimeError when it fails: nothing of a candidate runs in it."""
    job = {
        "kind": "prepare",
        "device": setting.device,
        "packed": str(setting.packed.resolve()),
        "kernels": str(setting.kernels.resolve()),
        "cache": str(setting.cache.resolve()),
        "writes": [str(setting.cache.resolve())],
        "jit": str(_jit(setting)),
        "trusted": {op: {"path": str(path), "tunables": None} for op, path in trusted},
    }
    with TemporaryDirectory(dir=setting.cache, prefix="prepare-") as folder:
        try:
            with Conversation(job, ("the engine",), Path(folder), TIMEOUT_S) as child:
                child.ready()
                return _told(setting, trusted, child)
        except Ended as ended:
            raise RuntimeError(f"the engine does not run with the plain kernels: {ended.result.reason}") from None


def _told(setting: "EngineSetting", trusted: tuple[tuple[str, Path], ...], child: Conversation) -> Prepared:
    """What a child says, which finds what NVRTC makes of the plain kernels before it runs them."""
    instances = child.ask("instances")
    for op, path in trusted if nvidia.in_use() else ():
        choice, contract = Choice.defaults(parse_variant(path)), load_contract(setting.kernels / op)
        for entry in _build(setting, choice, instances[op], contract):
            lay_out(Path(entry["compiled"]), nvidia.compiled_in(child.scratch))
    with spent_on(Part.RUNNING):
        libraries = child.ask("warm_up")["libraries"]
    return Prepared({op: instances[op] for op, _ in trusted}, tuple(libraries))


def _jit(setting: "EngineSetting") -> Path:
    folder = setting.cache.resolve() / JIT
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@spent_on(Part.BUILDS)
def _build(
    setting: "EngineSetting", choice: Choice, instances: Sequence[Instance], contract: Contract
) -> Sequence[Entry]:
    """A kernel's files as the engine will ask for them; none where it asks for none, as on Apple's GPU."""
    supported = [i for i in distinct(instances, contract.constants) if choice.variant.supports_instance(i)]
    if not supported or (setting.device == "gpu" and not nvidia.in_use()):
        return ()
    backend: Backend = Cuda() if setting.device == "gpu" else Cpu() if choice.variant.target == "cpu" else Emulated()
    return backend.build(choice, contract, supported, setting.cache)
