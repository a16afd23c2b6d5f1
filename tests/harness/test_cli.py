"""The command line: exit status, one clear line, and standard output for results alone.

Through real processes, but for what is refused before or as soon as a model is loaded: that many starts take minutes.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import mlx.core as mx
import pytest

from baseline.manifest import load_manifest
from harness import cli
from harness.models import packed_model
from harness.paths import BUNDLED
from tests.models import TINY_MOE, make_checkpoint

ROOT = Path(__file__).parents[2]
UNPRIVILEGED = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


@pytest.fixture(scope="module")
def cache(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """XDG_CACHE_HOME of this module's commands, which find the kernels that other tests have compiled."""
    home = tmp_path_factory.mktemp("home")
    (home / "nightforge").mkdir()
    (home / "nightforge" / "build").symlink_to(cache)
    return home


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with one held-out text and one tool prompt of its own."""
    folder = tmp_path_factory.mktemp("checkpoint")
    make_checkpoint(folder, num_hidden_layers=2, num_experts=4, num_experts_per_tok=2)
    source, heldout = TINY_MOE / "heldout", folder / "heldout"
    heldout.mkdir()
    shutil.copyfile(source / "heldout_pydocs.txt", heldout / "text.txt")
    rows = (source / "tools.jsonl").read_text().splitlines()
    (heldout / "tools.jsonl").write_text(min(rows, key=len) + "\n")
    return folder


@pytest.fixture(scope="module")
def packed(checkpoint: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "packed"
    assert run(cache, "pack", str(checkpoint), str(folder)).returncode == 0
    return folder


@pytest.fixture(scope="module")
def golden(checkpoint: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden record of `checkpoint`."""
    folder = tmp_path_factory.mktemp("golden") / "record"
    recorded = run(cache, "golden", "record", "--json", f"model={checkpoint}", f"golden={folder}")
    assert recorded.returncode == 0, recorded.stderr
    assert json.loads(recorded.stdout)["tool_calls"]["prompts"] == 1
    return folder


