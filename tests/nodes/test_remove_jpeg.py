"""RemoveJPEGArtifacts with FBCNN's architecture and random weights, put into the model folder as a user would."""

from __future__ import annotations

import inspect
import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import small_networks
import torch
from PIL import Image
from skimage import data

from photokeep_nodes import host, precision, tiled_inference
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes import remove_jpeg
from photokeep_nodes.nodes.remove_jpeg import RemoveJPEGArtifacts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FBCNN = ModelHandle("file:jpeg/fbcnn.safetensors")
BLIND = ModelHandle("file:jpeg/blind.pth")


@pytest.fixture(scope="module", autouse=True)
def model_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("models")
    small_networks.save(small_networks.fbcnn(), folder / "fbcnn.safetensors")
    small_networks.save(small_networks.compact(), folder / "blind.pth")
    with pytest.MonkeyPatch.context() as patch, host.standalone(host.Standalone(device="cpu")):
        patch.setenv("PHOTOKEEP_MODELS", str(folder))
        patch.setenv("PHOTOKEEP_CACHE", str(folder / "cache"))
        yield folder


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Tensor, ...]]:
    """What the network is told of each photo; it runs as ever."""
    seen: list[tuple[torch.Tensor, ...]] = []
    run = tiled_inference.apply_tiled

    def watched(*args: Any, **options: Any) -> torch.Tensor:
        seen.append(options["arguments"])
        return run(*args, **options)

    monkeypatch.setattr(tiled_inference, "apply_tiled", watched)
    return seen


def photo(height: int = 64, width: int = 64) -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[30 : 30 + height, 150 : 150 + width].copy())[None] / 255


def compressed(image: torch.Tensor, quality: int) -> torch.Tensor:
    file = io.BytesIO()
    Image.fromarray((image[0].numpy() * 255).round().astype(np.uint8)).save(file, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(file)))[None] / 255


def clean(image: torch.Tensor, **changes: Any) -> tuple[torch.Tensor, str]:
    inputs = {"model": FBCNN, "when": "always", "quality": "auto", "jpeg_quality": 40, "strength": 1.0, **changes}
    return RemoveJPEGArtifacts().run(image, **inputs)


def advice(*stages: str) -> dict[str, Any]:
    return {"images": [{"recommendation": [{"stage": stage, "reason": ""}]} for stage in stages]}


def test_its_inputs_are_its_arguments() -> None:
    declared = RemoveJPEGArtifacts.INPUT_TYPES()
    arguments = list(inspect.signature(RemoveJPEGArtifacts.run).parameters)[1:]
    assert [*declared["required"], *declared["optional"]] == arguments


def test_the_model_is_asked_once_and_every_tile_is_told(told: list[tuple[torch.Tensor, ...]]) -> None:
    image = photo()
    out, said = clean(image)
    network = small_networks.fbcnn()
    with torch.no_grad():
        predicted = 1.0 - float(network(image.permute(0, 3, 1, 2))[1])
    ((share,),) = told
    assert share.shape == (1,)
    assert float(share) == pytest.approx(predicted, abs=0.01)
    assert said == f"quality {100 * float(share):.0f}, found by fbcnn"
    with torch.no_grad():
        expected = network(image.permute(0, 3, 1, 2), 1.0 - share.view(1, 1))[0].permute(0, 2, 3, 1).clamp(0, 1)
    assert out.is_contiguous()
    torch.testing.assert_close(out, expected, rtol=0, atol=3e-2)  # the CPU may compute in bfloat16


def test_the_model_is_asked_in_the_precision_it_runs_in(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo()
    _, exact = clean(image)
    monkeypatch.setenv("PHOTOKEEP_PRECISION", "")
    monkeypatch.setattr(precision, "cpu_multiplies_bfloat16", lambda: True)
    _, said = clean(image)
    assert abs(int(said.split()[1].rstrip(",")) - int(exact.split()[1].rstrip(","))) <= 2


def test_quality_by_hand(told: list[tuple[torch.Tensor, ...]]) -> None:
    image = photo()
    low, said = clean(image, quality="manual", jpeg_quality=5)
    assert said == "quality 5, set by hand"
    high, _ = clean(image, quality="manual", jpeg_quality=95)
    assert [float(share) for (share,) in told] == pytest.approx([0.05, 0.95])
    assert not torch.equal(low, high)


def test_a_large_photo_is_judged_by_its_middle_on_the_grid(
    told: list[tuple[torch.Tensor, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remove_jpeg, "_REGION", 64)
    image = photo(96, 150)
    clean(image, strength=0.5)
    network = small_networks.fbcnn()
    middle = image.permute(0, 3, 1, 2)[:, :, 16:80, 40:104]
    with torch.no_grad():
        expected = 1.0 - float(network(middle)[1])
    ((share,),) = told
    assert float(share) == pytest.approx(expected, abs=0.01)


def test_strength_blends_with_the_input() -> None:
    image = photo() * 0.5 + 0.25
    whole, _ = clean(image, model=BLIND)
    half, _ = clean(image, model=BLIND, strength=0.5)
    inside = (whole > 0.0) & (whole < 1.0)
    torch.testing.assert_close(half[inside], ((image + whole) / 2)[inside], rtol=0, atol=1e-5)
    untouched, said = clean(image, strength=0.0)
    assert untouched is image
    assert said == "unchanged, the strength is 0"


def test_auto_passes_a_photo_without_blocks_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights are read for it."""
    monkeypatch.setattr(tiled_inference, "apply_tiled", None)
    image = photo(160, 160)
    out, said = clean(image, when="auto")
    assert out is image
    assert said == "unchanged, no JPEG blocks show"
    blocks = compressed(photo(), 20)
    assert clean(blocks, when="auto", analysis=advice("denoise"))[0] is blocks


def test_auto_cleans_where_blocks_show() -> None:
    blocks = compressed(photo(160, 160), 15)
    out, said = clean(blocks, when="auto", model=BLIND)
    assert torch.equal(out, clean(blocks, model=BLIND)[0])
    assert "not told the quality" in said
    image = photo()
    assert not torch.equal(clean(image, when="auto", model=BLIND, analysis=advice("remove_jpeg"))[0], image)


def test_each_photo_of_a_batch_by_itself() -> None:
    image, blocks = photo(160, 160), compressed(photo(160, 160), 15)
    out, said = clean(torch.cat([image, blocks]), when="auto", model=BLIND)
    assert torch.equal(out[:1], image)
    torch.testing.assert_close(out[1:], clean(blocks, model=BLIND)[0], rtol=0, atol=1e-5)
    first, second = said.splitlines()
    assert re.match(r"Photo 1 of 2: unchanged", first)
    assert re.match(r"Photo 2 of 2: cleaned", second)


def test_an_analysis_of_other_photos_is_refused() -> None:
    with pytest.raises(NodeInputError, match="of 2 images, but 1 came in"):
        clean(photo(), when="auto", analysis=advice("", ""))


@pytest.mark.parametrize("size", [(1, 1), (33, 70)])
def test_odd_sizes_are_kept(size: tuple[int, int]) -> None:
    assert clean(photo(*size))[0].shape == (1, *size, 3)


def test_gray_stays_gray() -> None:
    out, _ = clean(photo()[..., :1], quality="manual")
    assert (out - out[..., :1]).abs().max() < 1e-6


def test_a_model_of_another_role_is_refused() -> None:
    with pytest.raises(NodeInputError, match="made for denoise, not for jpeg"):
        clean(photo(), model=ModelHandle("ffdnet-color"))
