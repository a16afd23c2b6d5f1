"""One kernel file through the judge, with real children and a real engine."""

import json

import pytest

from baseline.errors import UsageError
from baseline.variant import Choice, parse_variant
from harness.cli import main
from harness.evaluate import evaluate
from harness.progress import Silent
from harness.settings import SearchSettings
from tests.harness.variants import BAD, FAST, HEADER, LOOP, write_variant


@pytest.fixture
def settings(tmp_path, packed, golden, cache, kernels, short) -> SearchSettings:
    return SearchSettings(tmp_path / "run", packed, kernels, cache, golden, timeout_s=20.0)


def ask(settings, body, standing=None, bits="2, 4, 8"):
    text = HEADER.format(name="mine is faster", bits=bits) + body + "\n"
    return evaluate(text, "mine", settings, standing or {}, Silent())


def test_a_faster_kernel_passes_with_its_figures_and_leaves_nothing_behind(settings):
    before = sorted(settings.kernels.rglob("*"))
    answer = ask(settings, FAST)
    assert (answer.status, answer.stage, answer.reason) == ("kept", "engine", "")
    assert answer.passed and answer.faster and answer.speedup.low > 1.02
    assert answer.engine is not None
    assert sorted(settings.kernels.rglob("*")) == before and not settings.run.exists()


def test_it_is_compared_with_what_stands(settings):
    standing = {"qmatvec": Choice.defaults(parse_variant(write_variant(settings.kernels, "fast", FAST, "2, 4, 8")))}
    answer = ask(settings, LOOP, standing, bits="2, 3, 4, 8")
    assert (answer.passed, answer.faster) == (True, False) and answer.speedup.value < 1


@pytest.mark.parametrize(
    ("name", "status", "stage", "line"),
    [
        ("does_not_compile", "failed_build", "build", 9),
        ("skips_the_biases", "wrong", "check", None),
        ("crashes", "crashed", "check", None),
    ],
)
def test_what_is_wrong_is_named_with_the_stage_and_the_line(settings, name, status, stage, line):
    answer = ask(settings, BAD[name])
    assert (answer.status, answer.stage, answer.line) == (status, stage, line)
    assert answer.reason and not answer.passed and answer.speedup is None


def test_what_stands_must_be_buildable_here(settings):
    path = write_variant(settings.kernels, "foreign", FAST, "2, 4, 8")
    path.write_text(path.read_text().replace("launch:", "requires: [__NO_SUCH_MACHINE__]\nlaunch:"))
    standing = {"qmatvec": Choice.defaults(parse_variant(path))}
    with pytest.raises(UsageError, match="qmatvec/foreign, which would be compared with, cannot be built here"):
        ask(settings, LOOP, standing)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("y[0] = 1;", "must start with a header"),
        (HEADER.format(name="x", bits=4).replace("op: qmatvec", "op: matmul"), "op is 'matmul'; this search has"),
        (HEADER.format(name="x", bits=4).replace("{threads: THREADS}", "{}"), "launch of a cpu variant must be"),
        (HEADER.format(name="x", bits=5), "variant qmatvec/cpu/mine.cpp: supports allows BITS 5"),
    ],
)
def test_what_is_no_variant_is_told_before_anything_is_measured(settings, text, reason):
    answer = evaluate(text, "mine", settings, {}, Silent())
    assert reason in answer.reason and (answer.status, answer.stage, answer.passed) == ("unsound", "read", False)


def test_the_command_answers_with_one_json_object_and_status_3(tmp_path, capsys):
    path = tmp_path / "mine.cpp"
    path.write_text("y[0] = 1;")
    assert main(["evaluate", str(path), "--json"]) == 3
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["status"], told["stage"], told["passed"], told["speedup"]) == ("unsound", "read", False, None)
    assert "mine.cpp: read: it must start with a header" in err


def test_a_file_that_is_not_there_is_bad_usage(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path / "none.cpp")]) == 2
    assert "none.cpp cannot be read" in capsys.readouterr().err
