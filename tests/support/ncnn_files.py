"""Writes the two files of small ncnn networks."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

FP16 = 0x01306B47


class NcnnWriter:
    """Writes the two files of an ncnn network, layer by layer."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.blob = io.BytesIO()
        self.arrays: list[np.ndarray] = []
        self.random = np.random.default_rng(7)

    def op(self, kind: str) -> None:
        self.lines.append(f"{kind:16} layer{len(self.lines)} 1 1 a b 0=1")

    def conv(self, inputs: int, out: int, *, leaky: bool = False, fp16: bool = True, options: str = "") -> None:
        count = out * inputs * 9
        fused = " 9=2 -23310=1,2.000000e-01" if leaky else ""
        self.lines.append(f"Convolution layer{len(self.lines)} 1 1 a b 0={out} 1=3 4=1 5=1 6={count}{fused}{options}")
        weight = self.random.normal(0, 0.1, (out, inputs, 3, 3)).astype(np.float16 if fp16 else np.float32)
        bias = self.random.normal(0, 0.1, out).astype(np.float32)
        raw = weight.tobytes()
        self.blob.write(struct.pack("<I", FP16 if fp16 else 0) + raw + b"\0" * (-len(raw) % 4) + bias.tobytes())
        self.arrays += [weight.astype(np.float32), bias]

    def prelu(self, channels: int) -> None:
        self.lines.append(f"PReLU layer{len(self.lines)} 1 1 a b 0={channels}")
        slope = self.random.normal(0, 0.1, channels).astype(np.float32)
        self.blob.write(slope.tobytes())
        self.arrays.append(slope)

    def save(self, folder: Path) -> tuple[Path, Path]:
        param, binary = folder / "net.param", folder / "net.bin"
        param.write_text("\n".join(["7767517", f"{len(self.lines)} {len(self.lines)}", *self.lines]) + "\n")
        binary.write_bytes(self.blob.getvalue())
        return param, binary


def rrdbnet(*, features: int = 8, grow: int = 4, blocks: int = 2, fp16: bool = True) -> NcnnWriter:
    net = NcnnWriter()
    net.op("Input")
    net.conv(3, features, fp16=fp16)
    for _ in range(blocks):
        for _ in range(3):
            for i in range(4):
                net.conv(features + i * grow, grow, leaky=True, fp16=fp16)
                net.op("Concat")
            net.conv(features + 4 * grow, features, fp16=fp16)
            net.op("Eltwise")
        net.op("Eltwise")
    net.conv(features, features, fp16=fp16)
    net.op("BinaryOp")
    for i in range(3):
        if i < 2:
            net.op("Interp")
        net.conv(features, features, leaky=True, fp16=fp16)
    net.conv(features, 3, fp16=fp16)
    return net


def srvgg(*, features: int = 6, depth: int = 3) -> NcnnWriter:
    net = NcnnWriter()
    net.op("Input")
    net.op("Split")
    for i in range(depth):
        net.conv(3 if i == 0 else features, features)
        net.prelu(features)
    net.conv(features, 48)
    for kind in ("PixelShuffle", "Interp", "BinaryOp"):
        net.op(kind)
    return net
