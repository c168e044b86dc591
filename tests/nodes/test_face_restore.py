"""FaceRestore with the bundled detector and face networks loaded the way published ones are."""

from __future__ import annotations

import dataclasses
import inspect
from typing import TYPE_CHECKING, Any

import pytest
import torch
from identity_faces import astronaut as astronaut_face
from identity_faces import people
from skimage import data

from photokeep_nodes import host, models
from photokeep_nodes.errors import NodeInputError, VramExhaustedError, WeightsMissingError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.face_detect import FaceDetect
from photokeep_nodes.nodes.face_restore import FaceRestore

if TYPE_CHECKING:
    from collections.abc import Callable

DETECTOR = ModelHandle("retinaface-mobilenet")
SETTINGS: dict[str, Any] = {
    "strength": 1.0,
    "min_score": 0.8,
    "feather": 0.25,
    "fidelity": 0.0,
    "below_sharpness": 1.0,
    "skip_detailed": False,
    "keep_gray": True,
    "likeness": 0.0,
}


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


def run(image: torch.Tensor, model: ModelHandle, **inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """With the bundled detector, unless faces are given."""
    found = {} if "faces" in inputs else {"detector": DETECTOR}
    restored, mask, _, _ = FaceRestore().run(image, model, **{**SETTINGS, **found, **inputs})
    return restored, mask


def test_its_inputs_are_its_arguments() -> None:
    types = FaceRestore.INPUT_TYPES()
    assert [*types["required"], *types["optional"]] == list(inspect.signature(FaceRestore.run).parameters)[1:]
    assert len(FaceRestore.RETURN_TYPES) == len(FaceRestore.RETURN_NAMES) == len(FaceRestore.OUTPUT_TOOLTIPS) == 4


def test_only_the_face_changes(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    image = astronaut()
    restored, mask = run(image, model.handle)
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
    restored, mask = run(image, model.handle)
    assert mask.max() == 1
    assert (restored - image).abs().max() < 1e-6


def test_a_black_and_white_photo_stays_black_and_white(install: Callable[..., Any]) -> None:
    class Contrasty(Mixer):
        def forward(self, face: torch.Tensor) -> torch.Tensor:
            return super().forward(face) ** 2

    model = install(Contrasty(SWAPPED), "face_restore")
    gray = astronaut().mean(-1, keepdim=True)
    restored, _ = run(gray, model.handle)
    assert torch.equal(restored[..., 0], restored[..., 1])
    assert torch.equal(restored[..., 0], restored[..., 2])
    assert (restored[..., :1] - gray).abs().max() > 0.01


def test_without_faces_nothing_is_loaded(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore", present=False)
    image = landscape()
    restored, mask = run(image, model.handle)
    assert restored is image
    assert mask.shape == (1, 200, 200)
    assert mask.max() == 0
    assert model.loads == []


def test_with_faces_missing_weights_are_named(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore", present=False)
    with pytest.raises(WeightsMissingError, match=r"for-a-test\.pth"):
        run(astronaut(), model.handle)


def test_strength_zero_keeps_the_photo_and_loads_nothing(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    image = astronaut()
    restored, _ = run(image, model.handle, strength=0.0)
    assert restored is image
    assert model.loads == []


def test_a_batch_keeps_its_order_and_counts_its_faces(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    image = astronaut()
    batch = torch.cat((torch.full_like(image, 0.5), image, image.flip(2)))
    seen: list[tuple[int, int, str]] = []
    with host.standalone(host.Standalone(progress=lambda *step: seen.append(step))):
        restored, mask = run(batch, model.handle)
    assert torch.equal(restored[0], batch[0])
    assert mask.amax((1, 2)).tolist() == [0, 1, 1]
    assert list(dict.fromkeys(seen)) == [(0, 2, "faces"), (1, 2, "faces"), (2, 2, "faces")]


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
        run(batch, model.handle)
    assert done == [1]
    restored, _ = run(astronaut(), model.handle)  # it can be leased again
    assert not torch.equal(restored, astronaut())
    assert model.loads == ["for-a-test"]


def test_out_of_memory_is_said_so(install: Callable[..., Any]) -> None:
    class Greedy(Mixer):
        def forward(self, face: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError

    model = install(Greedy(IDENTITY), "face_restore")
    with pytest.raises(VramExhaustedError, match="does not fit"):
        run(astronaut(), model.handle)


def test_other_errors_of_the_network_pass(install: Callable[..., Any]) -> None:
    class Broken(Mixer):
        def forward(self, face: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("broken inside")

    model = install(Broken(IDENTITY), "face_restore")
    with pytest.raises(RuntimeError, match="broken inside"):
        run(astronaut(), model.handle)


def test_exchanged_handles_are_refused(install: Callable[..., Any]) -> None:
    model = install(Mixer(IDENTITY), "face_restore")
    with pytest.raises(NodeInputError, match="not for face restore"):
        run(astronaut(), DETECTOR)
    with pytest.raises(NodeInputError, match="not for face detect"):
        run(astronaut(), model.handle, detector=model.handle)
    with pytest.raises(NodeInputError, match="not for face parse"):
        run(astronaut(), model.handle, parser=DETECTOR)
    with pytest.raises(NodeInputError, match="not for face identity"):
        run(astronaut(), model.handle, identity=DETECTOR)


# --- faces found elsewhere ---


def found_in(image: torch.Tensor) -> dict[str, Any]:
    return FaceDetect().run(image, DETECTOR, 0.8, "never")[0]


def test_faces_found_before_enlarging_are_restored_after_it(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    image = astronaut()
    large = torch.nn.functional.interpolate(image.movedim(-1, 1), scale_factor=2.0, mode="bilinear").movedim(1, -1)
    _, small_mask = run(image, model.handle, faces=found_in(image))
    _, mask = run(large, model.handle, faces=found_in(image))
    assert mask.shape == (1, 600, 600)
    halved = torch.nn.functional.avg_pool2d(mask[None], 2)[0]
    assert (halved - small_mask).abs().max() < 0.03


@pytest.mark.parametrize(
    ("faces", "message"),
    [
        ({"images": []}, "of 0 images, but 1"),
        ({"images": [{"width": 300, "height": 200, "faces": []}]}, "no smaller or larger copy"),
        ({"images": [{"width": 0, "height": 200, "faces": []}]}, "without a size"),
        ({"pictures": []}, "no faces"),
        (None, "no faces and no detector"),
        (
            {"images": [{"width": 300, "height": 300, "faces": [{"box": [1, 2], "score": 1, "landmarks": []}]}]},
            "no faces",
        ),
    ],
)
def test_faces_of_something_else_are_refused(install: Callable[..., Any], faces: Any, message: str) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    with pytest.raises(NodeInputError, match=message):
        run(astronaut(), model.handle, faces=faces)


# --- its other models ---


class Told(Mixer):
    """A network that can be told how faithful to be."""

    def __init__(self) -> None:
        super().__init__(IDENTITY)
        self.told: list[float] = []

    def forward(self, face: torch.Tensor, fidelity: torch.Tensor) -> torch.Tensor:
        self.told.append(float(fidelity))
        return super().forward(face) * 0.9


def test_a_network_with_a_fidelity_of_its_own_is_told(
    install: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Told()
    model = install(network, "face_restore")
    known = models.catalogue()
    known[model.spec.id] = dataclasses.replace(model.spec, condition="fidelity")
    for fidelity in (0.0, 0.7):
        run(astronaut(), model.handle, fidelity=fidelity)
    assert network.told == pytest.approx([0.0, 0.7])


def test_the_others_keep_more_of_the_photo(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    image = astronaut()
    changes = [float((run(image, model.handle, fidelity=f)[0] - image).abs().mean()) for f in (0.0, 0.5, 1.0)]
    assert changes[0] > 1.4 * changes[1] > 1.4 * changes[2]


class Halves(torch.nn.Module):
    """A parser for which the left half of a crop is skin, the right half background."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        probabilities = torch.zeros(face.shape[0], 19, *face.shape[-2:])
        probabilities[:, 1, :, :256] = 1.0
        probabilities[:, 0, :, 256:] = 1.0
        return probabilities + self.unused


def test_with_a_parser_only_the_face_changes(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    parser = install(Halves(), "face_parse", name="parser")
    image = astronaut()
    _, everything = run(image, model.handle)
    _, half = run(image, model.handle, parser=parser.handle)
    assert 0.3 < float(half.sum() / everything.sum()) < 0.6
    assert bool((half <= everything + 1e-6).all())


class Means(torch.nn.Module):
    """Tells people apart by the colour of the middle of their faces."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        mean = face[..., 150:400, 150:400].mean((-2, -1)) + self.unused
        return torch.nn.functional.normalize(mean - mean.mean(1, keepdim=True), dim=1)


def test_the_guard_keeps_the_person(install: Callable[..., Any]) -> None:
    # A photo in colour, and a network that exchanges red and blue: at full strength it is another person.
    model = install(Mixer([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), "face_restore")
    person = install(Means(), "face_identity", name="person")
    image = astronaut()
    free, _, _, unguarded = FaceRestore().run(image, model.handle, **SETTINGS, detector=DETECTOR)
    kept, _, pictures, report = FaceRestore().run(
        image, model.handle, **{**SETTINGS, "likeness": 0.994}, detector=DETECTOR, identity=person.handle
    )
    assert "Nobody checked" in unguarded
    assert "strength lowered from 1.00 to 0." in report
    assert float((kept - image).abs().mean()) < 0.7 * float((free - image).abs().mean())
    assert pictures.shape[:2] == (1, 512)
    likeness = float(report.splitlines()[1].rsplit("likeness ", 1)[1])
    assert likeness >= 0.99
    assert report.endswith("0.99 was asked for.")


def test_strength_and_emptiness_are_reported(install: Callable[..., Any]) -> None:
    model = install(Mixer(SWAPPED), "face_restore")
    *_, pictures, report = FaceRestore().run(landscape(), model.handle, **SETTINGS, detector=DETECTOR)
    assert report == "No faces."
    assert pictures.ndim == 4
    *_, report = FaceRestore().run(astronaut(), model.handle, **{**SETTINGS, "strength": 0.0}, detector=DETECTOR)
    assert "every face stays" in report


class Remembers(torch.nn.Module):
    """A network that always draws the same face."""

    def __init__(self, face: torch.Tensor) -> None:
        super().__init__()
        self.face = torch.nn.Parameter(face.clone())

    def forward(self, face: torch.Tensor) -> torch.Tensor:
        return self.face


@pytest.mark.parametrize("who", ["herself", "somebody else"])
def test_the_bundled_identity_network_knows_who_is_who(install: Callable[..., Any], who: str) -> None:
    """A face of 30 px, restored to what she really looks like, or to another woman."""
    small = torch.nn.functional.avg_pool2d(torch.from_numpy(data.astronaut()).movedim(-1, 0)[None] / 255, 4)
    model = install(Remembers(astronaut_face() if who == "herself" else people()[3:4]), "face_restore")
    *_, report = FaceRestore().run(
        small.movedim(1, -1),
        model.handle,
        **SETTINGS,
        detector=DETECTOR,
        identity=ModelHandle("dlib-face"),
    )
    assert report.startswith("1 of 1 face restored")
    if who == "herself":
        assert "restored with strength 1.00" in report
    else:
        assert "strength lowered from 1.00 to 0." in report
        assert "somebody else" in report


def test_a_file_of_an_earlier_version_still_runs(install: Callable[..., Any]) -> None:
    """It knew no more than these inputs."""
    model = install(Mixer(SWAPPED), "face_restore")
    restored, _, _, report = FaceRestore().run(
        astronaut(), model.handle, strength=0.8, min_score=0.8, feather=0.25, detector=DETECTOR
    )
    assert not torch.equal(restored, astronaut())
    assert report.startswith("1 of 1 face")
    nobody, *_ = FaceRestore().run(
        astronaut(), model.handle, strength=0.8, min_score=1.0, feather=0.25, detector=DETECTOR
    )
    assert torch.equal(nobody, astronaut())
