"""What ``PHOTOKEEP_*`` variables may say."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headless.settings import Settings, check_device, parse_size, require_device
from photokeep_nodes.errors import UsageError

VARIABLES = ("DEVICE", "VRAM_BUDGET", "CACHE", "CACHE_LIMIT", "OUTPUT")


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(f"PHOTOKEEP_{name}", raising=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1", 1),
        ("1000000", 1_000_000),
        ("8G", 8 * 2**30),
        ("8g", 8 * 2**30),
        ("8GB", 8 * 2**30),
        ("8 GiB", 8 * 2**30),
        (" 512 MiB ", 512 * 2**20),
        ("0.5K", 512),
        ("12.5GiB", 25 * 2**29),
        ("2T", 2 * 2**40),
        ("100b", 100),
        ("9007199254740993", 2**53 + 1),
    ],
)
def test_sizes(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@given(st.integers(1, 2**60), st.sampled_from(["", "k", "M", "g", "T"]), st.sampled_from(["", "B", "iB", "ib"]))
def test_every_whole_number_of_every_unit_is_exact(number: int, unit: str, tail: str) -> None:
    factor = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}[unit.lower()]
    assert parse_size(f"{number}{unit}{tail}") == number * factor


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "G",
        "0",
        "0G",
        "0.0000001K",
        "-1",
        "+1",
        "1e9",
        "1,5G",
        "1.G",
        ".5G",
        "8 G 1",
        "eight",
        "8P",
        "nan",
        "٣",
        "9" * 400,
    ],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="is no size") as caught:
        parse_size(text)
    assert caught.value.exit_code == 2
    assert "8G" in caught.value.hint


@pytest.mark.parametrize("name", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:17"])
def test_devices(name: str) -> None:
    assert check_device(name) == name


@pytest.mark.parametrize(
    "name", ["", "CPU", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0", "cuda:0 ", "cuda:0\n", "cuda:٣", "cuda:9999"]
)
def test_what_is_no_device(name: str) -> None:
    with pytest.raises(UsageError, match="is no device"):
        check_device(name)


def test_defaults() -> None:
    settings = Settings.from_environment()
    assert settings.device == "auto"
    assert settings.vram_budget_bytes is None
    assert settings.cache_limit_bytes == 20 * 2**30
    assert settings.output_dir == Path("output")
    assert settings.cache_dir.name == "photokeep"


def test_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHOTOKEEP_DEVICE", "cuda:1")
    monkeypatch.setenv("PHOTOKEEP_VRAM_BUDGET", "6G")
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("PHOTOKEEP_CACHE_LIMIT", "500M")
    monkeypatch.setenv("PHOTOKEEP_OUTPUT", "~/restored")
    monkeypatch.setenv("PHOTOKEEP_PRECISION", "Full")
    assert Settings.from_environment() == Settings(
        device="cuda:1",
        vram_budget_bytes=6 * 2**30,
        cache_dir=tmp_path / "c",
        cache_limit_bytes=500 * 2**20,
        output_dir=Path.home() / "restored",
        precision="full",
    )


def test_set_to_nothing_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Settings.from_environment()
    for name in VARIABLES:
        monkeypatch.setenv(f"PHOTOKEEP_{name}", "")
    assert Settings.from_environment() == expected


@pytest.mark.parametrize(
    ("name", "value"), [("DEVICE", "toaster"), ("VRAM_BUDGET", "lots"), ("CACHE_LIMIT", "0"), ("VRAM_BUDGET", "-1G")]
)
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"PHOTOKEEP_{name}", value)
    with pytest.raises(UsageError, match=f"PHOTOKEEP_{name}: '{value}' is no") as caught:
        Settings.from_environment()
    assert caught.value.hint
    twin = pickle.loads(pickle.dumps(caught.value))
    assert str(twin) == str(caught.value)


def test_a_device_that_is_not_there_is_refused_before_any_work() -> None:
    require_device("auto")
    require_device("cpu")
    with pytest.raises(UsageError, match="there is no device cuda:97") as caught:
        require_device("cuda:97")
    assert caught.value.exit_code == 2
