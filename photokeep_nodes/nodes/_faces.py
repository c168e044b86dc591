"""What the nodes that look for faces share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from ..model_spec import ModelHandle
    from ..ops.detect_faces import Face

MIN_SCORE = 0.8
"""Least probability at which a find counts as a face, unless the user says otherwise."""


def find(photo: torch.Tensor, detector: ModelHandle, min_score: float = MIN_SCORE) -> list[list[Face]]:
    """Look for faces with a leased detector.

    Args:
        photo: (B, 3, H, W) in [0, 1].
        detector: handle of a model for face detection.
        min_score: least probability that counts.
    Returns:
        The faces of each photo.
    Raises:
        NodeInputError: the handle is not a detector's.
        WeightsError: its weights are missing or damaged.
    """
    from .. import inference
    from ..ops import detect_faces

    spec = inference.spec_for(detector, "face_detect")
    height, width = detect_faces.working_sizes(*photo.shape[-2:])[-1]

    def search(network: inference.Network) -> list[list[Face]]:
        with network.learning(height, width):
            return detect_faces.detect(network.module, photo, min_score=min_score)

    return inference.run(spec, search, height=height, width=width)
