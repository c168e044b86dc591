"""YuNet, run by OpenCV: its detector is made of the published ONNX file, and decodes what the network says.

Source: Wu, Peng, Yu 2023, "YuNet: a tiny millisecond-level face detector", doi:10.1007/s11633-023-1423-y.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
import torch.nn.functional as nnf
from torch import nn

from ..errors import NodeInputError, WeightsFormatError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

GRAPH = "onnx_file"
"""Name of the one tensor of the state dict: the file's bytes."""

_STRIDES = (8, 16, 32)
_VALUES = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}  # per cell of each map
_LEAST_SCORE = 0.05  # below, finds are not even listed: nobody asks for them, and they are very many
_ALL = 0  # of what is found, before and while merging
_LARGEST_FACE = 300  # pixels, by the publisher: the training set has no larger ones
_SMALL_SIDE = 320  # short side of the copy on which larger ones are looked for

_log_level = threading.Lock()


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Keep OpenCV from warning on stderr, each time a detector is made, that only the CPU can run it."""
    with _log_level:
        before = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            yield
        finally:
            cv2.utils.logging.setLogLevel(before)


def build(state: Mapping[str, torch.Tensor]) -> YuNet:
    """Make the detector of a state dict that holds the bytes of the file.

    Raises:
        WeightsFormatError: something else, or OpenCV finds no YuNet in it.
    """
    graph = state.get(GRAPH)
    if graph is None or len(state) != 1 or graph.dtype != torch.uint8 or graph.ndim != 1:
        raise WeightsFormatError("the weights are not those of YuNet: they are no ONNX file")
    # A side other than the one the file was exported for, and not a square.
    height, width = 64, 96
    try:
        with _without_warnings():
            net = cv2.dnn.readNetFromONNX(graph.cpu().numpy())
            net.setInput(np.zeros((1, 3, height, width), np.float32))
            names = [f"{kind}_{stride}" for kind in _VALUES for stride in _STRIDES]
            found = {name: output.size for name, output in zip(names, net.forward(names), strict=True)}
    except cv2.error as error:
        raise WeightsFormatError(
            f"the weights are not those of YuNet: OpenCV {cv2.__version__} cannot run them: {_reason(error)}",
            hint="Get the file that `photokeep models list` names.",
        ) from error
    # The detector reads its outputs without looking at their sizes.
    wanted = {
        f"{kind}_{stride}": values * (height // stride) * (width // stride)
        for kind, values in _VALUES.items()
        for stride in _STRIDES
    }
    if found != wanted:
        wrong = sorted(name for name in wanted if found[name] != wanted[name])
        raise WeightsFormatError(f"the weights are not those of YuNet: outputs of another size: {', '.join(wrong)}")
    return YuNet(graph)


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][-200:] if text else type(error).__name__


class YuNet(nn.Module):
    """Detector on the CPU, wherever the photo and the module are.

    Args:
        graph: the bytes of the ONNX file, (N,) uint8.
    """

    def __init__(self, graph: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer(GRAPH, graph.clone())

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Look for faces.

        Args:
            image: (1, 3, H, W) RGB, [0, 1], any size.
        Returns:
            All finds that are not quite improbable, in pixels of ``image``: boxes (N, 4) as x0, y0, x1, y1, scores (N,)
            in [0, 1], landmarks (N, 5, 2) as x, y; float32 on the CPU. Coordinates are continuous: pixel j spans
            [j, j + 1). The landmarks are eye, eye, nose tip, mouth corner, mouth corner, left to right as seen.
        Raises:
            NodeInputError: another shape.
        """
        if image.ndim != 4 or image.shape[:2] != (1, 3) or 0 in image.shape:
            raise NodeInputError(f"YuNet looks at one photo (1, 3, height, width), not {tuple(image.shape)}")
        height, width = image.shape[-2:]
        image = image.detach().float().cpu()
        found = [self._search(image)]
        if min(height, width) > _LARGEST_FACE:
            scale = _SMALL_SIDE / min(height, width) if min(height, width) > _SMALL_SIDE else 0.5
            size = (max(1, round(height * scale)), max(1, round(width * scale)))
            small = nnf.interpolate(image, size=size, mode="bilinear", align_corners=False, antialias=True)
            factors = torch.tensor([width / size[1], height / size[0]])
            boxes, scores, points = self._search(small)
            found.append((boxes * factors.repeat(2), scores, points * factors))
        boxes, scores, points = (torch.cat(parts) for parts in zip(*found, strict=True))
        return boxes, scores, points

    def _search(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        pixels = (image[0].flip(0) * 255.0).permute(1, 2, 0).contiguous().numpy()  # BCHW, RGB -> HWC, BGR
        _, rows = self._detector(pixels.shape[1], pixels.shape[0]).detect(pixels)
        # x, y, width, height, five points, score
        finds = torch.from_numpy(np.zeros((0, 15), np.float32) if rows is None else np.array(rows, np.float32))
        finds = finds[torch.isfinite(finds).all(dim=1)]
        corner, side = finds[:, :2], finds[:, 2:4]
        return torch.cat((corner, corner + side), dim=1), finds[:, 14], finds[:, 4:14].reshape(-1, 5, 2)

    def _detector(self, width: int, height: int) -> Any:
        """One per call: it takes milliseconds to make, keeps state while it works, and cannot be copied."""
        graph, no_settings = self.get_buffer(GRAPH).cpu().numpy(), np.zeros(0, np.uint8)
        # Overlapping finds are merged later, with those on other copies of the photo: 1.0 drops none here.
        with _without_warnings():
            return cv2.FaceDetectorYN.create("onnx", graph, no_settings, (width, height), _LEAST_SCORE, 1.0, _ALL)
