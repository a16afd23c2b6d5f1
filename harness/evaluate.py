"""`nightforge evaluate`: one kernel file through all stages of the judge, against what this machine uses now."""

import dataclasses
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from baseline.errors import UsageError
from baseline.variant import PLAIN, SUFFIXES, Choice, Variant
from harness import isolation, targets
from harness.answer import Answer, of_row, unsound
from harness.candidate import Candidate, KernelSpec, identify
from harness.judge import Judge
from harness.likeness import split
from harness.loop import seed_candidate
from harness.progress import Observer
from harness.rows import to_row
from harness.seal import Seal
from harness.settings import OPS, SearchSettings, writable
from harness.shelf import Shelf, usable_variants


def evaluate(
    text: str, name: str, settings: SearchSettings, standing: Mapping[str, Choice], observer: Observer
) -> Answer:
    """Judges a variant's text, its tunables at their defaults, beside the kernels `standing` (plain ones elsewhere).

    `settings` says where the contracts, the plain kernels, the model and the golden record are, and what is enough.
    Nothing is left behind but compiled kernels in the cache. UsageError and CheckError as `harness.loop.search`.
    """
    isolation.require(settings.sandbox)
    target = targets.here(settings.target)
    writable(settings.cache)
    with tempfile.TemporaryDirectory(prefix="nightforge-evaluate-") as scratch:
        kernels = Path(scratch, "kernels")
        copy_kernels(settings, standing, kernels)
        settings = dataclasses.replace(settings, kernels=kernels, run=Path(scratch))
        shelf = Shelf(usable_variants(settings, target), target, kernels)
        try:
            header, _ = split(text)
            variant = shelf.add(str(header.get("op")), name, text)
        except UsageError as error:
            return unsound(str(error).replace(f"{kernels}/", ""))
        settings = dataclasses.replace(settings, ops=(variant.op,))
        judge = Judge(settings, target, shelf, observer, Path(scratch))
        return _judged(judge, shelf, variant, standing)


def copy_kernels(settings: SearchSettings, standing: Mapping[str, Choice], folder: Path) -> None:
    """The contracts, the plain kernels and those that stand, as a folder of kernels."""
    for op in OPS:
        home = folder / op / settings.target
        home.mkdir(parents=True)
        shutil.copyfile(settings.kernels / op / "contract.yaml", home.parent / "contract.yaml")
        plain = settings.kernels / op / settings.target / f"{PLAIN}{SUFFIXES[settings.target]}"
        shutil.copyfile(plain, home / plain.name)
        for variant in (choice.variant for choice in standing.values() if choice.variant.op == op):
            shutil.copyfile(variant.path, home / f"{variant.name}{variant.path.suffix}")


def _judged(judge: Judge, shelf: Shelf, variant: Variant, standing: Mapping[str, Choice]) -> Answer:
    seal, began = Seal(judge.settings), time.monotonic()
    seed = seed_candidate(shelf, judge.settings.io)
    champion = _champion(seed, shelf, standing)
    candidate = _candidate(champion, shelf, variant)
    with seal.speaks_first():
        judge.measure_seed(seed, (variant.op,))
        judge.open(champion, (variant.op,))
        verdict = judge.evaluate(candidate, champion, writable(judge.scratch / "candidate"))
        seal.check(thoroughly=True)
    seconds = time.monotonic() - began
    return of_row(to_row(candidate, verdict, seconds, seconds))


def _champion(seed: Candidate, shelf: Shelf, standing: Mapping[str, Choice]) -> Candidate:
    configuration = seed.configuration
    for op, choice in standing.items():
        if choice.variant.name not in shelf[op]:
            raise UsageError(f"{op}/{choice.variant.name}, which would be compared with, cannot be built here")
        configuration = configuration.with_kernel(op, KernelSpec(choice.variant.name, choice.tunables))
    return dataclasses.replace(seed, id=identify(configuration, shelf), configuration=configuration)


def _candidate(champion: Candidate, shelf: Shelf, variant: Variant) -> Candidate:
    spec = KernelSpec(variant.name, Choice.defaults(variant).tunables)
    configuration = champion.configuration.with_kernel(variant.op, spec)
    identity = identify(configuration, shelf)
    return Candidate(identity, champion.id, "hand", variant.hypothesis, configuration, variant.op)
