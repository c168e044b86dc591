"""YuNet's published file is a download, so OpenCV runs a graph of its shape here, with random weights.

What OpenCV finds is compared with the graph run by onnx's own evaluator and decoded by hand. ``PHOTOKEEP_REAL_MODELS``
naming a folder with the published file adds a check of it.
"""

from __future__ import annotations

import copy
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from onnx.reference import ReferenceEvaluator
from skimage import data
from yunet_graph import OUTPUTS, STRIDES, yunet

from photokeep_nodes import inference, weights
from photokeep_nodes.errors import NodeInputError, WeightsCorruptError, WeightsFormatError
from photokeep_nodes.files import sha256_of
from photokeep_nodes.models.yunet import SPEC
from photokeep_nodes.ops.detect_faces import detect
from photokeep_nodes.weight_formats import read_state_dict

REAL = Path(os.environ.get("PHOTOKEEP_REAL_MODELS", "")) / SPEC.weights[0].filename


@pytest.fixture(scope="module")
def graph() -> bytes:
    return yunet()


@pytest.fixture(scope="module")
def module(graph: bytes, tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    path = tmp_path_factory.mktemp("weights") / SPEC.weights[0].filename
    path.write_bytes(graph)
    return SPEC.build(read_state_dict(path))


def photo(height: int, width: int) -> torch.Tensor:
    part = data.astronaut()[40 : 40 + height, 170 : 170 + width] / np.float32(255)
    return torch.from_numpy(part).permute(2, 0, 1)[None]


def by_hand(graph: bytes, image: torch.Tensor) -> dict[str, np.ndarray]:
    """All cells of the three maps: the graph in onnx's evaluator, decoded as the paper says."""
    height, width = image.shape[-2:]
    padded = np.zeros((1, 3, -(-height // 32) * 32, -(-width // 32) * 32), np.float32)
    padded[..., :height, :width] = image.numpy()[:, ::-1] * 255  # BGR
    names = [f"{kind}_{stride}" for stride in STRIDES for kind in OUTPUTS]
    outputs = dict(
        zip(names, ReferenceEvaluator(onnx.load_from_string(graph)).run(names, {"input": padded}), strict=True)
    )
    parts = []
    for stride in STRIDES:
        rows, columns = padded.shape[-2] // stride, padded.shape[-1] // stride
        y, x = np.mgrid[:rows, :columns].reshape(2, -1).astype(np.float32)
        cell = np.stack([x, y], axis=-1)
        cls, obj, bbox, kps = (outputs[f"{kind}_{stride}"][0] for kind in OUTPUTS)
        centre, half = (cell + bbox[:, :2]) * stride, np.exp(bbox[:, 2:]) * stride / 2
        parts.append(
            {
                "boxes": np.concatenate([centre - half, centre + half], axis=1),
                "scores": np.sqrt(cls * obj)[:, 0],
                "points": (cell[:, None] + kps.reshape(-1, 5, 2)) * stride,
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.parametrize("size", [(96, 128), (75, 130), (31, 20)])
def test_finds_are_those_of_the_graph(module: torch.nn.Module, graph: bytes, size: tuple[int, int]) -> None:
    image = photo(*size)
    wanted = by_hand(graph, image)
    boxes, scores, points = (each.numpy() for each in module(image))
    likely = wanted["scores"] > 0.05
    assert likely.sum() == len(scores) > 15
    assert scores.std() > 0.05
    assert points.std() > 5
    # OpenCV sorts by score.
    order, wanted_order = np.lexsort((boxes[:, 0], scores)), np.lexsort((wanted["boxes"][:, 0], wanted["scores"]))
    wanted_order = wanted_order[likely[wanted_order]]
    np.testing.assert_allclose(scores[order], wanted["scores"][wanted_order], atol=1e-4)
    np.testing.assert_allclose(boxes[order], wanted["boxes"][wanted_order], rtol=1e-3, atol=0.02)
    np.testing.assert_allclose(points[order], wanted["points"][wanted_order], rtol=1e-3, atol=0.02)


def test_the_comparison_sees_swapped_colours(module: torch.nn.Module) -> None:
    ours, swapped = (np.sort(module(image)[1].numpy())[-20:] for image in (photo(96, 128), photo(96, 128).flip(1)))
    assert np.abs(ours - swapped).max() > 0.005


def test_large_faces_are_looked_for_on_a_reduced_copy_too(module: torch.nn.Module) -> None:
    """The network was trained on faces of 10 to 300 px."""
    image = torch.nn.functional.interpolate(photo(240, 160), size=(600, 400), mode="bilinear")
    reduced = torch.nn.functional.interpolate(image, size=(480, 320), mode="bilinear", antialias=True)
    both, whole, small = module(image), module._search(image), module._search(reduced)
    for found, first, second, factor in zip(both, whole, small, (1.25, 1, 1.25), strict=True):
        torch.testing.assert_close(found, torch.cat((first, second * factor)), rtol=1e-5, atol=1e-3)
    assert len(small[1]) > 100
    # Where no face can be that large there is one search.
    image = photo(300, 310)
    assert len(module(image)[1]) == len(module._search(image)[1])


def test_detection_takes_it(module: torch.nn.Module) -> None:
    faces, none = detect(module, torch.cat([photo(96, 128), torch.full((1, 3, 96, 128), float("nan"))]), min_score=0.9)
    assert faces
    assert none == []
    assert all(0.9 <= face["score"] <= 1 for face in faces)
    assert all(0 <= face["box"][0] < face["box"][2] <= 128 for face in faces)


def test_several_threads_and_copies_may_use_it(module: torch.nn.Module) -> None:
    images = [photo(60 + 10 * i, 128) for i in range(6)]
    alone = [module(image) for image in images]
    twin = copy.deepcopy(module)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda pair: pair[0](pair[1]), zip([module, twin] * 3, images, strict=True)))
    for one, other in zip(alone, together, strict=True):
        for a, b in zip(one, other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5)


def test_it_is_ready_for_the_pool(module: torch.nn.Module, graph: bytes) -> None:
    held = sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
    assert held == len(graph)
    # The published file has this shape: what else it holds are longer names.
    assert 0 < SPEC.weights[0].size_bytes - held < 5_000
    assert SPEC.weight_bytes == SPEC.weights[0].size_bytes
    assert module.to(torch.float32).onnx_file.dtype == torch.uint8
    assert list(module.parameters()) == []


def test_it_says_nothing_on_stderr(module: torch.nn.Module, graph: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    module(photo(40, 40))
    with pytest.raises(WeightsFormatError):
        SPEC.build({"onnx_file": torch.frombuffer(bytearray(graph[:100]), dtype=torch.uint8)})
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 32, 32), (3, 32, 32), (1, 3, 32, 0)])
def test_other_shapes_are_refused(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="one photo"):
        module(torch.zeros(shape))


@pytest.mark.parametrize("state", [{}, {"onnx_file": torch.zeros(4, 4)}, {"conv.weight": torch.zeros(3)}])
def test_other_weights_are_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsFormatError, match="no ONNX file"):
        SPEC.build(state)


def test_another_graph_is_refused() -> None:
    entry, exit_ = (helper.make_tensor_value_info(name, 1, [1, 3, 8, 8]) for name in ("input", "output"))
    made = helper.make_graph([helper.make_node("Relu", ["input"], ["output"])], "relu", [entry], [exit_])
    content = helper.make_model(made, opset_imports=[helper.make_opsetid("", 11)], ir_version=6).SerializeToString()
    with pytest.raises(WeightsFormatError, match="not those of YuNet: OpenCV"):
        SPEC.build({"onnx_file": torch.frombuffer(bytearray(content), dtype=torch.uint8)})


def test_outputs_of_another_size_are_refused() -> None:
    """OpenCV would read beyond their end."""
    model = onnx.load_from_string(yunet())
    for node in model.graph.node:
        if node.name == "bbox_16":
            node.input[0] = "kps_8.last"
    with pytest.raises(WeightsFormatError, match="outputs of another size: bbox_16"):
        SPEC.build({"onnx_file": torch.frombuffer(bytearray(model.SerializeToString()), dtype=torch.uint8)})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "has 0 bytes"),
        (b"<!DOCTYPE html>", "no ONNX file"),
        (b"\0" * 100, "no ONNX file"),
        (b"\xff" * 100, "no ONNX file"),
        (b"\x08\x06", "no ONNX file"),  # a message without a graph
        (b"\x3a\xff\xff\xff\xff\x0f", "no ONNX file"),  # a graph longer than the file
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:8f23\nsize 232589\n", "a pointer to the file"),
    ],
)
def test_what_is_no_onnx_file_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "face.onnx"
    path.write_bytes(content)
    with pytest.raises(WeightsFormatError, match=message):
        read_state_dict(path)


