"""What ComfyUI's own nodes are asked in proving that ours give the same.

The host's nodes are run over the same table (``tests/data/make_core_nodes.py``, and live in ``tests/comfyui``) as ours,
so it needs nothing of Photokeep's. Inputs follow from their seed alone.
"""

from __future__ import annotations

import hashlib
import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
BLENDS = ("normal", "multiply", "screen", "overlay", "soft_light", "difference")
_RESAMPLING = frozenset(
    {
        *("ImageScale", "ImageScaleBy", "ImageScaleToTotalPixels", "ImageScaleToMaxDimension", "ResizeAndPadImage"),
        *("ResizeImageMaskNode", "ImageBlend", "ImageCompositeMasked", "JoinImageWithAlpha", "ImageBatch"),
        *("BatchImagesNode", "BatchMasksNode"),
    }
)
OPERATIONS = ("multiply", "add", "subtract", "and", "or", "xor")


@dataclass(frozen=True)
class Tensor:
    """A made-up image (B, H, W, C), or mask (B, H, W) without ``channels``; smooth, with noise on it.

    Attributes:
        eight_bits: whether its values are multiples of 1/255, as a photo's are.
        binary: whether it is 0 or 1, in blots.
    """

    batch: int
    height: int
    width: int
    channels: int = 0
    seed: int = 0
    eight_bits: bool = False
    binary: bool = False

    def make(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Its values: of integers alone, so that they are the same on every machine."""
        count = self.batch * self.height * self.width * max(1, self.channels)
        order = np.arange(count, dtype=np.uint64) + np.uint64(1_000_003 * (self.seed + 1))
        noise = (order * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)) >> np.uint64(33)
        place = np.indices((self.batch, self.height, self.width, max(1, self.channels)), dtype=np.uint64)
        slope = place[1] * np.uint64(37) + place[2] * np.uint64(53) + place[3] * np.uint64(191) + place[0]
        mixed = (slope * np.uint64(4096) + noise.reshape(place.shape[1:]) % np.uint64(90_000)) % np.uint64(1 << 20)
        values = mixed.astype(np.float32) / np.float32((1 << 20) - 1)
        if self.eight_bits:
            values = np.floor(values * np.float32(255.99)).astype(np.float32) / np.float32(255)
        if self.binary:
            values = ((place[1] // np.uint64(4) + place[2] // np.uint64(5)) % np.uint64(3) == 0).astype(np.float32)
        return values if self.channels else values[..., 0]


@dataclass(frozen=True)
class Case:
    """One call of one node.

    Attributes:
        node: its class type.
        inputs: values, and ``Tensor``s to be made; dynamic inputs under their flat names.
        tolerance: how far a result may be off, where it is not the same to the last bit; see where it is set.
    """

    node: str
    inputs: dict[str, Any] = field(default_factory=dict)
    tolerance: float = 0.0

    @property
    def resamples(self) -> bool:
        """Whether it calls kernels of torch's that round otherwise on a CPU with other instructions."""
        return self.node in _RESAMPLING

    @property
    def name(self) -> str:
        """Short and the same in each run."""
        digest = hashlib.sha256(repr((self.node, sorted(self.inputs.items(), key=lambda each: each[0]))).encode())
        return f"{self.node}-{digest.hexdigest()[:10]}"

    def call(self, make: Callable[[np.ndarray[Any, Any]], Any]) -> dict[str, Any]:
        """Its inputs with the tensors made, by the framework's own ``make``."""
        return {name: make(value.make()) if isinstance(value, Tensor) else value for name, value in self.inputs.items()}


PHOTO = Tensor(1, 37, 53, 3, seed=1, eight_bits=True)
PAIR = Tensor(2, 24, 31, 3, seed=2)
CLEAR = Tensor(1, 24, 31, 4, seed=3)
TALL = Tensor(1, 45, 20, 3, seed=4)
MASK = Tensor(1, 24, 31, seed=5)
BLOTS = Tensor(2, 24, 31, seed=6, binary=True)
SMALL = Tensor(1, 9, 12, seed=7)
LARGE = Tensor(1, 50, 60, seed=8)


def cases() -> Iterator[Case]:
    """Every case that the host answers; what it cannot be asked has tests of its own."""
    yield from _loads()
    yield from _scales()
    yield from _resizes()
    yield from _transforms()
    yield from _filters()
    yield from _composites()
    yield from _masks()
    yield from _batches()
    yield from _values()
    yield from _texts()


def write_pictures(folder: Path) -> None:
    """Write the picture files that the cases of ``LoadImage`` name: those that ComfyUI 0.33 reads as older ones do."""
    from PIL import Image

    colour = _bytes(Tensor(1, 19, 23, 3, seed=21))
    clear = _bytes(Tensor(1, 19, 23, 4, seed=22))
    Image.fromarray(colour).save(folder / "rgb.png")
    Image.fromarray(clear).save(folder / "rgba.png")
    Image.fromarray(colour).save(folder / "rgb.tif")
    Image.fromarray(clear).save(folder / "rgba.tif")
    palette = Image.fromarray(colour).quantize(16)
    palette.save(folder / "palette.png")
    palette.save(folder / "palette_clear.png", transparency=3)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(colour).save(folder / "turned.png", exif=turned)
    frames = [Image.fromarray(_bytes(Tensor(1, 19, 23, 3, seed=seed))) for seed in (23, 24, 25)]
    frames[0].save(folder / "animated.png", save_all=True, append_images=frames[1:])
    frames[0].save(folder / "animated.webp", save_all=True, append_images=frames[1:], lossless=True)


def _bytes(tensor: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return (tensor.make()[0] * np.float32(255)).astype(np.uint8)


def _loads() -> Iterator[Case]:
    for name in (
        *("rgb.png", "rgba.png", "rgb.tif", "rgba.tif", "palette.png", "palette_clear.png", "turned.png"),
        *("animated.png", "animated.webp"),
    ):
        yield Case("LoadImage", {"image": name})
        for channel in ("alpha", "red", "green", "blue"):
            yield Case("LoadImageMask", {"image": name, "channel": channel})
    yield Case("LoadImage", {"image": "rgba.png [input]"})


@dataclass(frozen=True)
class SaveCase:
    """Pictures that are saved; the cases share a folder, in their order."""

    name: str
    picture: Tensor
    prefix: str
    prompt: dict[str, Any] | None = None
    extra_pnginfo: dict[str, Any] | None = None


SAVES = (
    SaveCase("save-first", Tensor(2, 9, 11, 3, seed=41), "ComfyUI"),
    SaveCase("save-next", Tensor(1, 9, 11, 3, seed=42), "ComfyUI"),
    SaveCase("save-longer-name", Tensor(1, 9, 11, 3, seed=43), "ComfyUI_more"),
    SaveCase("save-after-longer-name", Tensor(1, 9, 11, 3, seed=44), "ComfyUI"),
    SaveCase("save-clear", Tensor(1, 9, 11, 4, seed=45), "album/%width%x%height%"),
    SaveCase("save-batch-number", Tensor(2, 9, 11, 3, seed=46), "a_%batch_num%_b"),
    SaveCase("save-unknown-word", Tensor(1, 9, 11, 3, seed=47), "%KSampler.seed%"),
    SaveCase(
        "save-workflow", Tensor(1, 9, 11, 3, seed=48), "with", {"1": {"class_type": "Ä"}}, {"workflow": {"nodes": []}}
    ),
)


@dataclass(frozen=True)
class UpscaleCase:
    """A photo through a made-up network.

    Attributes:
        network: name of its file, see ``write_networks``.
        photo: what it enlarges.
    """

    network: str
    photo: Tensor

    @property
    def name(self) -> str:
        """Short and the same in each run."""
        return f"upscale-{self.network}-{self.photo.batch}x{self.photo.height}x{self.photo.width}"


UPSCALES = (
    UpscaleCase("compact_x2.pth", Tensor(2, 33, 41, 3, seed=31)),
    UpscaleCase("compact_x2.pth", Tensor(1, 530, 700, 3, seed=32)),
    UpscaleCase("compact_x2.pth", Tensor(1, 513, 512, 3, seed=33)),
    UpscaleCase("compact_x2.pth", Tensor(1, 1025, 40, 3, seed=34)),
    UpscaleCase("esrgan_x2.pth", Tensor(1, 31, 45, 3, seed=35)),
    UpscaleCase("esrgan_x2.pth", Tensor(1, 521, 99, 3, seed=36)),
    UpscaleCase("compact_x1.pth", Tensor(1, 40, 41, 3, seed=37)),
)


def write_networks(folder: Path) -> None:
    """Write small networks of made-up weights, as spandrel knows them."""
    import torch
    from spandrel.architectures.Compact import Compact
    from spandrel.architectures.ESRGAN import ESRGAN

    networks = {
        "compact_x2.pth": Compact(num_feat=8, num_conv=1, upscale=2),
        "compact_x1.pth": Compact(num_feat=8, num_conv=1, upscale=1),
        # One that folds the photo, so that it takes even sides only.
        "esrgan_x2.pth": ESRGAN(num_filters=8, num_blocks=1, scale=2, shuffle_factor=2),
    }
    for seed, (name, network) in enumerate(networks.items()):
        state = {}
        for place, (key, tensor) in enumerate(sorted(network.state_dict().items())):
            made = Tensor(1, 1, tensor.numel(), seed=100 * seed + place).make().reshape(tensor.shape)
            state[key] = torch.from_numpy((made - np.float32(0.5)) * np.float32(0.5))
        torch.save(state, folder / name)


def _scales() -> Iterator[Case]:
    sizes = ((20, 30), (106, 74), (53, 37), (64, 0), (0, 50), (0, 0), (1, 1), (31, 90))
    for method, (width, height), crop in itertools.product(METHODS, sizes, ("disabled", "center")):
        if crop == "center" and (width == 0 or height == 0):
            continue
        for image in (PHOTO, PAIR) if (width, height) in {(20, 30), (106, 74)} else (PHOTO,):
            inputs = {"image": image, "upscale_method": method, "width": width, "height": height, "crop": crop}
            yield Case("ImageScale", inputs)
    for method, image in itertools.product(METHODS, (CLEAR, TALL)):
        inputs = {"image": image, "upscale_method": method, "width": 40, "height": 33, "crop": "center"}
        yield Case("ImageScale", inputs)
    for method, factor in itertools.product(METHODS, (0.1, 0.5, 0.77, 1.0, 1.5, 2.0)):
        yield Case("ImageScaleBy", {"image": PHOTO, "upscale_method": method, "scale_by": factor})
    for method, (megapixels, steps) in itertools.product(METHODS, ((0.01, 1), (0.01, 8), (0.02, 13))):
        inputs = {"image": TALL, "upscale_method": method, "megapixels": megapixels, "resolution_steps": steps}
        yield Case("ImageScaleToTotalPixels", inputs)
    for method, image, size in itertools.product(METHODS, (PHOTO, TALL, Tensor(1, 16, 16, 3)), (10, 64)):
        yield Case("ImageScaleToMaxDimension", {"image": image, "upscale_method": method, "largest_size": size})
    for method, colour, size in itertools.product(METHODS, ("white", "black"), ((40, 40), (25, 70))):
        inputs = {"target_width": size[0], "target_height": size[1], "padding_color": colour, "interpolation": method}
        yield Case("ResizeAndPadImage", {"image": PHOTO, **inputs})
    yield Case(
        "ResizeAndPadImage",
        {"image": CLEAR, "target_width": 40, "target_height": 40, "padding_color": "black", "interpolation": "area"},
    )


def _resizes() -> Iterator[Case]:
    ways: tuple[dict[str, Any], ...] = (
        *({"resize_type": "scale dimensions", "width": w, "height": h, "crop": crop}
          for (w, h), crop in itertools.product(((20, 30), (64, 0), (0, 50), (0, 0)), ("disabled", "center"))
          if crop == "disabled" or (w and h)),
        *({"resize_type": "scale by multiplier", "multiplier": factor} for factor in (0.4, 1.7)),
        {"resize_type": "scale longer dimension", "longer_size": 40},
        {"resize_type": "scale shorter dimension", "shorter_size": 40},
        {"resize_type": "scale width", "width": 40},
        {"resize_type": "scale height", "height": 40},
        {"resize_type": "scale total pixels", "megapixels": 0.01},
        {"resize_type": "match size", "match": PAIR, "crop": "center"},
        {"resize_type": "match size", "match": SMALL, "crop": "disabled"},
        *({"resize_type": "scale to multiple", "multiple": multiple} for multiple in (1, 8, 16, 7, 64)),
    )  # fmt: skip
    for picture, way, method in itertools.product((PHOTO, TALL, MASK, BLOTS), ways, METHODS):
        if method != "area" and picture in (TALL, BLOTS):
            continue
        flat = {name if name == "resize_type" else f"resize_type.{name}": value for name, value in way.items()}
        yield Case("ResizeImageMaskNode", {"input": picture, **flat, "scale_method": method})


def _transforms() -> Iterator[Case]:
    for width, height, x, y in ((10, 12, 0, 0), (10, 12, 5, 7), (512, 512, 20, 20), (8, 8, 999, 3), (8, 8, 3, 999)):
        yield Case("ImageCrop", {"image": PAIR, "width": width, "height": height, "x": x, "y": y})
        yield Case("ImageCropV2", {"image": CLEAR, "crop_region": {"x": x, "y": y, "width": width, "height": height}})
    for way in ("x-axis: vertically", "y-axis: horizontally"):
        yield Case("ImageFlip", {"image": PAIR, "flip_method": way})
    for turn in ("none", "90 degrees", "180 degrees", "270 degrees"):
        yield Case("ImageRotate", {"image": PAIR, "rotation": turn})
    margins = ((8, 0, 0, 0), (0, 8, 0, 0), (0, 0, 16, 0), (0, 0, 0, 8), (8, 8, 8, 8), (0, 0, 0, 0), (3, 5, 0, 7))
    for (left, top, right, bottom), feathering in itertools.product(margins, (0, 1, 5, 11, 12, 40)):
        inputs = {"left": left, "top": top, "right": right, "bottom": bottom, "feathering": feathering}
        yield Case("ImagePadForOutpaint", {"image": PAIR, **inputs})
    yield Case("ImagePadForOutpaint", {"image": CLEAR, "left": 8, "top": 0, "right": 0, "bottom": 8, "feathering": 4})
    for direction, match, width in itertools.product(("right", "down", "left", "up"), (True, False), (0, 6, 7)):
        for colour in ("white", "red") if width else ("black",):
            inputs = {"direction": direction, "match_image_size": match, "spacing_width": width}
            yield Case("ImageStitch", {"image1": PAIR, "image2": TALL, **inputs, "spacing_color": colour})
            yield Case("ImageStitch", {"image1": PHOTO, "image2": CLEAR, **inputs, "spacing_color": colour})
    yield Case(
        "ImageStitch",
        {"image1": PAIR, "direction": "up", "match_image_size": True, "spacing_width": 8, "spacing_color": "white"},
    )


def _filters() -> Iterator[Case]:
    yield Case("ImageInvert", {"image": PAIR})
    yield Case("ImageInvert", {"image": CLEAR})
    for image, radius, sigma in itertools.product((PAIR, CLEAR), (1, 3, 10), (0.1, 0.6, 3.0)):
        # The host pads once more than it needs, which has torch add up in another order.
        yield Case("ImageBlur", {"image": image, "blur_radius": radius, "sigma": sigma}, 1e-6)
        for alpha in (0.0, 0.3, 2.0):
            inputs = {"sharpen_radius": radius, "sigma": sigma, "alpha": alpha}
            # As above, times the kernel's weights, which are up to 20 here.
            yield Case("ImageSharpen", {"image": image, **inputs}, 2e-5)
    for mode, factor in itertools.product(BLENDS, (0.0, 0.3, 1.0)):
        one, other = Tensor(1, 20, 22, 3, seed=11), Tensor(1, 20, 22, 3, seed=12)
        yield Case("ImageBlend", {"image1": one, "image2": other, "blend_factor": factor, "blend_mode": mode})
        yield Case("ImageBlend", {"image1": PAIR, "image2": TALL, "blend_factor": factor, "blend_mode": mode})
        yield Case("ImageBlend", {"image1": CLEAR, "image2": PHOTO, "blend_factor": factor, "blend_mode": mode})
        yield Case("ImageBlend", {"image1": PHOTO, "image2": CLEAR, "blend_factor": factor, "blend_mode": mode})


def _composites() -> Iterator[Case]:
    pairs = ((PAIR, PHOTO), (PHOTO, PAIR), (PHOTO, CLEAR), (CLEAR, PHOTO), (PAIR, TALL))
    for (below, above), (x, y), resize in itertools.product(pairs, ((0, 0), (7, 5), (30, 23), (99, 2)), (False, True)):
        inputs = {"destination": below, "source": above, "x": x, "y": y, "resize_source": resize}
        yield Case("ImageCompositeMasked", inputs)
        for mask in (MASK, BLOTS, LARGE):
            yield Case("ImageCompositeMasked", {**inputs, "mask": mask})
    for image, mask in itertools.product((PAIR, CLEAR), (MASK, BLOTS, SMALL, LARGE)):
        yield Case("JoinImageWithAlpha", {"image": image, "alpha": mask})
    for image in (PAIR, CLEAR):
        yield Case("SplitImageWithAlpha", {"image": image})


def _masks() -> Iterator[Case]:
    for mask in (MASK, BLOTS):
        yield Case("MaskToImage", {"mask": mask})
        yield Case("InvertMask", {"mask": mask})
        yield Case("MaskPreview", {"mask": mask})
        for value in (0.0, 0.5, 1.0):
            yield Case("ThresholdMask", {"mask": mask, "value": value})
        for x, y, width, height in ((0, 0, 10, 10), (7, 3, 512, 5), (30, 23, 9, 9)):
            yield Case("CropMask", {"mask": mask, "x": x, "y": y, "width": width, "height": height})
        for expand, tapered in itertools.product((-9, -2, -1, 0, 1, 3, 40), (True, False)):
            yield Case("GrowMask", {"mask": mask, "expand": expand, "tapered_corners": tapered})
        for left, top, right, bottom in ((0, 0, 0, 0), (5, 0, 0, 0), (0, 6, 0, 3), (9, 9, 9, 9), (30, 20, 31, 99)):
            yield Case("FeatherMask", {"mask": mask, "left": left, "top": top, "right": right, "bottom": bottom})
    for channel in ("red", "green", "blue"):
        yield Case("ImageToMask", {"image": PAIR, "channel": channel})
    yield Case("ImageToMask", {"image": CLEAR, "channel": "alpha"})
    flat = Tensor(1, 6, 7, 3, binary=True)
    for colour in (0, 0xFFFFFF, 0x123456):
        yield Case("ImageColorToMask", {"image": flat, "color": colour})
    for value, width, height in ((1.0, 5, 3), (0.0, 1, 1), (0.37, 20, 30)):
        yield Case("SolidMask", {"value": value, "width": width, "height": height})
    for operation, source, (x, y) in itertools.product(OPERATIONS, (SMALL, LARGE, MASK), ((0, 0), (4, 9), (25, 20))):
        inputs = {"destination": BLOTS, "source": source, "x": x, "y": y, "operation": operation}
        yield Case("MaskComposite", inputs)
    yield Case("MaskComposite", {"destination": BLOTS, "source": BLOTS, "x": 3, "y": 2, "operation": "xor"})


def _batches() -> Iterator[Case]:
    for colour, batch in ((0, 1), (0xFFFFFF, 2), (0x123456, 1)):
        yield Case("EmptyImage", {"width": 9, "height": 5, "batch_size": batch, "color": colour})
    for first, second in ((PAIR, PAIR), (PAIR, PHOTO), (CLEAR, TALL), (TALL, CLEAR), (PHOTO, TALL)):
        yield Case("ImageBatch", {"image1": first, "image2": second})
        yield Case("BatchImagesNode", {"images.image0": first, "images.image1": second, "images.image2": first})
    yield Case("BatchImagesNode", {"images.image0": PAIR})
    yield Case("BatchMasksNode", {"masks.mask0": MASK, "masks.mask1": BLOTS, "masks.mask2": LARGE})
    yield Case("BatchMasksNode", {"masks.mask0": SMALL, "masks.mask1": LARGE})
    for amount in (1, 3):
        yield Case("RepeatImageBatch", {"image": PAIR, "amount": amount})
    four = Tensor(4, 5, 6, 3)
    for index, length in ((0, 1), (1, 2), (-1, 1), (-9, 2), (9, 3), (2, 99)):
        yield Case("ImageFromBatch", {"image": four, "batch_index": index, "length": length})
    yield Case("GetImageSize", {"image": four})


def _values() -> Iterator[Case]:
    for node, value in (
        ("PrimitiveInt", -7),
        ("PrimitiveFloat", 0.1),
        ("PrimitiveBoolean", True),
        ("PrimitiveString", "a\tb"),
        ("PrimitiveStringMultiline", "a\nb"),
    ):
        yield Case(node, {"value": value})
    yield Case("PrimitiveBoundingBox", {"x": 1, "y": 2, "width": 3, "height": 4})
    yield Case("SeedNode", {"seed": 2**63 - 1})
    yield Case("CustomCombo", {"choice": "fine", "index": 2, "option1": "coarse"})
    for value in (3, -2.7, True, False, " 12 ", "-1e3", "2.5", str(2**60 + 1)):
        yield Case("ComfyNumberConvert", {"value": value})
    for switch in (True, False):
        yield Case("ComfySwitchNode", {"switch": switch, "on_false": "no", "on_true": 1})
    for value in (0, 1, "", "a", None, 0.0):
        yield Case("ComfyNotNode", {"value": value})
    for node, values in itertools.product(("ComfyAndNode", "ComfyOrNode"), ((1,), (0, 2), (0, ""), (3, "a", True))):
        yield Case(node, {f"values.value{i}": value for i, value in enumerate(values)})
    for ratio, megapixels, multiple in itertools.product(
        ("1:1 (Square)", "2:3 (Portrait Photo)", "16:9 (Widescreen)", "21:9 (Ultrawide)"), (0.1, 1.0, 16.0), (8, 60)
    ):
        inputs = {"aspect_ratio": ratio, "megapixels": megapixels, "multiple": multiple}
        yield Case("ResolutionSelector", inputs)
    for expression in (
        *("a + b", "a - b * 2", "a / b", "a // b", "a % b", "a ** 2", "-a", "+a", "(a + b) * 2", "1e3 + .5", "7"),
        *("a > b", "a >= b", "a == b", "a != b", "1 < a < 100", "not a", "a and b", "a or b", "0 or b"),
        *("a if a > b else b", "min(a, b)", "max(a, b, 3)", "sum(values)", "sum(a, b)", "abs(-a)", "round(a / b, 2)"),
        *("round(a / b)", "pow(a, 2)", "sqrt(a)", "ceil(a / b)", "floor(-a / b)", "log(a)", "log(a, 2)", "log2(a)"),
        *("log10(a)", "sin(a)", "cos(a)", "tan(a)", "int(a / b)", "float(a)", "values[0]", "values[-1]", "max(values)"),
        *("7 << 2", "7 >> 1", "6 & 3", "6 | 3", "6 ^ 3", "~6", "2 ** 100", "True", "a == 10 and b < 5", "  a  "),
        *("2 ** 0.5", "10 ** -2", "round(2.5)", "1 if 0 else 2", "int(2.9) + int(-2.9)"),
    ):  # fmt: skip
        yield Case("ComfyMathExpression", {"expression": expression, "values.a": 10, "values.b": 4.0})
    yield Case("ComfyMathExpression", {"expression": "a * 3", "values.a": True})


def _texts() -> Iterator[Case]:
    text = "  Grandmother, 1931\n"
    yield Case("StringConcatenate", {"string_a": "a", "string_b": "b", "delimiter": ", "})
    for start, end in ((0, 3), (-5, -1), (3, 99), (9, 2)):
        yield Case("StringSubstring", {"string": text, "start": start, "end": end})
    yield Case("StringLength", {"string": text})
    for mode in ("UPPERCASE", "lowercase", "Capitalize", "Title Case"):
        yield Case("CaseConverter", {"string": "straße of GRANDmother", "mode": mode})
    for mode in ("Both", "Left", "Right"):
        yield Case("StringTrim", {"string": text, "mode": mode})
    for find, replace in (("r", "R"), ("", "-"), ("missing", "x")):
        yield Case("StringReplace", {"string": text, "find": find, "replace": replace})
    for sensitive, other in itertools.product((True, False), ("GRANDMOTHER", "Grand", "x")):
        yield Case("StringContains", {"string": text, "substring": other, "case_sensitive": sensitive})
    for mode, sensitive, other in itertools.product(
        ("Starts With", "Ends With", "Equal"), (True, False), ("grand", "Mother", "grandmother", "")
    ):
        inputs = {"string_a": "grandmother", "string_b": other, "mode": mode, "case_sensitive": sensitive}
        yield Case("StringCompare", inputs)
    for value in ("text", 1, 0.5, True, None, {"b": [1, "ä"]}, Tensor(1, 3, 4, 3), Tensor(1, 40, 40)):
        yield Case("PreviewAny", {"source": value})
