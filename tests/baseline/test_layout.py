"""The whole-expert layout against the offsets that Flash-MoE shipped, and layouts that must be refused."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from baseline.errors import UsageError
from baseline.layout import ITEM_BYTES, Layout, arrange, load_layout, record_stride

LAYOUTS = Path(__file__).parents[2] / "kernels" / "layouts"
WHOLE_EXPERT = LAYOUTS / "whole_expert.yaml"


def affine_expert(hidden: int, inner: int, bits: int, group: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """One expert as MLX's affine quantisation stores it, in an order that is not the layout's."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name, rows, columns in (
        ("down_proj", hidden, inner),
        ("up_proj", inner, hidden),
        ("gate_proj", inner, hidden),
    ):
        tensors[f"{name}.biases"] = ("bfloat16", (rows, columns // group))
        tensors[f"{name}.scales"] = ("bfloat16", (rows, columns // group))
        tensors[f"{name}.weight"] = ("uint32", (rows, columns * bits // 32))
    return tensors


NAMES = [f"{p}.{t}" for p in ("gate_proj", "up_proj", "down_proj") for t in ("weight", "scales", "biases")]
SHIPPED = {  # Flash-MoE's expert files for Qwen3.5-397B-A17B: infer.m and repack_experts.py
    4: (
        7_077_888,
        [0, 2_097_152, 2_228_224, 2_359_296, 4_456_448, 4_587_520, 4_718_592, 6_815_744, 6_946_816],
    ),
    2: (
        3_932_160,
        [0, 1_048_576, 1_179_648, 1_310_720, 2_359_296, 2_490_368, 2_621_440, 3_670_016, 3_801_088],
    ),
}


@pytest.mark.parametrize("bits", SHIPPED)
def test_397b_experts_have_the_shipped_offsets(bits: int) -> None:
    layout = load_layout(WHOLE_EXPERT)
    segments = arrange(layout, affine_expert(4096, 1024, bits, 64))
    stride, offsets = SHIPPED[bits]
    assert [segment.name for segment in segments] == NAMES
    assert [segment.offset for segment in segments] == offsets
    assert record_stride(layout, segments) == segments[-1].end == stride


@given(
    st.integers(1, 5).map(lambda n: 128 * n),
    st.integers(1, 5).map(lambda n: 128 * n),
    st.sampled_from([2, 3, 4, 6, 8]),
    st.sampled_from([32, 64, 128]),
    st.booleans(),
)
def test_segments_are_aligned_apart_and_inside(hidden: int, inner: int, bits: int, group: int, bias: bool) -> None:
    tensors = affine_expert(hidden, inner, bits, group)
    if bias:  # an odd number of 2-byte values before a 4-byte weight
        tensors |= {"gate_proj.bias": ("bfloat16", (inner + 1,)), "up_proj.bias": ("bfloat16", (inner + 1,))}
    layout = load_layout(WHOLE_EXPERT)
    segments = arrange(layout, tensors)
    assert {s.name: (s.dtype, s.shape) for s in segments} == tensors
    assert all(s.offset % ITEM_BYTES[s.dtype] == 0 for s in segments)
    assert all(0 <= b.offset - a.end < 4 for a, b in pairwise(segments))
    padding = record_stride(layout, segments) - segments[-1].end
    assert 0 <= padding < 4096 and record_stride(layout, segments) % 4096 == 0
    formula = 3 * hidden * inner * bits // 8 + 2 * 2 * 3 * hidden * inner // group
    assert bias or segments[-1].end == formula


@pytest.mark.parametrize("path", sorted(LAYOUTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_committed_layouts_hold_what_they_say(path: Path) -> None:
    layout = load_layout(path)
    segments = arrange(layout, affine_expert(128, 64, 3, 32) | {"gate_proj.bias": ("bfloat16", (63,))})
    assert [s.name for s in segments] == [name for name in layout.order if name in {s.name for s in segments}]
    assert all(segment.offset % layout.tensor_align == 0 for segment in segments)
    assert record_stride(layout, segments) % layout.align == 0 and len(layout.summary) > 40


def test_a_layout_lies_as_another_whatever_it_is_called() -> None:
    layout = load_layout(WHOLE_EXPERT)
    assert layout.lies_as(dataclasses.replace(layout, name="mine", summary="other"))
    for change in ({"align": 8192}, {"tensor_align": 64}, {"order": layout.order[::-1]}):
        assert not layout.lies_as(dataclasses.replace(layout, **change))


def test_a_tensor_without_a_place_is_refused() -> None:
    tensors = affine_expert(128, 128, 4, 64) | {"gate_proj.global_scale": ("float32", (1,))}
    with pytest.raises(UsageError, match=r"whole_expert has no place .* gate_proj.global_scale"):
        arrange(load_layout(WHOLE_EXPERT), tensors)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"align": 1000}, "power of two"),
        ({"align": 256}, "at least 4096"),
        ({"align": "page"}, "align"),
        ({"name": "other"}, "must be equal"),
        ({"tensor_align": 0}, "tensor_align is 0; it must be a power of two of at most align"),
        ({"tensor_align": 48}, "power of two of at most align"),
        ({"tensor_align": 8192}, "power of two of at most align"),
        ({"order": ["gate_proj.weight"]}, "order must name each"),
        ({"order": None}, "order"),
    ],
)
def test_a_bad_layout_is_refused_by_name(tmp_path: Path, change: dict[str, object], said: str) -> None:
    fields = yaml.safe_load(WHOLE_EXPERT.read_text())
    path = tmp_path / "whole_expert.yaml"
    path.write_text(yaml.safe_dump(fields | change))
    with pytest.raises(UsageError, match=said) as raised:
        load_layout(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.parametrize("text", ["{", "- a", ""])
def test_a_file_that_is_no_layout_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "whole_expert.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"whole_expert\.yaml") as raised:
        load_layout(path)
    assert "\n" not in str(raised.value)


def test_a_layout_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.yaml"):
        load_layout(tmp_path / "none.yaml")


def test_a_layout_survives_json() -> None:
    layout = load_layout(WHOLE_EXPERT)
    fields = layout.to_json()
    assert Layout(**fields | {"order": tuple(fields["order"])}) == layout