@pytest.fixture(scope="module")
def bundled(cache: Path) -> Path:
    """`cache`, the bundled model packed in it: its first use says so, in a line of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        packed_model(BUNDLED, lambda line: None)
    return cache


def environment(cache: Path, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    return {**os.environ, "XDG_CACHE_HOME": str(cache), **(extra or {})}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "harness.cli", *arguments]


def run(cache: Path, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, env=environment(cache, env), capture_output=True, text=True, timeout=120
    )


def assert_refused(done: subprocess.CompletedProcess[str], status: int, text: str) -> None:
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("nightforge: "), done.stderr
    assert text in lines[0]


Refused = Callable[..., None]


@pytest.fixture
def refused(cache: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Refused:
    """Runs a command in this process, where it must be refused: see `assert_refused`."""
    for name, value in environment(cache).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)

    def check(status: int, text: str, *arguments: str) -> None:
        capfd.readouterr()
        returncode = cli.main(arguments)
        assert_refused(subprocess.CompletedProcess(arguments, returncode, *capfd.readouterr()), status, text)

    return check


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((), "required: COMMAND"),
        (("forge",), "invalid choice: 'forge'"),
        (("generate", "--fast"), "unrecognized arguments: --fast"),
        (("golden",), "required: record|check"),
        (("pack", "SRC"), "required: DST"),
        (("generate", "speed=9"), "unknown override 'speed'; known are "),
        (("generate", "io.colour=red"), "unknown override 'io.colour'"),
        (("generate", "max_tokens=many"), "max_tokens=many: Value 'many'"),
        (("generate", "max_tokens=0"), "max_tokens must be 1 or more, got 0"),
        (("generate", "dtype=int4"), "dtype must be one of float32, bfloat16, float16, got 'int4'"),
        (("generate", "io.cache=warm"), "io.cache must be one of os, direct, mapped, got 'warm'"),
        (("generate", "io.threads=0"), "io.threads must be a whole number from 1 to 256, got 0"),
        (("generate", "io.threads=[1"), "io.threads=[1"),
        (("search", "proposer=oracle"), "Available options in 'proposer': claude"),
        (("search", "target=abacus"), "Available options in 'target': cpu"),
        (("search", "--resume"), "--resume needs the folder of the run"),
        (("generate", "model=/no/such/folder"), "'/no/such/folder' is neither 'tiny-moe'"),
        (("generate", f"model={TINY_MOE}"), "is not packed; pack it first: nightforge pack"),
        (("generate", "configuration=/no/such.json"), "/no/such.json cannot be read"),
        (("generate", "configuration=pyproject.toml"), "is not a candidate.json of a search"),
        (("synth", "gpt", "DST"), "CONFIG must be one of qwen3.5-397b-a17b, qwen3.5-122b-a10b, qwen3.5-35b-a3b, got"),
        (("synth", "qwen3.5-35b-a3b", "DST", "layers=3"), "layers must be from 4"),
        (("synth", "qwen3.5-35b-a3b", "DST", "vocab=1000"), "vocab must be from 4992 (the bundled tokenizer"),
        (("pack", "/no/such/folder", "DST"), "/no/such/folder is not a folder"),
        (("pack", "tests", "DST"), "tests is not a model: it has no config.json"),
        (("pack", str(TINY_MOE), "DST", "--layout", "spiral"), "weights_first, whole_expert, got 'spiral'"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(refused: Refused, arguments: tuple[str, ...], text: str) -> None:
    refused(2, text, *arguments)


def test_bad_values_of_a_loaded_model_are_one_line(refused: Refused, packed: Path, tmp_path: Path) -> None:
    model = f"model={packed}"
    refused(2, "top_k must be from 1 to the model's 2, got 99", "generate", model, "top_k=99")
    refused(2, "prompt is empty", "generate", model, "prompt=")
    refused(2, "got 'sort'", "search", model, "op=[expert_down,sort]")
    refused(2, "minutes must be more than 0, got -1.0", "search", model, "minutes=-1")
    if not mx.metal.is_available():
        only_io = "an I/O policy can only be timed, on a machine with an Apple GPU"
        refused(2, only_io, "search", model, "target=metal", "op=io")
    nothing = f"golden={tmp_path}"
    refused(2, "holds no golden record", "golden", "check", model, nothing)
    refused(2, "holds no golden record", "search", model, nothing, f"run={tmp_path}/run")


def test_synth_says_where_and_how_much(cache: Path, tmp_path: Path) -> None:
    options = ("layers=4", "experts=8", "vocab=4992")
    done = run(cache, "synth", "qwen3.5-35b-a3b", str(tmp_path / "dst"), *options, "--json")
    assert done.returncode == 0, done.stderr
    fields = json.loads(done.stdout)
    assert fields["path"] == str(tmp_path / "dst")
    size = (tmp_path / "dst" / "model.safetensors").stat().st_size
    assert size - 100_000 < fields["bytes"] < size
    assert "4 layers, 8 experts in each, a vocabulary of 4992" in done.stderr and len(done.stderr.splitlines()) == 1


def test_help_lists_the_commands_that_exist_and_is_quick(cache: Path) -> None:
    start = time.perf_counter()
    done = run(cache, "--help")
    seconds = time.perf_counter() - start
    assert done.returncode == 0
    for name in ("doctor", "pack", "synth", "generate", "golden", "search"):
        assert name in done.stdout
    assert seconds < 2  # on a busy machine; importing mlx-lm alone takes longer than --help may


def test_help_imports_nothing_heavy(cache: Path) -> None:
    script = (
        "import sys; from harness.cli import parser; parser().format_help(); "
        "print([m for m in ('mlx', 'mlx_lm', 'optuna', 'pandas', 'matplotlib', 'hydra', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pack_reports_and_verifies(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    done = run(cache, "pack", "--json", "--verify", str(checkpoint), str(tmp_path / "packed"))
    assert done.returncode == 0, done.stderr
    fields = json.loads(done.stdout)
    assert (fields["experts"], fields["verified"]) == (8, True)
    stored = sum(
        path.stat().st_size for path in (tmp_path / "packed").rglob("*") if path.suffix in (".bin", ".safetensors")
    )
    assert fields["bytes"] == pytest.approx(stored, rel=0.01)


def test_pack_of_a_packed_model_converts_it(cache: Path, packed: Path, tmp_path: Path) -> None:
    there = run(cache, "pack", "--json", "--verify", str(packed), str(tmp_path / "there"), "--layout", "pages")
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout)["verified"] and load_manifest(tmp_path / "there").layout.name == "pages"


def test_generate_streams_text_and_keeps_json_alone(cache: Path, packed: Path) -> None:
    model = f"model={packed}"
    plain = run(cache, "generate", model, "max_tokens=5", "prompt=The whale")
    assert plain.returncode == 0, plain.stderr
    assert "tokens/s" in plain.stderr and "seconds by phase: expert_read" in plain.stderr
    quiet = run(cache, "generate", "--json", model, "max_tokens=5", "prompt=The whale")
    fields = json.loads(quiet.stdout)
    assert quiet.stdout.count("\n") == 1
    assert fields["text"] == plain.stdout.removesuffix("\n")
    assert len(fields["tokens"]) == 5 and fields["tokens_per_s"] > 0 and fields["ttft_s"] > 0
    assert fields["phases"]["expert_read"] > 0


def test_golden_record_then_check_then_a_corrupt_pack(
    cache: Path, packed: Path, golden: Path, refused: Refused, tmp_path: Path
) -> None:
    record = f"golden={golden}"
    held = run(cache, "golden", "check", "--json", f"model={packed}", record)
    assert held.returncode == 0, held.stderr
    report = json.loads(held.stdout)
    assert report["ok"] and report["identical"] and report["max_kl"] == 0.0
    wrong = "the golden record is of dtype float32, this is bfloat16"
    refused(3, wrong, "golden", "check", f"model={packed}", record, "dtype=bfloat16")
    changed = Path(shutil.copytree(packed, tmp_path / "changed"))
    layer = changed / "experts" / "layer_00.bin"
    layer.write_bytes(bytes(len(layer.read_bytes())))
    done = run(cache, "golden", "check", "--json", f"model={changed}", record)
    assert done.returncode == 3 and "Traceback" not in done.stderr
    assert json.loads(done.stdout)["ok"] is False
    assert done.stderr.splitlines()[-1].startswith("nightforge: golden mismatch: prompt 0, position ")


def test_another_models_record_is_refused(refused: Refused, packed: Path) -> None:
    bundled = ROOT / "baseline" / "golden" / "tiny-moe"
    refused(3, "the golden record is of model ", "golden", "check", f"model={packed}", f"golden={bundled}")


@pytest.mark.parametrize("name", ["golden.json", "golden.safetensors"])
def test_a_corrupt_record_is_refused(refused: Refused, packed: Path, tmp_path: Path, name: str) -> None:
    copy = Path(shutil.copytree(ROOT / "baseline" / "golden" / "tiny-moe", tmp_path / "golden"))
    (copy / name).write_bytes((copy / name).read_bytes()[:-7])
    refused(3, f"{name} is corrupt", "golden", "check", f"model={packed}", f"golden={copy}")


def test_a_truncated_or_foreign_pack_is_refused(refused: Refused, packed: Path, tmp_path: Path) -> None:
    cut = Path(shutil.copytree(packed, tmp_path / "cut"))
    layer = cut / "experts" / "layer_01.bin"
    os.truncate(layer, layer.stat().st_size - 4096)
    refused(3, "layer_01.bin has ", "generate", f"model={cut}")
    (cut / "manifest.json").write_text('{"format": "zip", "version": 1}')
    refused(3, "is of format 'zip'", "generate", f"model={cut}")
    refused(2, "is not a packed model", "generate", f"model={tmp_path}")


def test_an_unwritable_run_folder_is_refused(cache: Path, packed: Path, tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("in the way")
    golden = f"golden={ROOT / 'baseline' / 'golden' / 'tiny-moe'}"
    done = run(cache, "search", f"run={occupied}/run", golden)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{occupied}" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"CXX": "no-such-compiler"}, "there is no program 'no-such-compiler'"),
        ({"CXX": "", "PATH": "/nowhere"}, "no C++ compiler"),
    ],
)
def test_a_search_without_a_compiler_is_one_line(bundled: Path, tmp_path: Path, env: dict[str, str], text: str) -> None:
    assert_refused(run(bundled, "search", f"run={tmp_path}/run", env=env), 2, text)
    assert not (tmp_path / "run").exists()


def test_a_read_that_fails_while_tokens_are_decoded_is_a_failed_check(cache: Path) -> None:
    script = """if True:
        import sys
        from harness import cli
        def fails(config):
            raise RuntimeError("expert_read: layer_03.bin: layer 3, expert 7: Input/output error")
        cli.load_config = fails
        sys.exit(cli.main(["generate"]))"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert_refused(done, 3, "layer 3, expert 7: Input/output error")


