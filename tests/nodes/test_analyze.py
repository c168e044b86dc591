"""Analyze with the bundled detector."""

from __future__ import annotations

import inspect
import json

import pytest
import torch
from skimage import data

from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.analyze import Analyze

DETECTOR = ModelHandle("retinaface-mobilenet")


def astronaut() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[:300, :300].copy())[None] / 255


def test_its_inputs_are_its_arguments() -> None:
    declared = [*Analyze.INPUT_TYPES()["required"], *Analyze.INPUT_TYPES()["optional"]]
    assert declared == list(inspect.signature(Analyze.run).parameters)[1:]
    assert len(Analyze.RETURN_TYPES) == len(Analyze.RETURN_NAMES) == len(Analyze.OUTPUT_TOOLTIPS) == 3


def test_a_face_is_found_marked_and_reported() -> None:
    image = astronaut()
    analysis, report, preview = Analyze().run(image, DETECTOR)
    assert json.loads(json.dumps(analysis)) == analysis
    (found,) = analysis["images"]
    (face,) = found["faces"]
    x0, y0, x1, y1 = face["box"]
    assert x0 < 225 < x1
    assert y0 < 115 < y1
    assert all(x0 < x < x1 and y0 < y < y1 for x, y in face["landmarks"])
    assert "Faces: 1" in report
    assert preview.shape == image.shape
    assert preview.dtype == torch.float32
    edge = (preview - image).abs()[0, round(y0), round(x0) : round(x1)].amax(dim=-1)
    assert edge.max() > 0.2  # the box
    assert (preview - image)[0, 220:].abs().max() < 1 / 255


def test_without_a_detector_nothing_is_loaded_or_drawn() -> None:
    image = astronaut()
    analysis, report, preview = Analyze().run(image)
    assert analysis["images"][0]["faces_checked"] is False
    assert "connect a face detector" in report
    assert torch.equal(preview, image)


def test_a_batch_is_analysed_photo_by_photo() -> None:
    batch = torch.cat((astronaut(), astronaut().mean(-1, keepdim=True).expand(-1, -1, -1, 3) * 0.9))
    analysis, report, preview = Analyze().run(batch, DETECTOR)
    assert [found["tone"] for found in analysis["images"]] == ["colour", "gray"]
    assert "Photo 2 of 2" in report
    assert preview.shape == batch.shape


def test_gray_and_alpha_images_are_taken() -> None:
    image = astronaut()[:, :120, :120]
    assert Analyze().run(image[..., :1])[0]["images"][0]["tone"] == "gray"
    with_alpha = torch.cat((image, torch.ones_like(image[..., :1])), -1)
    analysis, _, preview = Analyze().run(with_alpha)
    assert analysis["images"][0]["tone"] == "colour"
    assert preview.shape[-1] == 3


def test_another_models_handle_is_refused() -> None:
    with pytest.raises(NodeInputError, match="not for face detect"):
        Analyze().run(astronaut(), ModelHandle("ffdnet-color"))
    with pytest.raises(NodeInputError, match="handle"):
        Analyze().run(astronaut(), "retinaface")  # type: ignore[arg-type]


def test_something_else_than_an_image_is_refused() -> None:
    with pytest.raises(NodeInputError, match="image"):
        Analyze().run(torch.zeros(3, 20, 20))


def test_it_can_be_interrupted() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with host.standalone(host.Standalone(check_interrupted=stop)), pytest.raises(KeyboardInterrupt):
        Analyze().run(astronaut())
