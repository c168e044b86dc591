"""Weight files of the user's own: found by name, known by content, refused where they do not serve."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import small_networks
import torch

from photokeep_nodes import host, models, tiled_inference, weights
from photokeep_nodes.errors import NodeInputError, WeightsFormatError, WeightsMissingError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.models import _dropped_in, _network, _spandrel

ROOT = Path(__file__).resolve().parents[2]


def get(role: str, name: str):
    return models.get(ModelHandle(f"file:{role}/{name}"))


# -- names ---------------------------------------------------------------------------------------------------------


def test_files_are_listed_by_their_place_below_the_folder(model_folder: Path) -> None:
    for name in ("b.pth", "A.safetensors", "sub/deeper/c.pt", "d.ckpt", "sub/é.pth"):
        (model_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (model_folder / name).touch()
    for name in ("notes.txt", ".hidden.pth", ".cache/e.pth", "GFPGANv1.4.pth", "a:b.pth", "1/2/3/4/5/f.pth"):
        (model_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (model_folder / name).touch()
    assert _dropped_in.names() == ["A.safetensors", "b.pth", "d.ckpt", "sub/deeper/c.pt", "sub/é.pth"]


@pytest.mark.parametrize("name", ["CAPS.PTH", "Caps.SafeTensors"])
def test_suffixes_may_be_in_capitals(model_folder: Path, name: str) -> None:
    network = small_networks.compact(2)
    small_networks.save(network, model_folder / name.lower()).rename(model_folder / name)
    assert _dropped_in.names() == [name]
    spec = get("upscale", name)
    assert spec.scale == 2
    assert weights.load_module(spec) is not None


def test_a_name_that_json_cannot_carry_is_not_listed(model_folder: Path) -> None:
    try:
        (model_folder / os.fsdecode(b"\xff.pth")).touch()
    except OSError:
        pytest.skip("this file system keeps names as text")
    assert _dropped_in.names() == []


def test_without_a_folder_nothing_is_listed(model_folder: Path) -> None:
    model_folder.rmdir()
    assert _dropped_in.names() == []


def test_a_crowded_folder_is_not_read_to_its_end(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_dropped_in, "_MOST_ENTRIES", 10)
    for number in range(30):
        (model_folder / f"{number}.pth").touch()
    assert len(_dropped_in.names()) == 10
    assert f"{model_folder} holds more than 10 files and folders" in caplog.text


def test_links_in_the_folder_are_followed(model_folder: Path, tmp_path: Path) -> None:
    """Whoever keeps weights on another disk links to them, as for ComfyUI's own loaders."""
    elsewhere = tmp_path / "elsewhere"
    small_networks.save(small_networks.compact(2), elsewhere / "deep" / "large.pth")
    (model_folder / "file.pth").symlink_to(elsewhere / "deep" / "large.pth")
    (model_folder / "sub").symlink_to(elsewhere, target_is_directory=True)
    (model_folder / "broken.pth").symlink_to(elsewhere / "none.pth")
    assert _dropped_in.names() == ["file.pth", "sub/deep/large.pth"]
    for name in _dropped_in.names():
        assert get("upscale", name).scale == 2
    with pytest.raises(WeightsMissingError):
        _dropped_in.find("broken.pth")


def test_links_in_a_circle_end(model_folder: Path, tmp_path: Path) -> None:
    (model_folder / "real").mkdir()
    (model_folder / "real" / "a.pth").touch()
    (model_folder / "real" / "up").symlink_to(model_folder, target_is_directory=True)
    (model_folder / "loop").symlink_to(".", target_is_directory=True)
    (model_folder / "again").symlink_to("real", target_is_directory=True)
    (model_folder / "self").symlink_to("self", target_is_directory=True)
    assert _dropped_in.names() == ["real/a.pth"], "each file once, by the name that is not a link's"
    for number in range(9):  # no circle, but no end either
        (tmp_path / f"{number}").mkdir()
        (tmp_path / f"{number}" / f"{number}.pth").touch()
        (tmp_path / f"{number}" / "next").symlink_to(tmp_path / f"{number + 1}", target_is_directory=True)
    (model_folder / "chain").symlink_to(tmp_path / "0", target_is_directory=True)
    assert _dropped_in.names() == [
        *("chain/0.pth", "chain/next/1.pth", "chain/next/next/2.pth", "chain/next/next/next/3.pth", "real/a.pth")
    ]


