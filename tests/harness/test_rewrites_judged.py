"""Rewritten kernels, built and judged as a search's candidates are, with every bit width among the shapes."""

import random
from collections.abc import Mapping

import pytest
import yaml

from baseline.contract import load_contract
from baseline.variant import Choice, parse_variant
from harness.build import build
from harness.propose.rewrites import applicable, compose, traits
from harness.targets import Cpu, Emulated
from harness.verify import measure_noise, verify
from tests.harness.conftest import BENCH, KERNELS
from tests.kernel_call import OPS

TIMEOUT_S = 120.0
BACKENDS = {"cpu": Cpu(), "metal": Emulated()}
SUFFIX = {"cpu": "cpp", "metal": "metal"}
CASES: Mapping[str, tuple[int, ...]] = {op: (0, 4, 7, 10, 13) for op in OPS} | {"gated_delta_step": (1, 2, 3, 9)}
WALKS = 2  # at random through what applies, to the end, for each op and target


@pytest.fixture(scope="module", params=[(op, target) for op in OPS for target in BACKENDS], ids="-".join)
def judged(request, tmp_path_factory, cache):
    """A seed, and what judges a text made of it."""
    op, target = request.param
    tmp_path = tmp_path_factory.mktemp("judged")
    folder = tmp_path / op / target
    folder.mkdir(parents=True)
    contract = yaml.safe_load((KERNELS / op / "contract.yaml").read_text())
    contract |= {"check": [contract["check"][i] for i in CASES[op]], "bench": [BENCH[op]]}
    (folder.parent / "contract.yaml").write_text(yaml.safe_dump(contract, sort_keys=False))
    contract, seed = load_contract(folder.parent), (KERNELS / op / target / f"plain.{SUFFIX[target]}").read_text()

    def built(text, chosen=None):
        path = folder / f"made.{SUFFIX[target]}"
        path.write_text(text)
        variant = parse_variant(path)
        choice = Choice(variant, {**Choice.defaults(variant).tunables, **(chosen(variant) if chosen else {})})
        stage, library = build(choice, contract, BACKENDS[target], cache)
        assert library is not None, (traits(text), stage.failure)
        return library

    noise = measure_noise(built(seed), 1, tmp_path, TIMEOUT_S)
    assert noise.right, noise.failure

    def check(text, chosen=None):
        checked = verify(built(text, chosen), noise.errors, 100, tmp_path, TIMEOUT_S)
        assert checked.right, (traits(text), checked.failure)

    return seed, check


def test_each_rewrite_alone_is_right(judged):
    seed, check = judged
    assert applicable(seed)
    for rewrite in applicable(seed):
        check(rewrite.apply(seed))


@pytest.mark.parametrize("walk", range(WALKS))
def test_compositions_in_any_order_are_right_with_any_tunables(judged, walk):
    seed, check = judged
    random_ = random.Random(f"{walk} {seed}")
    text = seed
    while rewrites := applicable(text):
        text = random_.choice(rewrites).apply(text)
    check(text, lambda variant: {name: random_.choice(values) for name, values in variant.tunables.items()})
    assert compose(seed, traits(text)) == text
