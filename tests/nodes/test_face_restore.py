"""FaceRestore with the bundled detector and face networks loaded the way published ones are."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
import torch
from skimage import data

from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError, VramExhaustedError, WeightsMissingError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.face_restore import FaceRestore

if TYPE_CHECKING:
    from collections.abc import Callable

DETECTOR = ModelHandle("retinaface-mobilenet")
SETTINGS = {"strength": 1.0, "min_score": 0.8, "feather": 0.25}


def astronaut() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[:300, :300].copy())[None] / 255


def landscape() -> torch.Tensor:
    return torch.from_numpy(data.coffee()[:200, :200].copy())[None] / 255


class Mixer(torch.nn.Module):
    """A 1x1 convolution: each output channel a mixture of the input's."""

    def __init__(self, matrix: list[list[float]]) -> None:
        super().__init__()
        self.mix = torch.nn.Conv2d(3, 3, 1, bias=False)
        with torch.no_grad():
            self.mix.weight.copy_(torch.tensor(matrix)[:, :, None, None])

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        assert face.shape == (1, 3, 512, 512)
        assert face.min() >= 0
        assert face.max() <= 1
        return self.mix(face)


IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
SWAPPED = [[0.0, 0.0, 1.0], [0.0, 0.6, 0.2], [1.0, 0.0, 0.0]]


def test_its_inputs_are_its_arguments() -> None:
    assert list(FaceRestore.INPUT_TYPES()["required"]) == list(inspect.signature(FaceRestore.run).parameters)[1:]
    assert len(FaceRestore.RETURN_TYPES) == len(FaceRestore.RETURN_NAMES) == len(FaceRestore.OUTPUT_TOOLTIPS) == 2


def test_only_the_face_changes(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    image = astronaut()
    restored, mask = FaceRestore().run(image, model.handle, DETECTOR, **SETTINGS)
    assert restored.shape == image.shape
    assert restored.dtype == torch.float32
    assert mask.shape == (1, 300, 300)
    off = (mask == 0)[..., None].expand_as(image)
    assert torch.equal(restored[off], image[off])
    assert mask[0, 115, 225] == 1
    assert mask[0, 290, 20] == 0
    assert (restored - image)[0, 100:130, 210:240].abs().max() > 0.03
    assert model.loads == ["for-a-test"]


def test_a_network_that_changes_nothing_leaves_every_bit(install: Callable[..., Any]) -> None:
    model = install(Mixer(IDENTITY), "face_restore")
    image = astronaut()
    restored, mask = FaceRestore().run(image, model.handle, DETECTOR, **SETTINGS)
    assert mask.max() == 1
    assert (restored - image).abs().max() < 1e-6


def test_a_black_and_white_photo_stays_black_and_white(install: Callable[..., Any]) -> None:
    class Contrasty(Mixer):
        def forward(self, face: torch.Tensor) -> torch.Tensor:
            return super().forward(face) ** 2

    model = install(Contrasty(SWAPPED), "face_restore")
    gray = astronaut().mean(-1, keepdim=True)
    restored, _ = FaceRestore().run(gray, model.handle, DETECTOR, **SETTINGS)
    assert torch.equal(restored[..., 0], restored[..., 1])
    assert torch.equal(restored[..., 0], restored[..., 2])
    assert (restored[..., :1] - gray).abs().max() > 0.01


def test_without_faces_nothing_is_loaded(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore", present=False)
    image = landscape()
    restored, mask = FaceRestore().run(image, model.handle, DETECTOR, **SETTINGS)
    assert restored is image
    assert mask.shape == (1, 200, 200)
    assert mask.max() == 0
    assert model.loads == []


def test_with_faces_missing_weights_are_named(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore", present=False)
    with pytest.raises(WeightsMissingError, match=r"for-a-test\.pth"):
        FaceRestore().run(astronaut(), model.handle, DETECTOR, **SETTINGS)


def test_strength_zero_keeps_the_photo_and_loads_nothing(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    image = astronaut()
    restored, _ = FaceRestore().run(image, model.handle, DETECTOR, **{**SETTINGS, "strength": 0.0})
    assert restored is image
    assert model.loads == []


def test_min_score_decides_what_is_a_face(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    image = astronaut()
    restored, mask = FaceRestore().run(image, model.handle, DETECTOR, **{**SETTINGS, "min_score": 1.0})
    assert restored is image
    assert mask.max() == 0


def test_a_batch_keeps_its_order_and_counts_its_faces(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    image = astronaut()
    batch = torch.cat((torch.full_like(image, 0.5), image, image.flip(2)))
    seen: list[tuple[int, int, str]] = []
    with host.standalone(host.Standalone(progress=lambda *step: seen.append(step))):
        restored, mask = FaceRestore().run(batch, model.handle, DETECTOR, **SETTINGS)
    assert torch.equal(restored[0], batch[0])
    assert mask.amax((1, 2)).tolist() == [0, 1, 1]
    assert seen == [(0, 2, "faces"), (1, 2, "faces"), (2, 2, "faces")]


def test_an_interruption_releases_the_model(install: Callable[..., Any]) -> None:
    class Stop(BaseException):
        pass

    model = install(Mixer(SWAPPED), "face_restore")
    done: list[int] = []

    def stop() -> None:
        if done:
            raise Stop

    def progress(count: int, *_: object) -> None:
        if count:
            done.append(count)

    settings = host.Standalone(progress=progress, check_interrupted=stop)
    batch = torch.cat((astronaut(), astronaut()))
    with host.standalone(settings), pytest.raises(Stop):
        FaceRestore().run(batch, model.handle, DETECTOR, **SETTINGS)
    assert done == [1]
    restored, _ = FaceRestore().run(astronaut(), model.handle, DETECTOR, **SETTINGS)  # it can be leased again
    assert not torch.equal(restored, astronaut())
    assert model.loads == ["for-a-test"]


def test_out_of_memory_is_said_so(install: Callable[..., Any]) -> None:
    class Greedy(Mixer):
        def forward(self, face: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError

    model = install(Greedy(IDENTITY), "face_restore")
    with pytest.raises(VramExhaustedError, match="does not fit"):
        FaceRestore().run(astronaut(), model.handle, DETECTOR, **SETTINGS)


def test_other_errors_of_the_network_pass(install: Callable[..., Any]) -> None:
    class Broken(Mixer):
        def forward(self, face: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("broken inside")

    model = install(Broken(IDENTITY), "face_restore")
    with pytest.raises(RuntimeError, match="broken inside"):
        FaceRestore().run(astronaut(), model.handle, DETECTOR, **SETTINGS)


def test_exchanged_handles_are_refused(install: Callable[..., Any]) -> None:
    model = install(Mixer(IDENTITY), "face_restore")
    with pytest.raises(NodeInputError, match="not for face restore"):
        FaceRestore().run(astronaut(), DETECTOR, model.handle, **SETTINGS)
    with pytest.raises(NodeInputError, match="not for face detect"):
        FaceRestore().run(astronaut(), model.handle, model.handle, **SETTINGS)
