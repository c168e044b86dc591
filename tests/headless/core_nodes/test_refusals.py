"""What the core nodes refuse: in words, before memory is asked for, and leaving their inputs as they were."""

from __future__ import annotations

import itertools

import pytest
import torch
from core_node_cases import Tensor, cases

from headless import core_nodes
from headless.core_nodes import _checks
from photokeep_nodes.errors import NodeInputError

CLASSES = core_nodes.node_classes()
IMAGE = torch.rand(1, 8, 9, 3)
MASK = torch.rand(1, 8, 9)


def run(node: str, **inputs):
    answer = CLASSES[node]().run(**inputs)
    return answer["result"] if isinstance(answer, dict) else answer


HUGE = {
    "EmptyImage": {"width": 16384, "height": 16384, "batch_size": 4096, "color": 0},
    "SolidMask": {"value": 1.0, "width": 10**9, "height": 10**9},
    "RepeatImageBatch": {"image": IMAGE, "amount": 10**9},
    "ImageScale": {"image": IMAGE, "upscale_method": "area", "width": 10**6, "height": 10**6, "crop": "disabled"},
    "ImageScaleBy": {"image": IMAGE, "upscale_method": "lanczos", "scale_by": 1e6},
    "ImageScaleToTotalPixels": {"image": IMAGE, "upscale_method": "bicubic", "megapixels": 1e6, "resolution_steps": 1},
    "ImageScaleToMaxDimension": {"image": IMAGE, "upscale_method": "area", "largest_size": 10**6},
    "ImagePadForOutpaint": {"image": IMAGE, "left": 10**6, "top": 10**6, "right": 0, "bottom": 0, "feathering": 0},
    "ResizeAndPadImage": {
        "image": IMAGE,
        "target_width": 10**6,
        "target_height": 10**6,
        "padding_color": "white",
        "interpolation": "area",
    },
    "ResizeImageMaskNode": {
        "input": MASK,
        "resize_type": "scale by multiplier",
        "resize_type.multiplier": 1e6,
        "scale_method": "area",
    },
}


@pytest.mark.parametrize("node", HUGE)
def test_absurd_sizes_are_refused_before_memory_is_asked_for(node):
    with pytest.raises(NodeInputError, match=r"the result would have .* megapixels|the result would have .* GB"):
        run(node, **HUGE[node])


