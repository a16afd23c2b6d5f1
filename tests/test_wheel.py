"""The built wheel in an empty environment: what a user who never saw the checkout gets."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from baseline.pack import pack
from baseline.record import Sizes, record
from tests.models import TINY_MOE, make_checkpoint
from tests.streamed import LAYOUT

ROOT = Path(__file__).parents[1]
SIZES = Sizes(prompts=1, prompt_tokens=12, positions=2, decode_tokens=4, windows=1, window_tokens=16)
pytestmark = [pytest.mark.wheel, pytest.mark.timeout(900)]


def run(*command: object, **options: object) -> str:
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT)
    (path,) = folder.glob("nightforge-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str], Path]:
    """The empty environment's bin folder, its variables, and an empty folder to work in."""
    folder = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", "--without-pip", folder / "venv")
    binaries = folder / "venv" / "bin"
    # Python compiles what is imported at its first use: most of what is installed never is.
    run(sys.executable, "-m", "pip", "--python", binaries / "python", "install", "--quiet", "--no-compile", wheel)
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    work = folder / "work"
    work.mkdir()
    return binaries, env | {"HOME": str(folder), "XDG_CACHE_HOME": str(folder / "cache")}, work


def test_the_wheel_carries_the_data_and_no_package_named_kernels(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "harness/kernels/expert_gate_up/contract.yaml",
        "harness/kernels/qmatvec/cpu/plain.cpp",
        "harness/kernels/layouts/whole_expert.yaml",
        "harness/conf/config.yaml",
        "baseline/models/tiny-moe/model.safetensors",
        "baseline/golden/tiny-moe/golden.json",
        "baseline/golden/tiny-moe/golden.safetensors",
        "baseline/prior.tsv",
        "baseline/targets/cpu_attention.cpp",
        "baseline/targets/cpu_conv.cpp",
        "baseline/targets/cpu_limbs.h",
        "baseline/targets/cpu_prelude.h",
        "baseline/targets/cpu_rows.h",
        "baseline/targets/cpu_tiles.h",
    ):
        assert wanted in names
    assert {name.split("/")[0] for name in names if not name.startswith("nightforge-")} == {
        "baseline",
        "experiments",
        "harness",
    }


def test_the_installed_command_is_not_the_checkout(installed):
    binaries, env, work = installed
    where = run(binaries / "python", "-c", "import harness; print(harness.__file__)", env=env, cwd=work)
    assert Path(where.strip()).is_relative_to(binaries.parent)


def test_the_installed_command_generates_with_the_bundled_model(installed):
    binaries, env, work = installed
    made = json.loads(run(binaries / "nightforge", "generate", "--json", "max_tokens=4", env=env, cwd=work))
    assert len(made["tokens"]) == 4 and made["tokens_per_s"] > 0
    assert list(work.iterdir()) == []


def test_the_installed_command_searches(installed, tmp_path):
    """On a model whose decodes and golden record take no time; the bundled one's take the plain kernels a minute."""
    binaries, env, work = installed
    checkpoint = make_checkpoint(tmp_path / "model", num_hidden_layers=2, num_experts=4, num_experts_per_tok=2)
    pack(checkpoint, tmp_path / "packed", LAYOUT)
    (tmp_path / "texts").mkdir()
    shutil.copy(TINY_MOE / "heldout" / "heldout_pydocs.txt", tmp_path / "texts")
    record(checkpoint, tmp_path / "golden", tmp_path / "texts", sizes=SIZES)
    # A gain that the fewest blocks refute.
    arguments = ["search", "--json", "run=found", "candidates=1", "op=[io]", "minutes=2", "min_gain=100"]
    arguments += [f"model={tmp_path / 'packed'}", f"golden={tmp_path / 'golden'}"]
    found = json.loads(run(binaries / "nightforge", *arguments, env=env, cwd=work))
    assert found["evaluated"] == 1 and (work / "found" / "ledger.tsv").is_file()