def test_a_full_disk_is_one_line(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    """A file-size limit makes the kernel refuse a write as a full disk does."""
    limited = ["bash", "-c", 'trap "" XFSZ; ulimit -f 64; exec "$@"', "bash"]
    done = subprocess.run(
        [*limited, *command("pack", str(checkpoint), str(tmp_path / "packed"))],
        cwd=ROOT,
        env=environment(cache),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert_refused(done, 2, f"cannot write {tmp_path / 'packed'}")


@UNPRIVILEGED
def test_an_unwritable_destination_is_one_line(cache: Path, checkpoint: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert_refused(run(cache, "pack", str(checkpoint), str(tmp_path / "packed")), 2, "Permission denied")


def test_ctrl_c_ends_a_command_in_one_line(cache: Path, packed: Path) -> None:
    process = subprocess.Popen(
        command("generate", f"model={packed}", "max_tokens=100000"),
        cwd=ROOT,
        env=environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.read(1)  # text has begun to come
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stderr == "nightforge: interrupted; what is on disk is kept\n"


def test_a_closed_pipe_ends_a_command_quietly(cache: Path, packed: Path) -> None:
    process = subprocess.Popen(
        command("generate", f"model={packed}", "max_tokens=100000"),
        cwd=ROOT,
        env=environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0


def test_a_bug_of_ours_shows_its_traceback(cache: Path) -> None:
    script = "from harness import cli; cli.load_config = lambda _: 1 / 0; cli.main(['generate'])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


def test_ctrl_c_ends_a_search_with_its_record(cache: Path, packed: Path, golden: Path, tmp_path: Path) -> None:
    ledger = tmp_path / "run" / "ledger.tsv"
    process = subprocess.Popen(
        command("search", "--json", f"run={tmp_path}/run", "op=io", f"model={packed}", f"golden={golden}"),
        cwd=ROOT,
        env=environment(cache),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and not (ledger.exists() and len(ledger.read_text().splitlines()) > 1):
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in stderr
    assert json.loads(stdout)["interrupted"] and f"--resume run={tmp_path}/run" in stderr
    assert (tmp_path / "run" / "progress.png").exists()
