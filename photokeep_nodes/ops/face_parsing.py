"""From what each pixel of an aligned face shows to a soft mask of what a face restorer may change.

Classes are those of BiSeNet as zllrunning/face-parsing.PyTorch trained it. Beware: CelebAMask-HQ itself, and with it
ParseNet, numbers them in another order, and the list in facexlib's ``paste_faces_to_input_image`` is in that one.
"""

from __future__ import annotations

import torch
import torch.nn.functional as nnf

from ..errors import NodeInputError

CLASSES = (
    "background",
    "skin",
    "left_brow",
    "right_brow",
    "left_eye",
    "right_eye",
    "glasses",
    "left_ear",
    "right_ear",
    "earring",
    "nose",
    "mouth",
    "upper_lip",
    "lower_lip",
    "neck",
    "necklace",
    "cloth",
    "hair",
    "hat",
)
"""What channel i of the probabilities stands for; left and right as seen in the photo or not does not matter here."""

RESTORED = frozenset(
    (
        "skin",
        "left_brow",
        "right_brow",
        "left_eye",
        "right_eye",
        "glasses",
        "left_ear",
        "right_ear",
        "nose",
        "mouth",
        "upper_lip",
        "lower_lip",
    )
)
"""Classes that belong to the face. facexlib also pastes hair and earrings: face networks draw those as they like, and
the hair inside the crop would no longer match the hair around it. Hat, neck, necklace and cloth it keeps as well."""

_FEATHER = 10.0
_BORDER_CLEAR = 4.0  # pixels at the border of a crop of 512 that are kept for certain
_BORDER_FULL = 40.0  # pixels from the border at which the border no longer counts
_REACH = 3.0  # standard deviations after which the blur is cut off


def face_mask(probabilities: torch.Tensor, *, feather: float = _FEATHER) -> torch.Tensor:
    """Where a restored face may replace the photo, and how much.

    The mask begins at the face's outline and rises inwards, so hair and background are not touched. Gaps much narrower
    than ``feather`` close; wider ones, such as a hand or a fringe, stay. Towards the crop's border it falls to zero.

    Args:
        probabilities: (B, 19, H, W) from a ``face_parse`` model, [0, 1].
        feather: standard deviation in pixels of the blur that makes the edge soft; the mask is full about twice as
            far inside the outline.
    Returns:
        (B, 1, H, W), [0, 1], dtype and device as ``probabilities``.
    Raises:
        NodeInputError: another shape, no numbers, or a feather that is not positive.
    """
    if probabilities.ndim != 4 or probabilities.shape[1] != len(CLASSES) or 0 in probabilities.shape:
        raise NodeInputError(
            f"a face mask is made of (batch, {len(CLASSES)}, height, width), not {tuple(probabilities.shape)}"
        )
    if not 0.0 < feather <= 100.0:
        raise NodeInputError(f"the feather of a face mask must be above 0 and at most 100 pixels, not {feather}")
    if not bool(torch.isfinite(probabilities).all()):
        raise NodeInputError("the face parsing model returned values that are not numbers")
    chosen = [index for index, name in enumerate(CLASSES) if name in RESTORED]
    face = probabilities[:, chosen].float().sum(dim=1, keepdim=True).clamp(0.0, 1.0)
    # On a straight outline the blurred face is one half: from there on inwards it is raised to one.
    inside = _smooth((_blurred(face, feather) * 2.0 - 1.0).clamp(0.0, 1.0))
    return (inside * _away_from_border(face)).to(probabilities.dtype)


def _smooth(x: torch.Tensor) -> torch.Tensor:
    return x * x * (3.0 - 2.0 * x)


def _blurred(x: torch.Tensor, deviation: float) -> torch.Tensor:
    """Gaussian blur of (B, 1, H, W); beyond the border it goes on as it is there."""
    reach = max(1, round(_REACH * deviation))
    at = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-0.5 * (at / deviation) ** 2)
    kernel = kernel / kernel.sum()
    x = nnf.conv2d(nnf.pad(x, (reach, reach, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    return nnf.conv2d(nnf.pad(x, (0, 0, reach, reach), mode="replicate"), kernel.view(1, 1, -1, 1))


def _away_from_border(like: torch.Tensor) -> torch.Tensor:
    """(1, 1, H, W): 0 at the border of a crop, 1 well inside."""
    height, width = like.shape[-2:]

    def ramp(side: int) -> torch.Tensor:
        centre = torch.arange(side, device=like.device, dtype=like.dtype) + 0.5
        distance = torch.minimum(centre, side - centre) * (512.0 / side)
        return _smooth(((distance - _BORDER_CLEAR) / (_BORDER_FULL - _BORDER_CLEAR)).clamp(0.0, 1.0))

    return ramp(height).view(1, 1, -1, 1) * ramp(width).view(1, 1, 1, -1)