def test_a_model_folder_may_be_a_link_itself(
    tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_networks.save(small_networks.compact(2), model_folder / "real.pth")
    (tmp_path / "link").symlink_to(model_folder, target_is_directory=True)
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path / "link"))
    assert _dropped_in.names() == ["real.pth"]
    assert get("upscale", "real.pth").scale == 2


@pytest.mark.parametrize(
    "name",
    [
        *("", "/", "../x.pth", "sub/../../x.pth", "/etc/x.pth", "//x.pth", "./x.pth", "sub//x.pth", "C:/x.pth"),
        *("C:x.pth", "..\\x.pth", "sub\\x.pth", "x.pth\0", "a\0/x.pth", ".x.pth", "x", "x.txt", "x.pth/", "a\nb.pth"),
        *("\udcff.pth", ".pth", "sub/.pth"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused(model_folder: Path, name: str) -> None:
    (model_folder.parent / "x.pth").touch()
    with pytest.raises(NodeInputError, match="cannot be a model file"):
        get("upscale", name)


@pytest.mark.parametrize("model_id", ["file:", "file:upscale", "file:colorize/x.pth", "file:../x.pth"])
def test_an_id_without_a_stage_that_takes_files_is_refused(model_folder: Path, model_id: str) -> None:
    with pytest.raises(NodeInputError):
        models.get(ModelHandle(model_id))


def test_a_missing_file_says_where_it_belongs(model_folder: Path) -> None:
    with pytest.raises(WeightsMissingError, match=r"no model file 'sub/none\.pth'") as caught:
        get("upscale", "sub/none.pth")
    assert str(model_folder) in caught.value.hint
    assert caught.value.exit_code == 3


# -- what a file holds ---------------------------------------------------------------------------------------------


def test_a_file_becomes_a_model(model_folder: Path) -> None:
    path = small_networks.save(small_networks.compact(2), model_folder / "sub" / "2x+mine.pth")
    spec = get("upscale", "sub/2x+mine.pth")
    assert (spec.role, spec.scale, spec.channels, spec.architecture, spec.title) == (
        *("upscale", 2, 3, "Compact"),
        "2x+mine",
    )
    assert spec.weights[0].size_bytes == path.stat().st_size
    assert not spec.weights[0].licence.commercial, "nobody knows"
    assert spec == get("upscale", "sub/2x+mine.pth")
    assert weights.status(spec).state == "installed"
    weights.require([spec])
    assert weights.digest(spec) == spec.weights[0].sha256
    assert models.module_of(spec.network_id) == "photokeep_nodes.models._dropped_in"
    assert spec.weight_bytes == 4 * sum(each.numel() for each in small_networks.compact(2).parameters())


def test_networks_of_one_shape_share_what_is_learnt_of_their_memory(model_folder: Path) -> None:
    small_networks.save(small_networks.compact(2), model_folder / "one.pth")
    small_networks.save(small_networks.compact(2), model_folder / "two.safetensors")
    small_networks.save(small_networks.compact(4), model_folder / "other.pth")
    one, two, other = (get("upscale", name) for name in ("one.pth", "two.safetensors", "other.pth"))
    assert one.network_id == two.network_id != other.network_id
    assert one.id != two.id


def test_spandrel_is_asked_once_and_plans_need_no_torch(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_networks.save(small_networks.compact(2), model_folder / "mine.pth")
    first = get("upscale", "mine.pth")
    monkeypatch.setattr(_spandrel, "identify", None)
    assert get("upscale", "mine.pth") == first
    code = (
        "import sys; from photokeep_nodes import models; from photokeep_nodes.model_spec import ModelHandle;"
        "print(models.get(ModelHandle('file:upscale/mine.pth')).scale, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.split() == ["2", "False"], done.stderr


@pytest.mark.parametrize("spoil", ["not json", "[]", "{}", '{"version": 1}', "5" * 10_000])
def test_a_spoilt_note_is_written_anew(model_folder: Path, spoil: str) -> None:
    small_networks.save(small_networks.compact(2), model_folder / "mine.pth")
    first = get("upscale", "mine.pth")
    (note,) = (host.cache_dir() / "dropped_in").iterdir()
    note.write_text(spoil)
    assert get("upscale", "mine.pth") == first
    assert json.loads(note.read_text())["scale"] == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("purpose", {}),
        ("scale", "2"),
        ("scale", 2.0),
        ("scale", True),
        ("multiple_of", 0),
        ("half", 1),
        ("shape", None),
    ],
)
def test_a_note_with_a_value_that_cannot_be_is_written_anew(model_folder: Path, name: str, value: object) -> None:
    small_networks.save(small_networks.compact(2), model_folder / "mine.pth")
    first = get("upscale", "mine.pth")
    (note,) = (host.cache_dir() / "dropped_in").iterdir()
    whole = json.loads(note.read_text())
    note.write_text(json.dumps(whole | {name: value}))
    assert get("upscale", "mine.pth") == first
    assert json.loads(note.read_text()) == whole


def test_without_a_place_for_notes_it_works_all_the_same(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_networks.save(small_networks.compact(2), model_folder / "mine.pth")
    blocked = model_folder.parent / "file"
    blocked.touch()
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(blocked / "cache"))
    assert get("upscale", "mine.pth").scale == 2


def test_other_bytes_under_the_same_name_are_another_model(model_folder: Path) -> None:
    path = small_networks.save(small_networks.compact(2), model_folder / "mine.pth")
    before = get("upscale", "mine.pth")
    digest = _dropped_in.digest_of("mine.pth")
    path.unlink()
    small_networks.save(small_networks.compact(4), path)
    after = get("upscale", "mine.pth")
    assert (before.scale, after.scale) == (2, 4)
    assert digest == before.weights[0].sha256 != after.weights[0].sha256 == _dropped_in.digest_of("mine.pth")


@pytest.mark.parametrize(
    ("role", "network", "why"),
    [
        ("denoise", small_networks.compact(2), "Compact x2, which enlarges"),
        ("upscale", small_networks.compact(1), "Compact x1, which does not enlarge"),
        ("upscale", small_networks.nafnet(), "NAFNet x1, which does not enlarge"),
    ],
)
def test_a_network_of_another_stage_is_refused_by_name(
    model_folder: Path, role: str, network: torch.nn.Module, why: str
) -> None:
    small_networks.save(network, model_folder / "mine.pth")
    with pytest.raises(NodeInputError, match=why):
        get(role, "mine.pth")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"purpose": "FaceSR"}, "which restores single faces"),
        ({"purpose": "Inpainting"}, "which fills holes"),
        ({"output_channels": 2}, "makes 2 channels of 3"),
        ({"input_channels": 4, "output_channels": 4}, "makes 4 channels of 4"),
        ({"tiling": "INTERNAL"}, "cannot be run in tiles"),
    ],
)
def test_a_network_that_no_stage_can_use_is_refused(model_folder: Path, changes: dict[str, object], why: str) -> None:
    import dataclasses

    small_networks.save(small_networks.compact(1), model_folder / "mine.pth")
    facts = _network.facts_of(_spandrel.identify(small_networks.compact(1).state_dict(), wanted="it"))
    with pytest.raises(NodeInputError, match=why):
        dataclasses.replace(facts, **changes).check_serves("denoise", "mine.pth")  # type: ignore[arg-type]