def test_what_does_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr(_checks, "_free_bytes", lambda: 10_000)
    with pytest.raises(NodeInputError, match=r"0\.0 GB of memory are free"):
        run("EmptyImage", width=64, height=64)
    run("EmptyImage", width=16, height=16)


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("EmptyImage", {"width": 0, "height": 4}),
        ("EmptyImage", {"width": 4, "height": 4, "batch_size": 0}),
        ("SolidMask", {"value": 1.0, "width": -1, "height": 4}),
        ("RepeatImageBatch", {"image": IMAGE, "amount": 0}),
        ("ImageScaleBy", {"image": IMAGE, "upscale_method": "area", "scale_by": 0.01}),
        ("ImageScaleBy", {"image": IMAGE, "upscale_method": "area", "scale_by": float("nan")}),
        ("ImageScaleBy", {"image": IMAGE, "upscale_method": "sharp", "scale_by": 1.0}),
        ("ImageScale", {"image": IMAGE, "upscale_method": "area", "width": -1, "height": 4, "crop": "disabled"}),
        ("ImageScale", {"image": IMAGE, "upscale_method": "area", "width": 4, "height": 4, "crop": "left"}),
        ("ImageScaleToTotalPixels", {"image": IMAGE, "upscale_method": "area", "megapixels": -1.0}),
        (
            "ImageScaleToTotalPixels",
            {"image": IMAGE, "upscale_method": "area", "megapixels": 1.0, "resolution_steps": 0},
        ),
        ("ImageScaleToMaxDimension", {"image": IMAGE, "upscale_method": "area", "largest_size": 0}),
        ("ImageCrop", {"image": IMAGE, "width": 0, "height": 4, "x": 0, "y": 0}),
        ("ImageCrop", {"image": IMAGE, "width": 4, "height": 4, "x": -1, "y": 0}),
        ("ImageCropV2", {"image": IMAGE, "crop_region": "0,0,1,1"}),
        ("ImageCropV2", {"image": IMAGE, "crop_region": {"x": "0"}}),
        ("ImageFlip", {"image": IMAGE, "flip_method": "z"}),
        ("ImageRotate", {"image": IMAGE, "rotation": "45 degrees"}),
        ("ImagePadForOutpaint", {"image": IMAGE, "left": -8, "top": 0, "right": 0, "bottom": 0, "feathering": 0}),
        ("ImageBlur", {"image": IMAGE, "blur_radius": 8, "sigma": 1.0}),
        ("ImageBlur", {"image": IMAGE, "blur_radius": 2, "sigma": 0.0}),
        ("ImageSharpen", {"image": IMAGE, "sharpen_radius": -1, "sigma": 1.0, "alpha": 1.0}),
        ("ImageBlend", {"image1": IMAGE, "image2": IMAGE, "blend_factor": 0.5, "blend_mode": "burn"}),
        (
            "ImageBlend",
            {"image1": IMAGE.repeat(2, 1, 1, 1), "image2": IMAGE.repeat(3, 1, 1, 1), "blend_factor": 0.5}
            | {"blend_mode": "normal"},
        ),
        ("ImageBlend", {"image1": IMAGE, "image2": IMAGE[..., :1], "blend_factor": 0.5, "blend_mode": "normal"}),
        ("ImageBatch", {"image1": IMAGE, "image2": IMAGE[..., :1]}),
        ("BatchImagesNode", {}),
        ("BatchMasksNode", {}),
        ("ImageFromBatch", {"image": IMAGE, "batch_index": 0, "length": 0}),
        ("ImageToMask", {"image": IMAGE, "channel": "alpha"}),
        ("ImageColorToMask", {"image": IMAGE[..., :1], "color": 0}),
        ("CropMask", {"mask": MASK, "x": 9, "y": 0, "width": 1, "height": 1}),
        ("MaskComposite", {"destination": MASK, "source": MASK, "x": 0, "y": 0, "operation": "nand"}),
        (
            "MaskComposite",
            {"destination": MASK.repeat(3, 1, 1), "source": MASK.repeat(2, 1, 1), "x": 0, "y": 0, "operation": "or"},
        ),
        ("FeatherMask", {"mask": MASK, "left": -1, "top": 0, "right": 0, "bottom": 0}),
        ("ResizeImageMaskNode", {"input": IMAGE, "resize_type": "guess", "scale_method": "area"}),
        ("ResizeImageMaskNode", {"input": IMAGE, "resize_type": "scale width", "scale_method": "area"}),
        ("ResizeImageMaskNode", {"resize_type": "scale width", "resize_type.width": 4, "scale_method": "area"}),
        ("ComfyNumberConvert", {"value": "twelve"}),
        ("ComfyNumberConvert", {"value": ""}),
        ("ComfyNumberConvert", {"value": "inf"}),
        ("ComfyNumberConvert", {"value": float("nan")}),
        ("ComfyNumberConvert", {"value": 10**400}),
        ("ComfyNumberConvert", {"value": None}),
        ("ComfyNotNode", {"value": IMAGE}),
        ("ResolutionSelector", {"aspect_ratio": "5:4", "megapixels": 1.0, "multiple": 8}),
        ("ResolutionSelector", {"aspect_ratio": "1:1 (Square)", "megapixels": float("inf"), "multiple": 8}),
        ("StringReplace", {"string": "a" * 10_000, "find": "", "replace": "b" * 10_000}),
        ("StringConcatenate", {"string_a": "a" * 6_000_000, "string_b": "b" * 6_000_000, "delimiter": ""}),
        ("StringTrim", {"string": "a", "mode": "Middle"}),
        ("ImageUpscaleWithModel", {"upscale_model": "x4", "image": IMAGE}),
    ],
)
def test_values_that_make_no_sense_are_refused(node, inputs):
    with pytest.raises(NodeInputError):
        run(node, **inputs)


BAD = {
    "whole numbers": (IMAGE * 255).to(torch.uint8),
    "not a number": torch.full_like(IMAGE, float("nan")),
    "one picture without its batch": torch.rand(2, 2),
    "five channels": torch.rand(1, 4, 4, 5),
    "no pixels": torch.rand(1, 0, 4, 3),
    "no picture": torch.rand(0, 4, 4, 3),
    "text": "photo.jpg",
    "nothing": None,
}
BAD_MASKS = {
    "whole numbers": (MASK * 255).to(torch.int64),
    "yes and no": MASK > 0.5,
    "not a number": torch.full_like(MASK, float("nan")),
    "an image": IMAGE,
    "no pixels": torch.rand(1, 4, 0),
    "a list": [[0.0, 1.0]],
    "nothing": None,
}


