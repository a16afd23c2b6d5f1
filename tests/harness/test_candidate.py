from dataclasses import replace

from harness.candidate import Candidate, Configuration, KernelSpec, candidate_id

CONFIGURATION = Configuration(
    {"qmatvec": KernelSpec("plain"), "expert_down": KernelSpec("vector", {"ROWS": 4, "THREADS": 2})},
    {"threads": 4, "cache": "os"},
)
SOURCES = {"qmatvec": "a", "expert_down": "b"}


def test_json_round_trip():
    candidate = Candidate("x" * 12, "", "seed", "why\tnot", CONFIGURATION, "io")
    assert Candidate.from_json(candidate.to_json()) == candidate
    assert CONFIGURATION.to_json()["kernels"]["expert_down"] == {
        "variant": "vector",
        "tunables": {"ROWS": 4, "THREADS": 2},
    }


def test_id_depends_on_content_alone():
    reordered = Configuration(
        {"expert_down": KernelSpec("vector", {"THREADS": 2, "ROWS": 4}), "qmatvec": KernelSpec("plain")},
        {"cache": "os", "threads": 4},
    )
    identity = candidate_id(CONFIGURATION, SOURCES)
    assert len(identity) == 12 and int(identity, 16) >= 0
    assert candidate_id(reordered, dict(reversed(SOURCES.items()))) == identity


def test_id_changes_with_each_part():
    ids = {
        candidate_id(CONFIGURATION, SOURCES),
        candidate_id(CONFIGURATION, {**SOURCES, "qmatvec": "edited"}),
        candidate_id(CONFIGURATION.with_io("threads", 8), SOURCES),
        candidate_id(CONFIGURATION.with_kernel("qmatvec", KernelSpec("vector")), SOURCES),
        candidate_id(replace(CONFIGURATION, io={}), SOURCES),
    }
    assert len(ids) == 5


def test_with_changes_one_part_of_a_copy():
    child = CONFIGURATION.with_kernel("qmatvec", KernelSpec("vector"))
    assert CONFIGURATION.kernels["qmatvec"].variant == "plain"
    assert child.kernels["expert_down"] == CONFIGURATION.kernels["expert_down"] and child.io == CONFIGURATION.io
