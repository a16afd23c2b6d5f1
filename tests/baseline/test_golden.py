"""The golden record: what it catches, where it says the first difference is, and what it forgives."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import baseline.golden
from baseline.engine import Engine
from baseline.errors import CheckError, UsageError
from baseline.golden import ANSWERS, RECORD, Fingerprint, Golden, compare, load
from baseline.layout import load_layout
from baseline.pack import pack
from baseline.questions import Answers, Questions, answer
from baseline.record import Sizes, record
from baseline.toolcalls import Verdict, judge
from tests.models import TINY_MOE, make_checkpoint

SMALL = Sizes(
    prompts=2, prompt_tokens=6, positions=3, decode_tokens=4, windows=2, window_tokens=12, tool_prompts=1, tool_tokens=4
)
LAYOUT = Path(__file__).parents[2] / "kernels" / "layouts" / "whole_expert.yaml"
BUNDLED = Path(__file__).parents[2] / "baseline" / "golden" / "tiny-moe"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    return make_checkpoint(folder, hidden_size=128, num_hidden_layers=2, num_experts=4, num_experts_per_tok=2)


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("golden")
    record(checkpoint, made, TINY_MOE / "heldout", sizes=SMALL)
    return made


@pytest.fixture
def golden(folder: Path) -> Golden:
    return load(folder)


@pytest.fixture
def packed(checkpoint: Path, tmp_path: Path) -> Path:
    pack(checkpoint, tmp_path / "packed", load_layout(LAYOUT))
    return tmp_path / "packed"


def ask(packed: Path, golden: Golden) -> Answers:
    engine = Engine.load(packed)
    return answer(engine.model, engine.tokenizer, golden.questions)


def changed_logits(golden: Golden, prompt: int, row: int, token: int, value: float) -> Answers:
    logits = [array.copy() for array in golden.answers.logits]
    logits[prompt][row, token] = value
    return dataclasses.replace(golden.answers, logits=tuple(logits))


def test_the_module_wins_over_the_data_folder_of_its_name() -> None:
    assert isinstance(baseline.golden, ModuleType)
    assert Path(str(baseline.golden.__file__)).name == "golden.py"


def test_the_streamed_engine_reproduces_the_record_to_the_last_bit(packed: Path, golden: Golden) -> None:
    report = compare(golden, ask(packed, golden))
    assert (report.ok, report.identical, report.tokens_equal, report.max_kl) == (True, True, True, 0.0), report.reason
    assert report.perplexity == (golden.perplexity(), golden.perplexity())


def test_a_changed_expert_is_found_and_placed(packed: Path, golden: Golden) -> None:
    records = packed / "experts" / "layer_00.bin"
    content = bytearray(records.read_bytes())
    for start in range(0, len(content), 4096):  # the first bytes of weights and scales of every expert
        content[start : start + 64] = bytes(64)
    records.write_bytes(content)
    report = compare(golden, ask(packed, golden))
    assert not report.ok and not report.identical and report.max_kl > 1e-5
    assert report.reason.startswith("prompt 0, position ") and "KL" in report.reason


def test_one_wrong_logit_is_placed_at_its_position(golden: Golden) -> None:
    prompt, row = 1, 4  # the second row after the prompt's three positions
    peak = float(golden.answers.logits[prompt][row].max())
    token = int(golden.answers.logits[prompt][row].argmin())
    report = compare(golden, changed_logits(golden, prompt, row, token, peak + 1))
    expected = int(golden.answers.logits[prompt][row].argmax())
    assert not report.ok and not report.tokens_equal
    assert report.reason.startswith(f"prompt 1, decoded token 2: expected token {expected}, got {token}, KL ")


def test_a_tie_within_the_noise_is_no_error(golden: Golden) -> None:
    logits = golden.answers.logits[0].copy()
    first, second = np.argsort(logits[0])[::-1][:2]
    logits[0, second] = logits[0, first] - 1e-5  # the record itself nearly ties here
    tied = dataclasses.replace(
        golden, answers=dataclasses.replace(golden.answers, logits=(logits, *golden.answers.logits[1:]))
    )
    report = compare(tied, changed_logits(tied, 0, 0, int(second), float(logits[0, first]) + 1e-5))
    assert report.ok and not report.tokens_equal and not report.identical


def test_noise_of_float32_sums_passes_and_that_of_bfloat16_does_not(golden: Golden) -> None:
    generator = np.random.default_rng(0)
    for scale, ok in ((1e-5, True), (3e-2, False)):
        noisy = tuple(a + scale * generator.standard_normal(a.shape).astype(np.float32) for a in golden.answers.logits)
        report = compare(golden, dataclasses.replace(golden.answers, logits=noisy))
        assert report.ok is ok, (scale, report)


def test_nan_and_missing_answers_fail(golden: Golden) -> None:
    nan = compare(golden, changed_logits(golden, 0, 2, 7, float("nan")))
    assert not nan.ok and nan.reason == "logits 0: row 2 holds NaN or infinity"
    fewer = compare(golden, dataclasses.replace(golden.answers, logits=golden.answers.logits[:1]))
    assert not fewer.ok and "expected shapes" in fewer.reason
    silent = compare(golden, dataclasses.replace(golden.answers, tool_answers=()))
    assert not silent.ok and silent.reason == "expected 1 tool answers, got 0"


def test_changed_perplexity_is_found(golden: Golden) -> None:
    nll = tuple(array * 1.001 for array in golden.answers.nll)
    report = compare(golden, dataclasses.replace(golden.answers, nll=nll))
    assert not report.ok and report.reason.startswith("perplexity: expected ")


def test_a_worse_tool_call_is_found_and_the_quick_part_asks_for_one() -> None:
    golden = load(BUNDLED)
    broken = (golden.answers.tool_answers[0][:-30], *golden.answers.tool_answers[1:])
    report = compare(golden, dataclasses.replace(golden.answers, tool_answers=broken))
    assert not report.ok and report.reason.startswith("tool prompt 0: expected ")
    quick = golden.quick()
    assert compare(quick, quick.answers).identical
    assert (len(quick.questions.prompts), quick.questions.windows, len(quick.questions.tool_prompts)) == (1, (), 1)
    assert not compare(quick, dataclasses.replace(quick.answers, tool_answers=broken[:1])).ok


def test_the_bundled_record_is_of_the_bundled_model_and_good() -> None:
    golden = load(BUNDLED)
    record_of = baseline.golden.tool_score(golden, golden.answers)
    assert record_of.valid == record_of.prompts == 16 and record_of.exact >= 14
    assert golden.fingerprint == Fingerprint.here(baseline_fingerprint(), "float32")
    assert sum(len(prompt.forced) for prompt in golden.questions.prompts) == 3 * 64


def baseline_fingerprint() -> str:
    from baseline.checkpoint import fingerprint

    return fingerprint(TINY_MOE)


@pytest.mark.parametrize("field", ["model", "dtype", "mlx", "mlx_lm"])
def test_another_fingerprint_is_named(golden: Golden, field: str) -> None:
    golden.fingerprint.require(golden.fingerprint)
    other = dataclasses.replace(golden.fingerprint, **{field: "other"})
    with pytest.raises(CheckError, match=f"of {field} .*this is other"):
        golden.fingerprint.require(other)


@pytest.mark.parametrize("name", [RECORD, ANSWERS])
def test_a_damaged_record_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckError, match=f"{name} is corrupt"):
        load(copy)
    (copy / ANSWERS).unlink()
    with pytest.raises(CheckError):
        load(copy)


def test_no_record_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no golden record"):
        load(tmp_path)


def test_held_out_text_must_be_there_and_long_enough(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no held-out text"):
        record(checkpoint, tmp_path / "golden", tmp_path, sizes=SMALL)
    (tmp_path / "short.txt").write_text("Too short.")
    with pytest.raises(UsageError, match=r"short.txt has \d+ tokens; a golden record needs 36"):
        record(checkpoint, tmp_path / "golden", tmp_path, sizes=SMALL)


def test_questions_and_answers_survive_their_files(golden: Golden, tmp_path: Path) -> None:
    assert Questions.from_json(golden.questions.to_json()) == golden.questions
    golden.answers.save(tmp_path / "answers")
    assert compare(golden, Answers.load(tmp_path / "answers")).identical


CALL = {"name": "weather", "arguments": {"place": "Singapore", "days": 1}}


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        (f"<tool_call>\n{json.dumps(CALL)}\n</tool_call>", (True, True, True)),
        (f"I should.\n</think>\n<tool_call>{json.dumps(CALL)}</tool_call>", (True, True, True)),
        (f"<tool_call>{json.dumps(CALL).replace('1', '1.0')}</tool_call>", (True, True, False)),
        (f"<tool_call>{json.dumps(CALL).replace('1', 'true')}</tool_call>", (True, True, False)),
        (f"<tool_call>{json.dumps(CALL).replace('weather', 'forecast')}</tool_call>", (True, False, False)),
        (f"<tool_call>{json.dumps(CALL)}</tool_call>" * 2, (False, False, False)),
        (f"<tool_call>{json.dumps(CALL)}", (False, False, False)),
        ("<tool_call>{'name'</tool_call>", (False, False, False)),
        ('<tool_call>{"name": "weather"}</tool_call>', (False, False, False)),
        ("No tool is needed.", (False, False, False)),
    ],
)
def test_judging_a_tool_call(text: str, verdict: tuple[bool, bool, bool]) -> None:
    assert judge(text, CALL, "json_tools") == Verdict(*verdict)
