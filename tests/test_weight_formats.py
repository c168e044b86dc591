from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.weight_formats import read_ncnn, read_pickle, read_safetensors, read_state_dict

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


@pytest.mark.parametrize("fp16", [True, False])
def test_rrdbnet_is_read_in_order_and_to_the_last_byte(tmp_path: Path, fp16: bool) -> None:
    net = rrdbnet(fp16=fp16)
    param, binary = net.save(tmp_path)
    state = read_state_dict(binary, param_path=param, key_map="rrdbnet")
    assert len(state) == len(net.arrays) == 2 * (6 + 15 * 2)
    # names were appended in file order, which is how the arrays were written
    for (name, tensor), array in zip(state.items(), net.arrays, strict=True):
        assert tensor.dtype == torch.float32
        np.testing.assert_array_equal(tensor.numpy(), array, err_msg=name)
    assert list(state)[:4] == [
        "conv_first.weight",
        "conv_first.bias",
        "body.0.rdb1.conv1.weight",
        "body.0.rdb1.conv1.bias",
    ]
    assert list(state)[-2:] == ["conv_last.weight", "conv_last.bias"]


def test_odd_fp16_kernels_are_padded_to_four_bytes(tmp_path: Path) -> None:
    net = NcnnWriter()
    net.conv(1, 1)  # 9 halves = 18 bytes + 2 of padding
    net.conv(1, 1)
    param, binary = net.save(tmp_path)
    layers = read_ncnn(param, binary)
    assert binary.stat().st_size == 2 * (4 + 20 + 4)
    np.testing.assert_array_equal(layers[1].weight.astype(np.float32), net.arrays[2])


def test_srvgg_alternates_convolutions_and_slopes(tmp_path: Path) -> None:
    net = srvgg()
    param, binary = net.save(tmp_path)
    state = read_state_dict(binary, param_path=param, key_map="srvgg")
    assert sorted(state) == sorted(
        [f"body.{i}.{kind}" for i in (0, 2, 4, 6) for kind in ("weight", "bias")]
        + [f"body.{i}.weight" for i in (1, 3, 5)]
    )
    np.testing.assert_array_equal(state["body.1.weight"].numpy(), net.arrays[2])
    np.testing.assert_array_equal(state["body.6.bias"].numpy(), net.arrays[-1])


def damage_truncate(net: NcnnWriter) -> None:
    net.blob = io.BytesIO(net.blob.getvalue()[:-5])


def damage_trailing(net: NcnnWriter) -> None:
    net.blob = io.BytesIO(net.blob.getvalue() + b"\0\0\0\0")


def damage_flag(net: NcnnWriter) -> None:
    net.blob = io.BytesIO(b"\x39\x30\0\0" + net.blob.getvalue()[4:])


def damage_huge_count(net: NcnnWriter) -> None:
    net.lines[1] = "Convolution c 1 1 a b 0=4096 1=3 5=1 6=1509949440"


def damage_negative(net: NcnnWriter) -> None:
    net.lines[1] = "Convolution c 1 1 a b 0=-8 1=3 5=1 6=216"


def damage_count_that_is_no_kernel(net: NcnnWriter) -> None:
    net.lines[1] = net.lines[1].replace("6=216", "6=217")


def damage_unknown_kind(net: NcnnWriter) -> None:
    net.lines[1] = "InnerProduct c 1 1 a b 0=8 1=1 2=216"


def damage_option(net: NcnnWriter) -> None:
    net.lines[1] += " banana"


def damage_activation(net: NcnnWriter) -> None:
    net.lines[1] += " 9=1"


