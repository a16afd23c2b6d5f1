"""Where data is found, and where the cache goes."""

from pathlib import Path

import pytest

from harness import paths


def test_a_checkout_has_its_data_beside_the_package() -> None:
    assert (paths.data_folder("kernels") / "layouts" / "whole_expert.yaml").is_file()
    assert (paths.data_folder("conf") / "config.yaml").is_file()


def test_what_a_wheel_carries_wins_over_a_package_of_the_same_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kernels").mkdir()  # as the Hugging Face package of that name lies in site-packages
    inside = tmp_path / "harness" / "kernels"
    inside.mkdir(parents=True)
    monkeypatch.setattr(paths, "HERE", tmp_path / "harness")
    assert paths.data_folder("kernels") == inside


def test_missing_data_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "HERE", tmp_path / "harness")
    with pytest.raises(FileNotFoundError, match="lacks its conf"):
        paths.data_folder("conf")


def test_the_bundled_model_and_its_record_exist() -> None:
    assert (paths.bundled_model() / "config.json").is_file()
    assert (paths.bundled_model() / "heldout" / "tools.jsonl").is_file()
    assert (paths.bundled_golden() / "golden.json").is_file()


@pytest.mark.parametrize("value", ["", "relative/cache"])
def test_the_cache_is_in_the_home_folder_by_default(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert paths.cache_folder() == tmp_path / ".cache" / "nightforge"


def test_the_cache_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert paths.cache_folder() == tmp_path / "nightforge"
