"""What NVRTC makes of a kernel: compiled once, in a process of its own, and copied to each child that runs it.

MLX looks for a kernel by its name and the hash of its text in a folder before it compiles it, and so finds there what
was kept of it (`baseline.keeper`). Each kernel has its folder in the cache, by its text and what it was compiled with;
no child reads or writes there: a compiling one leaves a file in its scratch folder, of which the parent takes what has
that kernel's name.
"""

import hashlib
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.numpy import load_file

from baseline import nvidia
from baseline.contract import Case, Contract, Instance, key
from baseline.errors import UsageError
from baseline.targets.build_folder import build_folder
from baseline.targets.compiler import COMPILE_SECONDS, MESSAGE_CHARS, BuildError
from baseline.targets.cuda import Kernel
from baseline.targets.metal import geometry
from baseline.variant import Choice
from harness.sandbox import ChildStatus, run_child

PROCESSES = min(os.cpu_count() or 1, 16)  # side by side: MLX compiles one kernel at a time, in more time than it starts
MOST_TOKENS = 64  # as many experts of a token as there may be


@dataclass(frozen=True)
class Wanted:
    """A kernel at one instance: its name, the calls that show MLX all of its texts, and the folder where it is kept."""

    name: str
    calls: tuple[Mapping[str, Any], ...]
    folder: Path

    @property
    def missing(self) -> bool:
        """Whether it has not been compiled yet."""
        return not self.folder.exists()


def compiled(
    choice: Choice, contract: Contract, instances: Sequence[Instance], cache: Path, watermark: bool = False
) -> list[Path]:
    """The folders in which a kernel for an NVIDIA GPU is kept, one an instance.

    BuildError with what NVRTC says of a kernel that it does not take; UsageError where the cache cannot be written.
    """
    home = cache.resolve() / "nvrtc"
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"the build cache {home} cannot be written: {error}") from None
    wanted = [_wanted(choice, contract, instance, home, watermark) for instance in instances]
    missing = [one for one in wanted if one.missing]
    count = min(PROCESSES, len(missing))
    with ThreadPoolExecutor(PROCESSES) as pool:
        list(pool.map(lambda start: _compile(missing[start::count], home), range(count)))
    return [one.folder for one in wanted]


def _wanted(choice: Choice, contract: Contract, instance: Instance, home: Path, watermark: bool) -> Wanted:
    kernel = Kernel(choice, contract, instance, watermark)
    texts = {kernel.text(case.dims): case for case in _cases(choice, contract, instance)}
    described = {
        "backend": "cuda",
        "path": str(choice.variant.path.resolve()),
        "tunables": dict(choice.tunables),
        "constants": dict(instance),
        "watermark": watermark,
    }
    calls = tuple({**described, "dims": [case.dims[name] for name in contract.dims]} for case in texts.values())
    content = [nvidia.toolchain(), kernel.name, *(part for text in texts for part in (text.header, text.source))]
    content += [f"{t.name} {contract.element_type(t, instance)}" for t in (*contract.inputs, *contract.outputs)]
    return Wanted(kernel.name, calls, home / hashlib.sha256("\0".join(content).encode()).hexdigest()[:24])


def _cases(choice: Choice, contract: Contract, instance: Instance) -> list[Case]:
    """The contract's cases of an instance; of one that a model has, as few tokens as can be launched.

    BuildError where that is none.
    """
    cases = [case for case in (*contract.bench, *contract.check) if key(case.constants) == key(instance)]
    sizes = (Case(instance, dict.fromkeys(contract.dims, size)) for size in range(1, MOST_TOKENS + 1))
    found = cases or [*itertools.islice(filter(partial(_launches, choice, contract), sizes), 1)]
    if not found:
        raise BuildError(f"{choice.variant.path.name}: error: it can be launched for no number of tokens")
    return found


def _launches(choice: Choice, contract: Contract, case: Case) -> bool:
    """Whether shapes and grid can be computed: some are so many of each token's experts."""
    try:
        geometry(choice, case)
        for tensor in (*contract.inputs, *contract.outputs):
            contract.shape(tensor, case)
    except UsageError:
        return False
    return True


def _compile(wanted: Sequence[Wanted], home: Path) -> None:
    """Has a child compile kernels, and keeps each in its folder."""
    calls = [{**call, "number": number} for number, one in enumerate(wanted) for call in one.calls]
    with build_folder(home) as folder:
        made = folder / "made.safetensors"
        job = {"kind": "compile", "device": "gpu", "calls": calls, "outputs": str(made)}
        result = run_child(job, folder, COMPILE_SECONDS)
        if result.status is not ChildStatus.OK:
            raise BuildError(f"NVRTC: {result.reason}")
        if "refused" in result.payload:
            raise BuildError(str(result.payload["refused"])[:MESSAGE_CHARS])
        for number, one in enumerate(wanted):
            _keep(_files(made, number, one.name), folder / str(number), one)


def _files(made: Path, number: int, name: str) -> dict[str, bytes]:
    """What a child kept of kernel `number`, by file. BuildError where that is not what it should be: compiling ran over
    a candidate's text."""
    mine = re.compile(rf"{number}/(custom_kernel_{re.escape(name)}_[0-9a-f]+\.(?:ptx|txt))")
    try:
        files = {found[1]: array.tobytes() for key, array in load_file(made).items() if (found := mine.fullmatch(key))}
    except (OSError, ValueError, SafetensorError) as error:
        raise BuildError(f"NVRTC: its process left no kernels: {error!r}") from None
    if not files:
        raise BuildError(f"NVRTC: its process left nothing of {name}")
    return files


def _keep(files: Mapping[str, bytes], made: Path, wanted: Wanted) -> None:
    """Whole or not at all: others may do the same, or be looking for it."""
    made.mkdir()
    for file, content in files.items():
        (made / file).write_bytes(content)
    try:
        made.rename(wanted.folder)
    except OSError:
        if wanted.missing:  # nobody else was quicker
            raise