def damage_line(net: NcnnWriter) -> None:
    net.lines[1] = "Convolution c"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_truncate, "cut short"),
        (damage_trailing, "4 bytes more"),
        (damage_flag, "flag 0x00003039"),
        (damage_huge_count, "are left"),
        (damage_negative, "outside 1 to"),
        (damage_count_that_is_no_kernel, "217 weights"),
        (damage_unknown_kind, "InnerProduct"),
        (damage_option, "banana"),
        (damage_activation, "activation"),
        (damage_line, "no layer"),
    ],
)
def test_a_damaged_ncnn_network_is_refused(tmp_path: Path, damage, message: str) -> None:
    net = rrdbnet()
    damage(net)
    param, binary = net.save(tmp_path)
    with pytest.raises(WeightsFormatError, match=message):
        read_state_dict(binary, param_path=param, key_map="rrdbnet")


@pytest.mark.parametrize(
    "text", ["", "banana\n1 1\n", "7767517\n", "7767517\n3 3\nInput a 0 1 b\n", "7767517\n-1 0\n", "7767517\n1 é\n"]
)
def test_a_text_that_is_no_network_is_refused(tmp_path: Path, text: str) -> None:
    param, binary = rrdbnet().save(tmp_path)
    param.write_text(text, encoding="utf-8")
    with pytest.raises(WeightsFormatError):
        read_state_dict(binary, param_path=param, key_map="rrdbnet")


@pytest.mark.parametrize("key_map", ["rrdbnet", "srvgg"])
def test_another_network_is_refused(tmp_path: Path, key_map: str) -> None:
    (tmp_path / "a").mkdir()
    param, binary = (srvgg() if key_map == "rrdbnet" else rrdbnet()).save(tmp_path / "a")
    with pytest.raises(WeightsFormatError, match="not an"):
        read_state_dict(binary, param_path=param, key_map=key_map)


def test_an_rrdbnet_without_its_activation_is_refused(tmp_path: Path) -> None:
    net = rrdbnet()
    net.lines[2] = net.lines[2].replace(" 9=2 -23310=1,2.000000e-01", "")
    param, binary = net.save(tmp_path)
    with pytest.raises(WeightsFormatError, match=r"cannot be body\.0\.rdb1\.conv1"):
        read_state_dict(binary, param_path=param, key_map="rrdbnet")


def test_an_rrdbnet_for_another_scale_is_refused(tmp_path: Path) -> None:
    net = rrdbnet()
    net.op("Interp")
    param, binary = net.save(tmp_path)
    with pytest.raises(WeightsFormatError, match="3 layers of kind Interp, not 2"):
        read_state_dict(binary, param_path=param, key_map="rrdbnet")


def test_ncnn_needs_text_and_key_map(tmp_path: Path) -> None:
    param, binary = rrdbnet().save(tmp_path)
    with pytest.raises(WeightsFormatError, match="both"):
        read_state_dict(binary, param_path=param)
    with pytest.raises(WeightsFormatError, match="both"):
        read_state_dict(binary, key_map="rrdbnet")


def test_missing_files_are_typed_errors(tmp_path: Path) -> None:
    param, binary = rrdbnet().save(tmp_path)
    for call in (
        lambda: read_state_dict(tmp_path / "none.bin", param_path=param, key_map="rrdbnet"),
        lambda: read_state_dict(binary, param_path=tmp_path / "none.param", key_map="rrdbnet"),
        lambda: read_state_dict(tmp_path / "none.safetensors"),
        lambda: read_state_dict(tmp_path / "none.pth"),
    ):
        with pytest.raises(WeightsFormatError, match="cannot be read"):
            call()


def test_nan_in_ncnn_weights_is_refused(tmp_path: Path) -> None:
    net = srvgg()
    raw = bytearray(net.blob.getvalue())
    raw[4:6] = np.array([np.nan], dtype="<f2").tobytes()
    net.blob = io.BytesIO(bytes(raw))
    param, binary = net.save(tmp_path)
    with pytest.raises(WeightsFormatError, match=r"not numbers \(in body\.0\.weight\)"):
        read_state_dict(binary, param_path=param, key_map="srvgg")


