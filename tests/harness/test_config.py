"""What conf/ and the overrides of a command line make."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from baseline.errors import UsageError
from baseline.policy import IoPolicy
from harness.cli import with_recorded
from harness.config import load_config
from harness.propose.settings import NAMES, ProposerSettings
from harness.settings import DEFAULT_JUDGE, SearchSettings


def test_a_resumption_need_not_repeat_what_the_search_began_with(tmp_path: Path) -> None:
    began = {"target": "metal", "ops": ["qmatvec", "io"], "min_gain": 0.5, "state": "cold", "variants": "plain"}
    groups = {"io": {"threads": 3, "cache": "direct"}, "judge": {"factor": 9.0}}
    proposer = {"proposer": asdict(ProposerSettings())}
    (tmp_path / "settings.json").write_text(json.dumps(began | groups | proposer))
    config = load_config(with_recorded([f"run={tmp_path}", "io.threads=2", "minutes=9"]))
    assert (config.target.name, config.op, config.min_gain, config.minutes) == ("metal", ["qmatvec", "io"], 0.5, 9)
    assert (config.io.threads, config.io.cache, config.judge.factor) == (2, "direct", 9.0)
    assert (config.state, config.variants) == ("cold", "plain")
    assert with_recorded(["minutes=9"]) == ["minutes=9"]
    (tmp_path / "settings.json").write_text("[]")
    with pytest.raises(UsageError, match="not the record of a search"):
        with_recorded([f"run={tmp_path}"])


BEGAN = {
    "mutate": [],
    "random": [],
    "inbox": ["proposer.folder=a folder, mine", "proposer.patience_s=7"],
    "replay": ["proposer.record=runs/a=b"],
    "claude": ["proposer.base_url=http://127.0.0.1:9/x,y", "proposer.max_usd=2.5", "proposer.batch=true"],
}


@pytest.mark.parametrize("name", NAMES)
def test_a_resumption_has_the_proposer_that_the_search_began_with(tmp_path: Path, name: str) -> None:
    began = ProposerSettings.given(asdict(load_config([f"proposer={name}", *BEGAN[name]]).proposer))
    settings = SearchSettings(*[tmp_path] * 5, proposer=began)
    (tmp_path / "settings.json").write_text(json.dumps(asdict(settings), default=str))
    again = load_config(with_recorded([f"run={tmp_path}"]))
    assert ProposerSettings.given(asdict(again.proposer)) == began
    other = load_config(with_recorded([f"run={tmp_path}", "proposer=mutate"]))
    assert other.proposer == load_config([]).proposer


def test_text_options_are_taken_as_they_are() -> None:
    assert load_config(["prompt=It's 2+2=4, {yes} [no]", "golden=null"]).prompt == "It's 2+2=4, {yes} [no]"


def test_the_shipped_io_is_the_policys_own_default() -> None:
    assert asdict(load_config([]).io) == asdict(IoPolicy())


def test_the_limits_in_conf_are_the_judges_own_defaults() -> None:
    assert asdict(load_config([]).judge) == DEFAULT_JUDGE
    assert load_config(["judge.factor=4"]).judge.factor == 4


@pytest.mark.parametrize("name", NAMES)
def test_each_proposer_in_conf_can_be_asked_for(name: str) -> None:
    overrides = [f"proposer={name}", *(["proposer.record=a run"] if name == "replay" else [])]
    settings = ProposerSettings.given(asdict(load_config(overrides).proposer))
    assert settings.name == name
    needed = {"claude": settings.claude, "inbox": settings.folder, "replay": settings.record}
    assert [other for other, given in needed.items() if given is not None] == [
        other for other in needed if other == name
    ]


def test_a_proposer_without_what_it_needs_says_what() -> None:
    with pytest.raises(UsageError, match=r"^proposer=replay needs a run: proposer.record="):
        ProposerSettings.given(asdict(load_config(["proposer=replay"]).proposer))
