"""An ONNX graph of YuNet's shape, as its publisher exports it: fixed input, folded normalisations, twelve outputs.

The published file is a download. Its weights are random here; its size tells which of the two YuNets it is: 53,104
folded weights (Wu et al.'s YuNet-s, whose 54,608 parameters include the normalisations).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

STRIDES = (8, 16, 32)
OUTPUTS = {"cls": 1, "obj": 1, "bbox": 4, "kps": 10}
"""Values per cell of each map."""

_STAGES = ((16, 32), (32, 64), (64, 64), (64, 64), (64, 64))
_HALVED_AFTER = (0, 2, 3, 4)
_SIDE = 640


class _Graph:
    def __init__(self, seed: int) -> None:
        self.random = np.random.RandomState(seed)
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def constant(self, name: str, values: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(values, name))
        return name

    def node(self, kind: str, name: str, inputs: list[str], **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def convolution(self, name: str, x: str, inputs: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1):
        fan_in = inputs // groups * kernel**2
        weight = self.random.standard_normal((out, inputs // groups, kernel, kernel)) * np.sqrt(1.6 / fan_in)
        bias = 0.1 * self.random.standard_normal(out)
        return self.node(
            "Conv",
            name,
            [
                x,
                self.constant(f"{name}.weight", weight.astype(np.float32)),
                self.constant(f"{name}.bias", bias.astype(np.float32)),
            ],
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[kernel // 2] * 4,
            group=groups,
        )

    def separable(self, name: str, x: str, inputs: int, out: int, *, activated: bool = True) -> str:
        x = self.convolution(f"{name}.conv1", x, inputs, out, 1)
        x = self.convolution(f"{name}.conv2", x, out, out, 3, groups=out)
        return self.node("Relu", f"{name}.relu", [x]) if activated else x


def _body(graph: _Graph) -> list[str]:
    # The photo comes in 0 to 255; the published first layer scales it down the same way, by small weights.
    x = graph.node("Mul", "scaled", ["input", graph.constant("scale", np.float32(1 / 128))])
    x = graph.node("Relu", "head.relu", [graph.convolution("head", x, 3, 16, 3, stride=2)])
    x = graph.separable("head.unit", x, 16, 16)
    maps = []
    for index, (inputs, out) in enumerate(((16, 16), *_STAGES)):
        if index:
            x = graph.separable(f"stage{index}.a", x, inputs, inputs)
            x = graph.separable(f"stage{index}.b", x, inputs, out)
        if index >= 3:
            maps.append(x)
        if index in _HALVED_AFTER:
            x = graph.node("MaxPool", f"pool{index}", [x], kernel_shape=[2, 2], strides=[2, 2])
    return maps


def _neck(graph: _Graph, maps: list[str]) -> list[str]:
    scales = graph.constant("twice", np.array([1, 1, 2, 2], np.float32))
    maps = list(maps)
    for index in (2, 1, 0):
        maps[index] = graph.separable(f"neck{index}", maps[index], 64, 64)
        if index:
            up = graph.node(
                "Resize",
                f"up{index}",
                [maps[index], "", scales],
                mode="nearest",
                nearest_mode="floor",
                coordinate_transformation_mode="asymmetric",
            )
            maps[index - 1] = graph.node("Add", f"sum{index}", [maps[index - 1], up])
    return maps


def yunet(seed: int = 0) -> bytes:
    """A file's bytes."""
    graph = _Graph(seed)
    outputs = []
    for map_, stride in zip(_neck(graph, _body(graph)), STRIDES, strict=True):
        for kind, values in OUTPUTS.items():
            name = f"{kind}_{stride}"
            x = graph.separable(f"{name}.unit", map_, 64, values, activated=False)
            x = graph.node("Transpose", f"{name}.last", [x], perm=[0, 2, 3, 1])
            shape = graph.constant(f"{name}.shape", np.array([1, -1, values]))
            if kind in ("cls", "obj"):
                x = graph.node("Reshape", f"{name}.rows", [x, shape])
                graph.node("Sigmoid", name, [x])
            else:
                graph.node("Reshape", name, [x, shape])
            cells = (_SIDE // stride) ** 2
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, cells, values]))
    entry = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, _SIDE, _SIDE])
    made = helper.make_graph(graph.nodes, "yunet", [entry], outputs, graph.tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    return model.SerializeToString()