def test_a_file_that_is_cut_short_huge_or_not_there_is_refused(tmp_path: Path, graph: bytes) -> None:
    path = tmp_path / "face.onnx"
    for size in (1, 1000, len(graph) - 1):
        path.write_bytes(graph[:size])
        with pytest.raises(WeightsFormatError, match="cut short"):
            read_state_dict(path)
    with path.open("wb") as stream:
        stream.truncate(65 * 2**20)
    with pytest.raises(WeightsFormatError, match="no ONNX file here"):
        read_state_dict(path)
    path.unlink()
    with pytest.raises(WeightsFormatError, match="cannot be read"):
        read_state_dict(path)


def test_the_pool_runs_the_file_as_it_lies(graph: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "models" / SPEC.weights[0].filename
    path.parent.mkdir()
    path.write_bytes(graph)
    file = replace(SPEC.weights[0], size_bytes=len(graph), sha256=sha256_of(path))
    spec = replace(SPEC, weights=(file,))
    faces = inference.run(
        spec, lambda network: detect(network.module, photo(64, 64), min_score=0.5), height=192, width=192
    )
    assert len(faces[0]) > 0
    assert not list((tmp_path / "cache").glob("weights/*"))  # no copy in another format
    path.write_bytes(graph.replace(b"stage1.a", b"stage1.z"))
    with pytest.raises(WeightsCorruptError, match="has sha256"):
        weights.load_module(spec)


@pytest.mark.skipif(not REAL.is_file(), reason="needs PHOTOKEEP_REAL_MODELS with the published YuNet")
@pytest.mark.parametrize("scale", [1, 2])
def test_the_published_file_finds_the_astronaut(scale: int) -> None:
    assert sha256_of(REAL) == SPEC.weights[0].sha256
    real = SPEC.build(read_state_dict(REAL))
    image = torch.from_numpy(data.astronaut() / np.float32(255)).permute(2, 0, 1)[None]
    ((face,),) = detect(real, torch.nn.functional.interpolate(image, scale_factor=scale, mode="bilinear"))
    # Measured by eye, see tests/ops/test_detect_faces.py.
    wanted = [[203, 101], [246, 103], [224, 127], [204, 141], [244, 141]]
    np.testing.assert_allclose(np.array(face["landmarks"]) / scale, wanted, atol=5)
