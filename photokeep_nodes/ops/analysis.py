"""Look a photo over: what it is, what is wrong with it, and which stages would help.

The result is plain data (JSON) for other nodes, and a short text for people.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal

import torch

from ..errors import NodeInputError
from . import colour, measures, restore_colours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .detect_faces import Face

# What is worth a stage. Each threshold lies above what clean photos measure.
NOISY = 3.0  # 8-bit steps
_BLOCKY = 0.8  # JPEG quality of about 70 and less
_BLURRED = 2.0  # px; the edges of sharp photos measure up to 1.3
_DARK_MEDIAN, _DARK_BRIGHT = 22.0, 55.0  # L of the middle pixel, and of the one that nine tenths are darker than
_DARK_QUANTILES = (0.5, 0.9)
_CAST = 4.0  # Lab units of chroma below which dark or bright parts pass for neutral
_SMALL, _MEDIUM = 1000, 2000  # px of the longer side: 2000 is a print of 17 cm at 300 dpi
_FACE_DETAIL = 256  # px of a face's height, below which a face network knows more than the photo shows

_HUES = (
    (60, "red"), (75, "orange"), (125, "yellow"), (190, "green"), (235, "cyan"), (305, "blue"), (345, "magenta"),
    (361, "red"),
)  # fmt: skip
"""Angle in Lab below which a hue is called so."""
_TONE_WORDS = {"gray": "black and white", "sepia": "toned (sepia or similar)", "colour": "colour"}


def needs(stage: Literal["remove_jpeg", "low_light", "deblur", "restore_colors"], image: torch.Tensor) -> bool:
    """Whether ``analyse`` would recommend a stage for one photo (1, 3, H, W) in [0, 1]; measures no more than that."""
    if stage == "remove_jpeg":
        return _is_blocky(measures.jpeg_blocks(image).strength)
    if stage == "low_light":
        return _is_dark(*measures.lightness_quantiles(image, _DARK_QUANTILES))
    if stage == "restore_colors":
        return restore_colours.fading(image).worthwhile
    return _is_blurred(measures.blur_sigma(image, measures.noise_sigma(image)) or 0.0)


def upscale_factor(height: int, width: int) -> float:
    """What a photo of this size should be enlarged by; 1 where it is large enough."""
    longest = max(height, width)
    return 1.0 if longest >= _MEDIUM else 2.0 if longest >= _SMALL else 4.0


def _is_blocky(strength: float) -> bool:
    return round(strength, 2) >= _BLOCKY


def _is_dark(middle: float, bright: float) -> bool:
    return middle < _DARK_MEDIAN and bright < _DARK_BRIGHT


def _is_blurred(blur: float) -> bool:
    return round(blur, 2) >= _BLURRED


def estimate_noise(image: torch.Tensor) -> float:
    """Noise level of one photo (1, 3, H, W) in [0, 1], per channel, in 8-bit steps."""
    return round(measures.noise_sigma(image), 2)


def analyse(image: torch.Tensor, faces: Sequence[Sequence[Face]] | None = None) -> list[dict[str, Any]]:
    """Measure each photo of a batch.

    Args:
        image: (B, 3, H, W) in [0, 1].
        faces: the faces of each photo, or None if none were looked for.
    Returns:
        Per photo: "width", "height"; "noise_sigma" per channel in 8-bit steps; "blur_sigma" in pixels, 0 where no edge
        tells; "sharpness", 1 for ideal edges towards 0 with blur (and 0 where no edge tells); "jpeg_blockiness" in
        8-bit steps and "jpeg_grid" [x, y], where blocks begin, or None; "lightness", L of the middle pixel; "tone" as
        ``colour.tones`` has it; "fading" from 0 to 1; "black" and "white", Lab of the darkest and the brightest parts;
        "faces" and "faces_checked"; "recommendation", a list of dicts with "stage", "reason"
        and the stage's parameters, in the order in which to run them.
    Raises:
        NodeInputError: the faces are of another batch.
    """
    if faces is not None and len(faces) != image.shape[0]:
        raise NodeInputError(f"faces of {len(faces)} photos were given for {image.shape[0]} photos")
    tones = colour.tones(image)
    return [
        _analyse_one(photo, tones[i], None if faces is None else faces[i])
        for i, photo in enumerate(torch.split(image, 1))
    ]


def _analyse_one(photo: torch.Tensor, tone: colour.Tone, faces: Sequence[Face] | None) -> dict[str, Any]:
    noise = measures.noise_sigma(photo)
    blur = measures.blur_sigma(photo, noise)
    blocks = measures.jpeg_blocks(photo)
    middle, bright = measures.lightness_quantiles(photo, _DARK_QUANTILES)
    fading = restore_colours.fading(photo, tone)
    found: dict[str, Any] = {
        "width": photo.shape[-1],
        "height": photo.shape[-2],
        "noise_sigma": round(noise, 2),
        "sharpness": 0.0 if blur is None else round(1.0 / math.sqrt(1.0 + blur * blur), 3),
        "blur_sigma": 0.0 if blur is None else round(blur, 2),
        "jpeg_blockiness": round(blocks.strength, 2),
        "jpeg_grid": None if blocks.grid is None else list(blocks.grid),
        "lightness": round(middle, 1),
        "tone": tone,
        "fading": round(fading.amount, 2),
        "black": [round(value, 1) for value in fading.dark],
        "white": [round(value, 1) for value in fading.bright],
        "faces": [_rounded(face) for face in faces or ()],
        "faces_checked": faces is not None,
    }
    found["recommendation"] = _recommend(found, dark=_is_dark(middle, bright), fading=fading)
    return found


def _rounded(face: Face) -> dict[str, Any]:
    return {
        "box": [round(float(v), 2) for v in face["box"]],
        "score": round(float(face["score"]), 4),
        "landmarks": [[round(float(v), 2) for v in point] for point in face["landmarks"]],
    }


def _recommend(found: dict[str, Any], *, dark: bool, fading: restore_colours.Fading) -> list[dict[str, Any]]:
    """Stages worth running, in the order of the mission's workflow, clean-up first.

    Colours are restored after the clean-up, whose figures are those of the photo as it is and which contrast would
    amplify, and before the photo grows and its faces are shown to a network that knows faces in good colour.
    """
    stages: list[dict[str, Any]] = []

    def recommend(stage: str, reason: str, **parameters: Any) -> None:
        stages.append({"stage": stage, "reason": reason, **parameters})

    noise, blur, blockiness = found["noise_sigma"], found["blur_sigma"], found["jpeg_blockiness"]
    if _is_blocky(blockiness):
        recommend("remove_jpeg", f"JPEG blocks show: jumps of {blockiness:.1f} of 255 steps at their borders")
    if dark:
        recommend("low_light", f"dark: half of the photo is below lightness {found['lightness']:.0f} of 100")
    if noise >= NOISY:
        recommend("denoise", f"{_grade_noise(noise)}, sigma {noise:.1f} of 255", sigma=noise)
    if _is_blurred(blur):
        recommend("deblur", f"even the sharpest edges are soft, by {blur:.1f} px", sigma=blur)
    if fading.worthwhile:
        recommend("restore_colors", _fading_text(fading))
    if (factor := upscale_factor(found["height"], found["width"])) > 1.0:
        recommend("upscale", f"only {max(found['width'], found['height'])} px on the longer side", scale=factor)
    heights = [face["box"][3] - face["box"][1] for face in found["faces"]]
    if heights and (min(heights) < _FACE_DETAIL or stages):
        count = "one face" if len(heights) == 1 else f"{len(heights)} faces, the smallest"
        recommend("face_restore", f"{count} {min(heights):.0f} px high", faces=len(heights))
    if found["tone"] != "colour":
        recommend("colorize", f"the photo is {_TONE_WORDS[found['tone']]}")
    return stages


def _fading_text(fading: restore_colours.Fading) -> str:
    if fading.yellowed and fading.paper is not None:
        return f"the paper around the photo is no longer white but {_hue(fading.paper)}"
    cast = _hue(fading.dark)
    return f"faded: the darkest parts are at lightness {fading.dark[0]:.0f} of 100" + (f", {cast}" if cast else "")


def _hue(lab: tuple[float, float, float]) -> str:
    """What people call the cast of a Lab colour; empty where it has none."""
    if math.hypot(lab[1], lab[2]) < _CAST:
        return ""
    at = math.degrees(math.atan2(lab[2], lab[1])) % 360.0
    return next(name for below, name in _HUES if at < below)


def _grade_noise(sigma: float) -> str:
    if sigma < NOISY:
        return "clean"
    return "light noise" if sigma < 8 else "noise" if sigma < 20 else "strong noise"


def report(images: Sequence[dict[str, Any]]) -> str:
    """Say in a few lines what ``analyse`` found."""
    texts = [_report_one(found) for found in images]
    if len(texts) > 1:
        texts = [f"Photo {i} of {len(texts)}\n{text}" for i, text in enumerate(texts, 1)]
    return "\n\n".join(texts)


def _grade_fading(found: dict[str, Any]) -> str:
    amount = found["fading"]
    black = _hue(tuple(found["black"]))
    word = "none" if amount < 0.25 else "some" if amount < 0.75 else "strong"
    return f"{word}, black is at lightness {found['black'][0]:.0f}" + (f", {black}" if black and amount >= 0.25 else "")


def _report_one(found: dict[str, Any]) -> str:
    noise, blur = found["noise_sigma"], found["blur_sigma"]
    if found["sharpness"] == 0.0:
        sharpness = "no edges to tell by"
    else:
        sharpness = f"{'blurred' if _is_blurred(blur) else 'sharp'}, edges are {blur:.1f} px soft"
    blocks = found["jpeg_blockiness"]
    compression = (
        "no blocks" if blocks == 0 else f"{'visible' if _is_blocky(blocks) else 'faint'} blocks ({blocks:.1f})"
    )
    if not found["faces_checked"]:
        faces = "not looked for (connect a face detector)"
    else:
        sizes = [f"{face['box'][3] - face['box'][1]:.0f} px" for face in found["faces"]]
        faces = f"{len(sizes)} ({', '.join(sizes)} high)" if sizes else "none"
    lines = [
        f"Size: {found['width']} x {found['height']} px, {_TONE_WORDS[found['tone']]}",
        f"Noise: {_grade_noise(noise)}, sigma {noise:.1f}",
        f"Sharpness: {sharpness}",
        f"JPEG: {compression}",
        f"Fading: {_grade_fading(found)}",
        f"Faces: {faces}",
    ]
    stages = found["recommendation"]
    lines.append("Recommended:" if stages else "Recommended: nothing, the photo is in good shape")
    lines += [f"- {_stage_text(stage)}" for stage in stages]
    return "\n".join(lines)


def _stage_text(stage: dict[str, Any]) -> str:
    name = stage["stage"].replace("_", " ")
    if stage["stage"] == "upscale":
        name += f" x{stage['scale']:g}"
    return f"{name}: {stage['reason']}"