STATE = {"a.weight": torch.arange(12.0).reshape(3, 4), "a.bias": torch.zeros(3), "steps": torch.tensor(5)}


def assert_same(state: dict[str, torch.Tensor]) -> None:
    assert state.keys() == STATE.keys()
    for name, tensor in STATE.items():
        torch.testing.assert_close(state[name], tensor, rtol=0, atol=0)


def test_safetensors_round_trip(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    assert_same(read_state_dict(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, (2**60).to_bytes(8, "little") + b"{}"])
def test_a_damaged_safetensors_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsFormatError):
        read_safetensors(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, value: float) -> None:
    bad = torch.ones(2, 3, 4)
    bad[1, 2, 3] = value
    save_file({"good": torch.ones(3), "bad": bad}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsFormatError, match=r"in bad"):
        read_state_dict(tmp_path / "w.safetensors")


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "wrappers", [(), ("params_ema",), ("params",), ("g_ema",), ("state_dict",), ("state_dict", "params")]
)
def test_checkpoints_are_unwrapped(tmp_path: Path, wrappers: tuple[str, ...], legacy: bool) -> None:
    loaded: dict = OrderedDict(STATE)
    for wrapper in reversed(wrappers):
        loaded = {wrapper: loaded, "epoch": 3}
    torch.save(loaded, tmp_path / "w.pth", _use_new_zipfile_serialization=not legacy)
    assert_same(read_state_dict(tmp_path / "w.pth"))


def test_averaged_weights_are_preferred(tmp_path: Path) -> None:
    torch.save({"params": {"a": torch.zeros(1)}, "params_ema": {"a": torch.ones(1)}}, tmp_path / "w.pth")
    assert read_pickle(tmp_path / "w.pth")["a"].item() == 1.0


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def raw_pickle(path: Path, loaded: object) -> None:
    path.write_bytes(pickle.dumps(loaded, protocol=2))


def zip_pickle(path: Path, loaded: object) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(loaded, protocol=2))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")


@pytest.mark.parametrize("write", [raw_pickle, zip_pickle, torch.save])
def test_a_pickle_that_runs_code_is_refused_and_does_not_run(tmp_path: Path, write) -> None:
    target = tmp_path / "owned"
    evil = {"params": {"a": Evil(target)}}
    if write is torch.save:
        torch.save(evil, tmp_path / "w.pth")
    else:
        write(tmp_path / "w.pth", evil)
    with pytest.raises(WeightsFormatError, match=r"refused|cannot be read"):
        read_state_dict(tmp_path / "w.pth")
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"PK\x03\x04" + b"\0" * 40, b"<html>rate limited</html>"])
def test_a_damaged_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsFormatError):
        read_state_dict(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(4096)}, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(WeightsFormatError):
        read_state_dict(path)


def test_a_compressed_archive_is_refused(tmp_path: Path) -> None:
    """A bomb: torch stores its members as they are, so compressed ones were not written by it."""
    path, packed = tmp_path / "w.pth", tmp_path / "packed.pth"
    torch.save({"a": torch.zeros(100_000)}, path)
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    assert packed.stat().st_size < 10_000
    with pytest.raises(WeightsFormatError, match="compressed"):
        read_state_dict(packed)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_view_larger_than_the_file_is_refused(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(1).expand(10**11)}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsFormatError, match="larger than the file"):
        read_state_dict(path)


@pytest.mark.parametrize("loaded", [{}, [], 5, {"params": {}}, {"a": 3}, {3: torch.ones(1)}])
def test_a_checkpoint_without_tensors_is_refused(tmp_path: Path, loaded: object) -> None:
    torch.save(loaded, tmp_path / "w.pth")
    with pytest.raises(WeightsFormatError, match="holds no state dict"):
        read_state_dict(tmp_path / "w.pth")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").mkdir()
    with pytest.raises(WeightsFormatError):
        read_state_dict(tmp_path / "w.pth")