def test_a_network_whose_authors_want_no_tiles_gets_a_wide_margin() -> None:
    import dataclasses

    facts = _network.facts_of(_spandrel.identify(small_networks.compact(1).state_dict(), wanted="it"))
    plain = facts.traits("denoise")["receptive_field"]
    assert dataclasses.replace(facts, tiling="DISCOURAGED").traits("denoise")["receptive_field"] > plain


@pytest.mark.parametrize(("scale", "published"), [(4, "realesrgan-x4plus"), (2, "realesrgan-x2plus")])
def test_an_esrgan_file_gets_the_context_of_the_published_ones(model_folder: Path, scale: int, published: str) -> None:
    small_networks.save(small_networks.esrgan(scale), model_folder / "mine.pth")
    spec = get("upscale", "mine.pth")
    assert (spec.architecture, spec.scale) == ("ESRGAN", scale)
    assert spec.receptive_field == models.catalogue()[published].receptive_field


def test_what_is_no_network_is_refused(model_folder: Path) -> None:
    safetensors.torch.save_file({"a": torch.zeros(3)}, model_folder / "a.safetensors")
    torch.save({"params": {"a": torch.zeros(3)}}, model_folder / "b.pth")
    (model_folder / "c.pth").write_bytes(b"damaged")
    (model_folder / "d.safetensors").write_bytes(b"\xff" * 100)
    (model_folder / "e.pth").write_bytes(pickle.dumps(os.system, protocol=2))
    (model_folder / "f.pth").touch()
    half = small_networks.save(small_networks.compact(2), model_folder / "g.pth")
    half.write_bytes(half.read_bytes()[:-500])
    state = small_networks.compact(2).state_dict()
    torch.save(state | {"body.0.bias": torch.full((8,), torch.nan)}, model_folder / "h.pth")
    for name in ("a.safetensors", "b.pth", "c.pth", "d.safetensors", "e.pth", "f.pth", "g.pth", "h.pth"):
        with pytest.raises(WeightsFormatError) as caught:
            get("upscale", name)
        assert name in caught.value.message
    assert not (host.cache_dir() / "dropped_in").exists(), "a refusal is not noted: a newer spandrel may know it"


