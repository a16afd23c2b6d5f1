"""What a winner was built with is recorded; what is another when it is judged again is said, and refuses nothing."""

import pytest

from harness import built_with, doctor, rerun
from harness.candidate import Candidate, Configuration
from harness.display import print_rerun
from harness.rerun import Rerun
from harness.winner import Asked, Winner

NONE = Candidate("0" * 12, "", "seed", "", Configuration({}), "")
HERE = built_with.built_with()


@pytest.fixture
def winner(tmp_path, monkeypatch):
    """A winner that reproduces, of a search that was `built_with` something."""
    monkeypatch.setattr(rerun, "_rerun", lambda *_: Rerun(True, "", 2.0, 1.9, {}, {}))
    return lambda **built_with: Winner(tmp_path, NONE, NONE, Asked("cpu", (), 0.02, "warm", {}, {}, **built_with), None)


def again(winner):
    return rerun.rerun(winner, settings=None, observer=None)


def test_nothing_is_said_where_all_is_the_same(winner):
    assert again(winner(built_with=HERE)).notes == ()


def test_each_thing_that_is_another_is_one_line(winner, capsys):
    found = again(winner(built_with=HERE | {"MLX": "0.1", "flags": "-O0 [x]"}))
    lines = (
        f"another flags: -O0 [x] then, {HERE['flags']} now",
        f"another MLX: 0.1 then, {HERE['MLX']} now",
    )
    assert found.reproduced and found.notes == lines and found.to_json()["notes"] == lines
    print_rerun(found)
    assert set(lines) <= {*capsys.readouterr().err.splitlines()}


def test_a_record_that_does_not_say(winner):
    notes = again(winner()).notes
    assert len(notes) == len(HERE) and notes[0] == f"another compiler: unknown then, {HERE['compiler']} now"


def test_without_a_compiler(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = built_with.built_with()
    assert {found["compiler"], found["compiler version"], found["flags"]} == {built_with.NONE}


def test_the_compiler_is_the_one_that_builds():
    used = next(found for found in doctor.compilers() if found.used)
    assert (HERE["compiler"], HERE["compiler version"]) == (used.path, used.version)