def _first_of_each_socket():
    """For each node and each of its sockets for pictures a working call, with the socket's name."""
    seen = set()
    for case in cases():
        for name, value in case.inputs.items():
            if isinstance(value, Tensor) and (case.node, name) not in seen and case.node != "PreviewAny":
                seen.add((case.node, name))
                yield pytest.param(case, name, bool(value.channels), id=f"{case.node}-{name}")


@pytest.mark.parametrize(("case", "socket", "is_image"), [*_first_of_each_socket()])
def test_what_is_no_picture_is_refused_at_every_socket(case, socket, is_image):
    inputs = case.call(torch.from_numpy)
    optional = CLASSES[case.node].INPUT_TYPES().get("optional", {})
    for kind, bad in (BAD if is_image else BAD_MASKS).items():
        if case.node == "ResizeImageMaskNode" and kind in {"one picture without its batch", "an image"}:
            continue  # it takes either
        if bad is None and (socket in optional or "." in socket):
            continue
        with pytest.raises(NodeInputError) as caught:
            run(case.node, **{**inputs, socket: bad})
        assert caught.value.message, kind
        assert caught.value.hint, kind


def test_inputs_are_left_as_they_were():
    """What one node changed in place, another one that takes the same picture would see."""
    for _, group in itertools.groupby(cases(), key=lambda case: case.node):
        case = next(each for each in group)
        if case.node.startswith("Load"):
            continue
        inputs = case.call(torch.from_numpy)
        before = {name: value.clone() for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        for output in run(case.node, **inputs):
            if isinstance(output, torch.Tensor):
                assert output.dtype == torch.float32
                assert not output.requires_grad
        for name, value in before.items():
            assert torch.equal(inputs[name], value), f"{case.node}.{name}"


def test_a_link_may_put_the_source_left_of_and_above_the_picture():
    """The host's own node fails there: no widget gives it a negative number."""
    source = torch.ones(1, 4, 4, 3)
    (pasted,) = run("ImageCompositeMasked", destination=IMAGE, source=source, x=-2, y=-1, resize_source=False)
    expected = IMAGE.clone()
    expected[:, :3, :2] = 1.0
    assert torch.equal(pasted, expected)
    (mask,) = run("MaskComposite", destination=MASK, source=torch.ones(1, 4, 4), x=-2, y=-1, operation="add")
    assert torch.equal(mask, torch.where(expected[..., 0] == 1.0, 1.0, MASK))
    (same,) = run("ImageCompositeMasked", destination=IMAGE, source=source, x=-9, y=0, resize_source=False)
    assert torch.equal(same, IMAGE)


def test_gray_pictures_keep_their_shape_with_lanczos():
    """The host loses the channel there, and swaps the sides."""
    (large,) = run("ImageScale", image=IMAGE[..., :1], upscale_method="lanczos", width=20, height=10, crop="disabled")
    assert large.shape == (1, 10, 20, 1)


def test_a_mask_without_a_batch_gets_one():
    (inverted,) = run("InvertMask", mask=MASK[0])
    assert torch.equal(inverted, 1.0 - MASK)


def test_only_the_side_that_is_taken_is_asked_for():
    switch = CLASSES["ComfySwitchNode"]
    assert switch.check_lazy_status(switch=True) == ["on_true"]
    assert switch.check_lazy_status(switch=False) == ["on_false"]
    assert switch.check_lazy_status(switch=False, on_false=0) == []
    assert switch().run(switch=True, on_true=IMAGE) == (IMAGE,)


def test_growing_stops_where_nothing_is_left_to_grow():
    (grown,) = run("GrowMask", mask=MASK, expand=10**9, tapered_corners=True)
    assert torch.equal(grown, MASK.amax().expand_as(MASK))
    (shrunk,) = run("GrowMask", mask=MASK, expand=-(10**9), tapered_corners=False)
    assert torch.equal(shrunk, MASK.amin().expand_as(MASK))
