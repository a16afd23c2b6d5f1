"""What the proposer needs before it asks anything, and what the model's tools are."""

import importlib.util
import math
from pathlib import Path
from typing import get_args

import anthropic
import pytest
from anthropic.types import Model

from baseline.errors import UsageError
from harness.paths import data_folder
from harness.propose.claude import tools
from harness.propose.claude.price import Price, Usage, load_price
from harness.propose.claude.settings import ClaudeSettings, estimate

PRICES = data_folder("conf") / "prices.yaml"
DEFAULT = "claude-opus-5-5"


@pytest.mark.parametrize("parts", [("qmatvec",), ("io",), ("layout",), ("qmatvec", "io", "layout")])
def test_schemas_are_what_strict_tool_use_takes_as_they_are(parts):
    for made in tools.schemas(parts):
        assert made["strict"] is True and made["description"]
        assert anthropic.transform_schema(made["input_schema"]) == made["input_schema"], made["name"]
        assert set(made["input_schema"]["properties"]) == set(made["input_schema"].get("required", ()))


def test_only_what_may_be_changed_can_be_proposed():
    names = [{made["name"] for made in tools.schemas(parts)} for parts in (("qmatvec",), ("io",), ("layout",))]
    assert "propose_io_policy" not in names[0] and "propose_kernel" in names[0]
    assert "propose_kernel" not in names[1] and "propose_io_policy" in names[1]
    assert "propose_layout" not in names[0] | names[1] and "propose_layout" in names[2]


def test_the_default_model_is_on_the_sdks_list_and_has_a_price():
    listed = {name for choice in get_args(Model) for name in get_args(choice)}
    assert DEFAULT in listed and load_price(PRICES, DEFAULT, batch=False).known
    assert f"model: {DEFAULT} " in (PRICES.parent / "proposer" / "claude.yaml").read_text()


def test_a_price_counts_each_kind_of_token_and_a_batch_costs_half():
    usage = Usage(input=1_000_000, cache_write=2_000_000, cache_read=10_000_000, output=500_000)
    assert load_price(PRICES, DEFAULT, batch=False).usd(usage) == pytest.approx(4 + 10 + 2 + 10)
    assert load_price(PRICES, DEFAULT, batch=True).usd(usage) == pytest.approx(13)


def test_the_worst_case_takes_all_input_at_the_dearest_rate():
    assert Price(4, 5, 0.2, 20).worst(1_000_000, 500_000) == pytest.approx(5 + 10)


def test_a_model_without_a_price_has_no_estimate_and_cannot_be_capped():
    assert not load_price(PRICES, "some-model", batch=False).known
    assert math.isnan(estimate(ClaudeSettings("some-model"), 10))
    with pytest.raises(UsageError, match=r"some-model has no price in .*prices.yaml"):
        estimate(ClaudeSettings("some-model", max_usd=1), 10)


def test_an_estimate_grows_with_the_candidates_up_to_the_cap():
    assert estimate(ClaudeSettings(DEFAULT), 20) == pytest.approx(20 * estimate(ClaudeSettings(DEFAULT), 1))
    assert estimate(ClaudeSettings(DEFAULT, max_usd=1.5), 1000) == 1.5


def test_a_table_that_is_none_is_named(tmp_path):
    table = tmp_path / "prices.yaml"
    table.write_text("models: {a: {input: much}}")
    with pytest.raises(UsageError, match=r"prices\.yaml: not a table of prices"):
        load_price(table, "a", batch=False)


def test_without_a_key_one_line_says_where_it_belongs(place, monkeypatch):
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(UsageError, match=r"^proposer=claude takes its key from ANTHROPIC_API_KEY [^\n]*$"):
        place.proposer()


def test_without_the_sdk_one_line_says_what_to_install(place, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "anthropic" else found(name))
    with pytest.raises(
        UsageError, match=r"^proposer=claude needs the anthropic SDK: pip install 'nightforge\[claude\]'$"
    ):
        place.proposer()


@pytest.mark.parametrize(
    "wrong",
    [{"model": ""}, {"max_usd": 0}, {"max_tokens": 0}, {"repairs": -1}, {"patience_s": 0}, {"paper": Path("no")}],
)
def test_a_setting_out_of_range_is_named(wrong):
    with pytest.raises(UsageError, match=next(iter(wrong))):
        ClaudeSettings(**{"model": DEFAULT} | wrong)
