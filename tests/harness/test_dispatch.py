"""Is a candidate's kernel what the engine runs?"""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from baseline.contract import load_contract
from baseline.elements import STORAGE
from baseline.engine import Engine
from baseline.samples import sample_inputs
from baseline.variant import Choice, list_variants, parse_variant
from harness import decodes, dispatch, engine_job, launch, targets
from harness.candidate import IO, KernelSpec, Stage, Status
from harness.judge import Judge
from harness.ledger import load_rows
from harness.loop import search, seed_candidate
from harness.measure import EnginePlan
from harness.progress import Silent
from harness.settings import OPS, SearchSettings
from harness.shelf import usable_variants
from harness.targets import Cpu
from tests.harness.conftest import KERNELS
from tests.harness.variants import FAST, write_variant

UNTIMED = EnginePlan(blocks=(0, 0))


@pytest.fixture
def settings(tmp_path, packed, golden, cache, kernels):
    return SearchSettings(tmp_path / "run", packed, kernels, cache, golden, ops=("qmatvec",), candidates=1)


@pytest.fixture
def engine(settings, tmp_path):
    """Runs the plain kernels with other tunables for some ops in the engine, against the plain ones."""
    target = targets.here("cpu")
    variants = usable_variants(settings, target)
    judge = Judge(settings, target, variants, Silent(), tmp_path)
    seed = seed_candidate(variants, settings.io).configuration

    def run(*ops, configuration=seed):
        for op in ops:
            configuration = configuration.with_kernel(op, KernelSpec("plain", {"THREADS": 1}))
        return judge.engine(configuration, seed, tmp_path, judge.golden.quick(), UNTIMED)

    return run


class InProcess:
    """An engine's child that is none: its job runs here, where a test can get at it."""

    def __init__(self, job, who, folder, timeout_s, native):
        self.arms, self.pid = engine_job.Arms(Engine.load(Path(job["packed"])), job), os.getpid()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def ready(self):
        pass

    def fetch(self):
        pass

    def ask(self, what, **arguments):
        return json.loads(json.dumps(getattr(self.arms, what)(**arguments)))


@pytest.fixture
def in_process(monkeypatch):
    monkeypatch.setattr(decodes, "Conversation", InProcess)


@pytest.mark.parametrize("op", OPS)
def test_a_watermarked_build_runs_the_body_and_flips_all_signs(op, cache):
    contract = load_contract(KERNELS / op)
    variant = parse_variant(KERNELS / op / "cpu" / "plain.cpp", contract)
    cases = contract.check[:3]
    instances = [case.constants for case in cases]
    builds = [Cpu().build(Choice.defaults(variant), contract, instances, cache, mark) for mark in (False, True)]
    assert builds[0][0]["library"] != builds[1][0]["library"]
    for case, *entries in zip(cases, *builds, strict=True):
        inputs = [*sample_inputs(contract, case, np.random.default_rng(1)).values()]
        shapes = [
            (contract.shape(t, case), STORAGE[contract.element_type(t, case.constants)]) for t in contract.outputs
        ]
        results = []
        for entry in (*entries, entries[1]):  # a second call flips them again
            outputs = [np.zeros(shape, dtype) for shape, dtype in shapes]
            launch.load({**entry, "dims": [case.dims[name] for name in contract.dims]}).run(inputs, outputs)
            results.append([array.view(f"u{array.itemsize}") for array in outputs])
        for plain, marked, again in zip(*results, strict=True):
            sign = 1 << (8 * plain.itemsize - 1)
            assert np.array_equal(plain ^ sign, marked) and np.array_equal(marked, again)


@pytest.mark.parametrize("ops", [("qmatvec",), OPS], ids=["one", "all"])
def test_each_honest_kernel_is_shown_to_run(ops, engine):
    result = engine(*ops)
    assert result.failure is None and result.right
    shown = result.dispatched
    assert shown.max_kl.keys() == shown.code.keys() == {*ops}
    assert min(shown.max_kl.values()) > 10 * dispatch.FAR * 1e-5, shown
    assert all(len(code) == 16 for code in shown.code.values())


def test_without_a_kernel_there_is_nothing_to_show(engine):
    assert engine().dispatched is None


@pytest.mark.parametrize("op", OPS)
def test_an_engine_that_runs_something_else_is_found_out(op, engine, in_process, monkeypatch):
    find, experts = Engine._find, {"expert_gate_up", "expert_down"}  # which are configured together
    left_out = experts if op in experts else {op}

    def instead(self, name, instance):
        return None if name in left_out else find(self, name, instance)

    monkeypatch.setattr(Engine, "_find", instead)
    result = engine(op)
    assert result.ran and not result.right and result.failure.status is Status.WRONG
    assert result.failure.reason.startswith(f"the engine does not run this kernel: with other results of {op}")
    assert result.dispatched.failure == result.failure and result.dispatched.max_kl == {op: 0.0}


def test_other_code_is_found_out(engine, monkeypatch):
    def other(choices, *rest):
        return dataclasses.replace(dispatch.prove(choices, *rest), code=dict.fromkeys(choices, ("0", "1")))

    monkeypatch.setattr("harness.judge.prove", other)
    failure = engine("qmatvec").failure
    assert failure.status is Status.WRONG and failure.reason.endswith("qmatvec was loaded from other code")


def test_a_kernel_that_the_model_has_no_use_for(settings, engine):
    kernels = settings.kernels
    write_variant(kernels, "narrow", FAST, bits="2")
    choice = Choice.defaults(parse_variant(kernels / "qmatvec" / "cpu" / "narrow.cpp"))
    contract = load_contract(kernels / "qmatvec")
    instances = {"qmatvec": [contract.bench[0].constants]}
    failure = dispatch.prove({"qmatvec": choice}, {"qmatvec": contract}, instances, Cpu(), settings.cache)
    assert failure.status is Status.WRONG and failure.reason.endswith("it supports none of this model's layers")


@pytest.mark.usefixtures("short")
def test_a_search_records_what_ran_and_refuses_what_did_not(settings, kernels, monkeypatch):
    write_variant(kernels, "fast", FAST, bits="2, 4, 8")
    monkeypatch.setattr("harness.loop.confirm", lambda *_: None)
    search(settings)
    seed, row = load_rows(settings.run / "ledger.tsv")
    samples = json.loads((settings.run / "candidates" / row.id / "samples.json").read_text())
    dispatched = samples["engine"]["dispatched"]
    assert row.status is Status.KEPT and row.code == dispatched["code"]["qmatvec"] and seed.code == ""
    assert samples["checked"]["seed"] > 2**20 and samples["checked"]["code"] not in ("", row.code)
    monkeypatch.setattr(dispatch, "FAR", 1e30)
    search(dataclasses.replace(settings, run=settings.run.with_name("other"), ops=("qmatvec", IO)))
    again = load_rows(settings.run.with_name("other") / "ledger.tsv")[1]
    assert (again.status, again.stage, again.code) == (Status.WRONG, Stage.DISPATCH, row.code)


def test_every_committed_variant_has_a_watermark():
    """None of them has a name that the generated code has."""
    for op in OPS:
        for variant in list_variants(KERNELS, op, "cpu"):
            assert "nf_watermark" not in variant.helpers + variant.body
