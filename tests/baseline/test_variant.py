"""The single-file variant format: what is parsed, and that a bad header is refused by the file's name."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from baseline.contract import load_contract
from baseline.errors import UsageError
from baseline.variant import Choice, Variant, list_variants, parse_variant, variant_path
from tests.kernel_call import KERNELS, OPS

CONTRACT = load_contract(KERNELS / "qmatvec")
HEADER: dict[str, Any] = {
    "op": "qmatvec",
    "target": "cpu",
    "tunables": {"ROWS": [2, 1], "THREADS": [4, 1]},
    "launch": {"threads": "THREADS"},
    "supports": {"BITS": [4, 8], "T": ["float32"]},
    "requires": ["__AVX512F__"],
    "hypothesis": "Two rows share the loads of x.",
    "parent": "plain",
}


def variant_file(folder: Path, header: Any, code: str = "y[0] = x[0];\n") -> Path:
    path = folder / "shared.cpp"
    path.write_text(f"/*---\n{yaml.safe_dump(header, sort_keys=False)}---*/\n{code}")
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("variants")


def refusal(folder: Path, header: Any, code: str = "y[0] = x[0];\n") -> str:
    """The one line with which a file of this header is refused."""
    path = variant_file(folder, header, code)
    with pytest.raises(UsageError) as caught:
        parse_variant(path, CONTRACT)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_fields(folder: Path) -> None:
    code = "// helpers\nstatic int two() { return 2; }\n// body\ny[0] = two();\n"
    path = variant_file(folder, HEADER, code)
    variant = parse_variant(path, CONTRACT)
    assert (variant.op, variant.target, variant.name, variant.path) == ("qmatvec", "cpu", "shared", path)
    assert (variant.helpers, variant.body) == ("static int two() { return 2; }\n", "y[0] = two();\n")
    lines = path.read_text().splitlines()
    assert lines[variant.body_line - 1] == "y[0] = two();"
    assert lines[variant.helpers_line - 1] == "static int two() { return 2; }"
    assert variant.tunables == {"ROWS": (2, 1), "THREADS": (4, 1)}
    assert (variant.requires, variant.parent) == (("__AVX512F__",), "plain")


def test_code_without_markers_is_the_body(folder: Path) -> None:
    variant = parse_variant(variant_file(folder, HEADER), CONTRACT)
    assert (variant.helpers, variant.body) == ("", "y[0] = x[0];\n")
    assert variant.path.read_text().splitlines()[variant.body_line - 1] == "y[0] = x[0];"


def test_supports_are_the_headers_and_the_contracts(folder: Path) -> None:
    variant = parse_variant(variant_file(folder, HEADER), CONTRACT)
    fits = {"N": 8, "K": 64, "BITS": 4, "GROUP": 64, "T": "float32", "S": "bfloat16"}
    assert variant.supports_instance(fits)
    for wrong in ({"BITS": 3}, {"T": "float16"}, {"GROUP": 16}, {"S": "float64"}):
        assert not variant.supports_instance({**fits, **wrong})


def test_choices(folder: Path) -> None:
    variant = parse_variant(variant_file(folder, HEADER), CONTRACT)
    default = Choice.defaults(variant)
    assert (default.tunables, default.threads) == ({"ROWS": 2, "THREADS": 4}, 4)
    for wrong in ({"ROWS": 2}, {"ROWS": 3, "THREADS": 4}, {"ROWS": 2, "THREADS": 4, "MORE": 1}):
        with pytest.raises(UsageError, match=r"shared\.cpp"):
            Choice(variant, wrong)


STAGES: dict[str, Any] = {
    "tunables": {"STAGED": [1, 0], "ROWS": [4, 2], "DEEP": [1, 3], "THREADS": [4, 1]},
    "when": {"ROWS": {"STAGED": [1]}, "DEEP": {"ROWS": [2], "STAGED": [1]}},
}


@pytest.mark.parametrize(
    ("values", "meaningful", "settled"),
    [
        ((1, 2, 3, 1), ["STAGED", "ROWS", "DEEP", "THREADS"], (1, 2, 3, 1)),
        ((1, 4, 3, 1), ["STAGED", "ROWS", "THREADS"], (1, 4, 1, 1)),
        ((0, 2, 3, 1), ["STAGED", "THREADS"], (0, 4, 1, 1)),
    ],
)
def test_what_has_no_meaning_is_at_its_default(folder: Path, values, meaningful, settled) -> None:
    variant = parse_variant(variant_file(folder, HEADER | STAGES), CONTRACT)
    given = dict(zip(STAGES["tunables"], values, strict=True))
    assert variant.meaningful(given) == meaningful
    assert variant.settled(given) == dict(zip(STAGES["tunables"], settled, strict=True))


def test_what_depends_on_a_tunable_without_a_meaning_has_none(folder: Path) -> None:
    chain = {"when": {"ROWS": {"STAGED": [1]}, "DEEP": {"ROWS": [4]}}}  # 4 is the default of ROWS
    variant = parse_variant(variant_file(folder, HEADER | STAGES | chain), CONTRACT)
    assert variant.meaningful({"STAGED": 0, "ROWS": 4, "DEEP": 3, "THREADS": 1}) == ["STAGED", "THREADS"]


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"COLUMNS": {"STAGED": [1]}}, "when names COLUMNS; the tunables are STAGED"),
        ({"ROWS": {"DEEP": [1]}}, "ROWS depends on DEEP; it may depend on those before it: STAGED"),
        ({"ROWS": {"ROWS": [4]}}, "ROWS depends on ROWS"),
        ({"ROWS": {"BITS": [4]}}, "ROWS depends on BITS"),
        ({"ROWS": {"STAGED": [2]}}, "ROWS needs STAGED 2; it may be 1, 0"),
        ({"ROWS": {"STAGED": []}}, "ROWS needs STAGED none"),
        ({"ROWS": {"STAGED": 1}}, "when.ROWS.STAGED"),
        ({"ROWS": "STAGED"}, "when.ROWS"),
    ],
)
def test_conditions_that_cannot_be_are_refused(folder: Path, when: Any, message: str) -> None:
    assert message in refusal(folder, HEADER | STAGES | {"when": when})


def test_launch_may_be_a_number(folder: Path) -> None:
    header = {**HEADER, "launch": {"threads": 3}}
    assert Choice.defaults(parse_variant(variant_file(folder, header), CONTRACT)).threads == 3


GPU_HEADER: dict[str, Any] = {
    "op": "qmatvec",
    "target": "metal",
    "tunables": {"ROWS": [2, 1]},
    "launch": {"grid": ["ceil_div(N, ROWS) * 32", "m", 1], "threadgroup": [32, "min(2, m)", 1]},
    "hypothesis": "Two rows share the loads of x.",
}


def test_gpu_launch_is_two_triples_of_expressions(folder: Path) -> None:
    variant = parse_variant(variant_file(folder, GPU_HEADER), CONTRACT)
    assert variant.launch == {"grid": ("ceil_div(N, ROWS) * 32", "m", 1), "threadgroup": (32, "min(2, m)", 1)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"grid": ["N", 1]}, "grid is ['N', 1]; it must be [x, y, z]"),
        ({"grid": "N"}, "grid is 'N'"),
        ({"threads": 2}, "launch of a metal variant must be {grid:"),
        ({"grid": ["COLUMNS", 1, 1]}, "grid names COLUMNS; it may name BITS, GROUP, K, N, ROWS, m"),
        ({"threadgroup": ["T", 1, 1]}, "threadgroup names T;"),
        ({"threadgroup": ["N % 2", 1, 1]}, "'N % 2' cannot be computed"),
        ({"grid": [1.5, 1, 1]}, "launch.grid"),
    ],
)
def test_wrong_gpu_launches_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refusal(folder, {**GPU_HEADER, "launch": {**GPU_HEADER["launch"], **changes}})


@pytest.mark.parametrize("op", OPS)
def test_each_op_has_a_plain_variant_and_faster_ones_with_hypotheses(op: str) -> None:
    variants: dict[str, Variant] = {variant.name: variant for variant in list_variants(KERNELS, op, "cpu")}
    assert len(variants) >= 3
    assert all(len(variant.hypothesis) > 80 for variant in variants.values())
    parents = {variant.parent for variant in variants.values() if variant.name != "plain"}
    assert variants["plain"].parent is None
    assert parents <= variants.keys()


def test_a_target_without_variants_is_refused(tmp_path: Path) -> None:
    (tmp_path / "qmatvec").mkdir()
    (tmp_path / "qmatvec" / "contract.yaml").write_text((KERNELS / "qmatvec" / "contract.yaml").read_text())
    with pytest.raises(UsageError, match=r"qmatvec/cuda holds no \.cu file"):
        list_variants(tmp_path, "qmatvec", "cuda")


@pytest.mark.parametrize("op", OPS)
def test_metal_variants_are_cudas_too_and_named_as_such(op: str) -> None:
    native, metal = ({path.stem for path in (KERNELS / op / target).iterdir()} for target in ("cuda", "metal"))
    variants = {variant.name: variant for variant in list_variants(KERNELS, op, "cuda")}
    assert variants.keys() == native | {f"metal_{name}" for name in metal}
    for name, variant in variants.items():
        assert variant.target == ("metal" if name.startswith("metal_") else "cuda")
        assert variant_path(KERNELS, op, "cuda", name) == variant.path


@given(missing=st.sampled_from(["op", "target", "launch", "hypothesis"]))
def test_missing_fields_are_refused(folder: Path, missing: str) -> None:
    assert missing in refusal(folder, {name: value for name, value in HEADER.items() if name != missing})


@given(
    values=st.one_of(
        st.text(),
        st.integers(),
        st.just([]),
        st.lists(st.one_of(st.text(), st.floats(allow_nan=False), st.booleans(), st.none()), min_size=1),
        st.integers().map(lambda value: [value, value]),
    )
)
def test_tunables_of_an_unknown_type_are_refused(folder: Path, values: Any) -> None:
    assert "ROWS" in refusal(folder, {**HEADER, "tunables": {"ROWS": values, "THREADS": [1]}})


@given(name=st.from_regex(r"[A-Z_]{1,12}", fullmatch=True).filter(lambda n: n not in CONTRACT.constants))
def test_unknown_constants_are_refused(folder: Path, name: str) -> None:
    assert name in refusal(folder, {**HEADER, "supports": {name: [4]}})


@given(name=st.one_of(st.sampled_from(list(CONTRACT.constants)), st.from_regex(r"[a-z0-9 ]{1,8}", fullmatch=True)))
def test_tunables_need_capital_names_of_their_own(folder: Path, name: str) -> None:
    assert "must have a capital name" in refusal(folder, {**HEADER, "tunables": {name: [1], "THREADS": [1]}})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"op": "expert_down"}, "op is 'expert_down'"),
        ({"target": "fpga"}, "it may be cpu, metal, cuda"),
        ({"launch": {"threads": "WORKERS"}}, "a tunable of such"),
        ({"launch": {"threads": 0}}, "positive integer"),
        ({"launch": {"grid": 1}}, "must be {threads:"),
        ({"supports": {"BITS": [5]}}, "the contract allows 2, 3, 4, 6, 8"),
        ({"requires": ["avx 512"]}, "'avx 512', which is no macro"),
        ({"notes": "more"}, "notes"),
    ],
)
def test_wrong_values_are_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    assert message in refusal(folder, {**HEADER, **changes})


@pytest.mark.parametrize("code", ["// helpers\nint a;\n", "int a;\n// body\n", "// body\n// helpers\n"])
def test_unpaired_markers_are_refused(folder: Path, code: str) -> None:
    assert "`// helpers`, declarations, `// body`" in refusal(folder, HEADER, code)


@pytest.mark.parametrize("text", ["", "y[0] = 1;", "/*---\nop: [\n---*/\n", "/*---\nop: qmatvec\n"])
def test_files_without_a_header_are_refused(folder: Path, text: str) -> None:
    path = folder / "headless.cpp"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"headless\.cpp"):
        parse_variant(path, CONTRACT)


def test_a_missing_file_is_refused() -> None:
    with pytest.raises(UsageError, match=r"nowhere\.cpp"):
        parse_variant(KERNELS / "qmatvec" / "cpu" / "nowhere.cpp")
