"""Reader of ncnn networks: a ``.param`` text and a ``.bin`` of weights, into named PyTorch tensors.

No count from the text is believed before it has been held against what the ``.bin`` still holds, and the whole ``.bin``
must be consumed, so that a text and weights that do not belong together cannot pass.

Source of the layout: the ``.param`` text and ``ModelBinFromDataReader`` of https://github.com/Tencent/ncnn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .errors import WeightsFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    import numpy.typing as npt
    import torch

    Array = npt.NDArray[np.float16] | npt.NDArray[np.float32]

MAX_PARAM_BYTES = 4 * 2**20
MAX_BIN_BYTES = 16 * 2**30
_MAX_CHANNELS = 65_536
_MAX_KERNEL = 31

_PARAM_MAGIC = "7767517"
_FLAG_FP16 = 0x01306B47
_FLAG_FP32 = 0
_WEIGHTLESS = frozenset({"Input", "Split", "Concat", "Eltwise", "BinaryOp", "Interp", "PixelShuffle"})


@dataclass(frozen=True)
class NcnnLayer:
    """One layer of an ncnn network.

    Attributes:
        kind: ncnn's type, for instance "Convolution".
        name: name in the ``.param`` file.
        weight: (out, in, k, k) kernel as stored, float16 or float32; None for other kinds.
        bias: (out,) float32; None without one.
        slope: (channels,) float32 of a PReLU; None for other kinds.
        leaky: slope of a LeakyReLU fused behind a convolution; None without one.
    """

    kind: str
    name: str
    weight: Array | None = None
    bias: npt.NDArray[np.float32] | None = None
    slope: npt.NDArray[np.float32] | None = None
    leaky: float | None = None


def read_ncnn(param_path: Path, bin_path: Path) -> list[NcnnLayer]:
    """Read an ncnn network's layers with their weights.

    Args:
        param_path: the network text.
        bin_path: the weights, which must be consumed exactly.
    Returns:
        All layers in file order; those without weights carry none.
    Raises:
        WeightsFormatError: unreadable text, a layer kind whose size is not known, sizes that disagree, bytes left over.
    """
    try:
        left = _size_bytes(bin_path, MAX_BIN_BYTES)
        _size_bytes(param_path, MAX_PARAM_BYTES)
        lines = param_path.read_text(encoding="ascii").splitlines()
        with bin_path.open("rb") as stream:
            reader = _BinReader(stream, left, bin_path)
            layers = [reader.layer(line) for line in _layer_lines(lines, param_path)]
    except (OSError, UnicodeDecodeError) as error:
        raise WeightsFormatError(
            f"{bin_path.name} cannot be read as an ncnn network: {error}",
            path=str(bin_path),
            param_path=str(param_path),
        ) from error
    if reader.left:
        raise WeightsFormatError(
            f"{bin_path.name} has {reader.left} bytes more than {param_path.name} accounts for", path=str(bin_path)
        )
    return layers


def _size_bytes(path: Path, limit: int) -> int:
    size_bytes = path.stat().st_size
    if not 0 < size_bytes <= limit:
        raise WeightsFormatError(f"{path.name} has {size_bytes} bytes, outside 1 to {limit}", path=str(path))
    return size_bytes


def _layer_lines(lines: Sequence[str], path: Path) -> list[list[str]]:
    head = [line.split() for line in lines if line.strip()]
    if len(head) < 2 or head[0] != [_PARAM_MAGIC] or len(head[1]) != 2 or not head[1][0].isdecimal():
        raise WeightsFormatError(f"{path.name} is not an ncnn network text", path=str(path))
    rows = head[2:]
    if len(rows) != int(head[1][0]):
        raise WeightsFormatError(f"{path.name} announces {head[1][0]} layers and lists {len(rows)}", path=str(path))
    for row in rows:
        if len(row) < 4 or not row[2].isdecimal() or not row[3].isdecimal():
            raise WeightsFormatError(f"{path.name} has a line that is no layer: {' '.join(row)[:80]}", path=str(path))
    return rows


class _BinReader:
    """Takes arrays off an ncnn ``.bin``, never more than the file still holds."""

    def __init__(self, stream: BinaryIO, left: int, path: Path) -> None:
        self._stream = stream
        self._path = path
        self.left = left

    def layer(self, row: Sequence[str]) -> NcnnLayer:
        kind, name = row[0], row[1]
        values = self._params(row)
        if kind in _WEIGHTLESS:
            return NcnnLayer(kind, name)
        if kind == "PReLU":
            return NcnnLayer(kind, name, slope=self._floats(self._int(values, name, 0, low=1, high=_MAX_CHANNELS)))
        if kind != "Convolution":
            raise self._wrong(f"layer {name} is of kind {kind}, which is not supported")
        out = self._int(values, name, 0, low=1, high=_MAX_CHANNELS)
        kernel = self._int(values, name, 1, low=1, high=_MAX_KERNEL)
        has_bias = self._int(values, name, 5, low=0, high=1, default=0)
        count = self._int(values, name, 6, low=1, high=MAX_BIN_BYTES)
        inputs, rest = divmod(count, out * kernel * kernel)
        if rest or not 1 <= inputs <= _MAX_CHANNELS:
            raise self._wrong(f"layer {name} has {count} weights, which is no {out} x n x {kernel} x {kernel} kernel")
        weight = self._kernel(count, name).reshape(out, inputs, kernel, kernel)
        bias = self._floats(out) if has_bias else None
        return NcnnLayer(kind, name, weight=weight, bias=bias, leaky=self._leaky(values, name))

    def _params(self, row: Sequence[str]) -> dict[int, str]:
        values: dict[int, str] = {}
        for word in row[4 + int(row[2]) + int(row[3]) :]:
            key, _, value = word.partition("=")
            try:
                values[int(key)] = value
            except ValueError:
                raise self._wrong(f"layer {row[1]} has an option that is none: {word[:40]}") from None
        return values

    def _int(
        self, values: Mapping[int, str], name: str, key: int, *, low: int, high: int, default: int | None = None
    ) -> int:
        text = values.get(key, None if default is None else str(default))
        try:
            number = int(text) if text is not None else None
        except ValueError:
            number = None
        if number is None or not low <= number <= high:
            raise self._wrong(f"layer {name} has option {key}={text}, outside {low} to {high}")
        return number

    def _leaky(self, values: Mapping[int, str], name: str) -> float | None:
        """Slope of the fused activation: option 9 is its kind (2 = leaky), option -23310 its parameters, counted."""
        kind = self._int(values, name, 9, low=0, high=2, default=0)
        if kind == 0:
            return None
        count, _, slope = values.get(-23310, "").partition(",")
        try:
            if kind == 2 and int(count) == 1:
                return float(slope)
        except ValueError:
            pass
        raise self._wrong(f"layer {name} has a fused activation that is not supported")

    def _kernel(self, count: int, name: str) -> Array:
        flag = int.from_bytes(self._take(4), "little")
        if flag == _FLAG_FP16:
            padded = self._take(-(-2 * count // 4) * 4)  # ncnn aligns to 4 bytes
            return np.frombuffer(padded, dtype="<f2", count=count)
        if flag == _FLAG_FP32:
            return np.frombuffer(self._take(4 * count), dtype="<f4")
        raise self._wrong(f"layer {name} is stored in a form that is not supported (flag 0x{flag:08x})")

    def _floats(self, count: int) -> npt.NDArray[np.float32]:
        return np.frombuffer(self._take(4 * count), dtype="<f4")

    def _take(self, n_bytes: int) -> bytes:
        # Checked first: the count comes from a text file, and must not make us allocate what the file does not hold.
        if n_bytes > self.left:
            raise self._wrong(f"{n_bytes} bytes are announced where {self.left} are left: it is cut short")
        taken = self._stream.read(n_bytes)
        if len(taken) != n_bytes:
            raise self._wrong("it shrank while it was read")
        self.left -= n_bytes
        return taken

    def _wrong(self, what: str) -> WeightsFormatError:
        return WeightsFormatError(f"{self._path.name}: {what}", path=str(self._path))


def rrdbnet(layers: Sequence[NcnnLayer]) -> dict[str, torch.Tensor]:
    """Name the convolutions of an RRDBNet x4 (ESRGAN, Real-ESRGAN x4plus) as its PyTorch checkpoints do.

    Their order and shapes are checked, as are the fused activations and the operations between them.

    Raises:
        WeightsFormatError: another network.
    """
    convolutions = _convolutions(layers, "RRDBNet x4")
    blocks, rest = divmod(len(convolutions) - 6, 15)
    if blocks < 1 or rest:
        raise WeightsFormatError(f"not an RRDBNet x4: {len(convolutions)} convolutions")
    features, grow = convolutions[0].weight.shape[0], convolutions[1].weight.shape[0]
    expected: list[tuple[str, int, int, bool]] = [("conv_first", 3, features, False)]
    for block in range(blocks):
        for dense in range(1, 4):
            name = f"body.{block}.rdb{dense}.conv"
            expected.extend((f"{name}{i}", features + (i - 1) * grow, grow, True) for i in range(1, 5))
            expected.append((f"{name}5", features + 4 * grow, features, False))
    expected.append(("conv_body", features, features, False))
    expected.extend((name, features, features, True) for name in ("conv_up1", "conv_up2", "conv_hr"))
    expected.append(("conv_last", features, 3, False))
    counts = {"Concat": 12 * blocks, "Eltwise": 4 * blocks, "BinaryOp": 1, "Interp": 2}
    _check_operations(layers, counts, "RRDBNet x4")
    return _named(convolutions, expected, leaky=0.2)


def srvgg(layers: Sequence[NcnnLayer]) -> dict[str, torch.Tensor]:
    """Name the layers of an SRVGGNetCompact with PReLU as its PyTorch checkpoints do.

    Raises:
        WeightsFormatError: another network.
    """
    convolutions = _convolutions(layers, "SRVGGNetCompact")
    slopes = [layer for layer in layers if layer.kind == "PReLU"]
    kinds = [layer.kind for layer in layers if layer.kind in ("Convolution", "PReLU")]
    if len(convolutions) < 2 or kinds != ["Convolution", "PReLU"] * len(slopes) + ["Convolution"]:
        raise WeightsFormatError("not an SRVGGNetCompact: convolutions and PReLU do not alternate")
    _check_operations(layers, {"Interp": 1, "PixelShuffle": 1, "BinaryOp": 1}, "SRVGGNetCompact")
    features, out = convolutions[0].weight.shape[0], convolutions[-1].weight.shape[0]
    last = len(convolutions) - 1
    expected = [
        (f"body.{2 * i}", 3 if i == 0 else features, out if i == last else features, False) for i in range(last + 1)
    ]
    state = _named(convolutions, expected, leaky=0.0)
    for i, layer in enumerate(slopes):
        if layer.slope is None or layer.slope.shape != (features,):
            raise WeightsFormatError(f"not an SRVGGNetCompact: PReLU {layer.name} has another width")
        state[f"body.{2 * i + 1}.weight"] = _tensor(layer.slope)
    return state


@dataclass(frozen=True)
class _Convolution:
    name: str
    weight: Array
    bias: npt.NDArray[np.float32]
    leaky: float | None


def _convolutions(layers: Sequence[NcnnLayer], what: str) -> list[_Convolution]:
    found = []
    for layer in layers:
        if layer.kind == "Convolution":
            if layer.weight is None or layer.bias is None:
                raise WeightsFormatError(f"not an {what}: convolution {layer.name} has no bias")
            found.append(_Convolution(layer.name, layer.weight, layer.bias, layer.leaky))
    return found


def _check_operations(layers: Sequence[NcnnLayer], counts: Mapping[str, int], what: str) -> None:
    for kind in ("Concat", "Eltwise", "BinaryOp", "Interp", "PixelShuffle"):
        found = sum(layer.kind == kind for layer in layers)
        if found != counts.get(kind, 0):
            raise WeightsFormatError(f"not an {what}: {found} layers of kind {kind}, not {counts.get(kind, 0)}")


def _named(
    convolutions: Sequence[_Convolution], expected: Sequence[tuple[str, int, int, bool]], *, leaky: float
) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = {}
    for layer, (name, inputs, out, activated) in zip(convolutions, expected, strict=True):
        slope = leaky if activated else None
        if layer.weight.shape != (out, inputs, 3, 3) or layer.leaky != slope:
            raise WeightsFormatError(
                f"layer {layer.name} cannot be {name}: it is {layer.weight.shape} with slope {layer.leaky}, "
                f"not {(out, inputs, 3, 3)} with {slope}"
            )
        state[f"{name}.weight"] = _tensor(layer.weight)
        state[f"{name}.bias"] = _tensor(layer.bias)
    return state


def _tensor(array: Array) -> torch.Tensor:
    import torch

    return torch.from_numpy(array.astype(np.float32))  # a copy: the array lies in a read-only buffer