# -- running it ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize(
    ("role", "network"), [("upscale", small_networks.compact(2)), ("deblur", small_networks.nafnet())]
)
def test_it_computes_what_the_network_does(
    model_folder: Path, suffix: str, role: str, network: torch.nn.Module
) -> None:
    small_networks.save(network, model_folder / f"mine.{suffix}")
    image = torch.rand(2, 3, 48, 64, generator=torch.Generator().manual_seed(1))
    with host.standalone(host.Standalone(device="cpu")):
        out = tiled_inference.apply_tiled(get(role, f"mine.{suffix}"), image)
    with torch.no_grad():
        torch.testing.assert_close(out, network(image), rtol=0, atol=1e-5)


def test_a_gray_network_keeps_the_photos_colours(model_folder: Path) -> None:
    network = small_networks.compact(1, channels=1)
    small_networks.save(network, model_folder / "gray.pth")
    spec = get("denoise", "gray.pth")
    assert spec.channels == 1
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with host.standalone(host.Standalone(device="cpu")):
        out = tiled_inference.apply_tiled(spec, image)
    assert out.shape == image.shape
    torch.testing.assert_close(out - out.mean(1, keepdim=True), image - image.mean(1, keepdim=True), rtol=0, atol=1e-4)


def test_a_network_that_wants_squares_gets_them() -> None:
    from types import SimpleNamespace

    from photokeep_nodes._arch.spandrel_network import SpandrelNetwork

    sides: list[tuple[int, int]] = []

    def call(_network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
        sides.append((image.shape[-2], image.shape[-1]))
        return image.sub_(1.0).add_(1.0)

    descriptor = SimpleNamespace(
        model=torch.nn.Identity(),
        scale=1,
        _call_fn=call,
        size_requirements=SimpleNamespace(square=True, minimum=1, multiple_of=1),
    )
    image = torch.rand(2, 3, 8, 12)
    before = image.clone()
    assert SpandrelNetwork(descriptor)(image).shape == image.shape
    assert sides == [(12, 12), (12, 12)]
    assert torch.equal(image, before), "a network may not change the photo"
