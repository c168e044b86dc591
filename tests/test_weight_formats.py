from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import pickle
import tarfile
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from ncnn_files import NcnnWriter, rrdbnet, srvgg
from safetensors.torch import save_file

from photokeep_nodes import weight_formats
from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.weight_formats import read_ncnn, read_pickle, read_safetensors, read_state_dict

if TYPE_CHECKING:
    from pathlib import Path


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


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("kept", [30, 100, 400])
def test_a_checkpoint_that_ends_in_its_head_is_said_to_be_cut_short(tmp_path: Path, legacy: bool, kept: int) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(4096)}, path, _use_new_zipfile_serialization=not legacy)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsFormatError, match="cut short"):
        read_state_dict(path)


def test_a_seek_to_before_the_beginning_is_told_as_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_args: object, **_options: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    torch.save(STATE, tmp_path / "w.pth")
    monkeypatch.setattr(torch, "load", load)
    with pytest.raises(WeightsFormatError, match="cut short"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("page", [b"<html>rate limited</html>", b"\xef\xbb\xbf\n <!DOCTYPE html>"])
def test_a_web_page_is_called_one(tmp_path: Path, page: bytes) -> None:
    (tmp_path / "w.pth").write_bytes(page)
    with pytest.raises(WeightsFormatError, match="is a web page"):
        read_state_dict(tmp_path / "w.pth")


def test_a_safetensors_under_another_name_is_called_one(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "w.pth")
    with pytest.raises(WeightsFormatError, match="is a safetensors file") as caught:
        read_state_dict(tmp_path / "w.pth")
    assert "Rename it to w.safetensors" in caught.value.hint


def test_the_case_of_a_suffix_does_not_matter(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "W.SAFETENSORS")
    assert_same(read_state_dict(tmp_path / "W.SAFETENSORS"))


# -- types of weights ------------------------------------------------------------------------------------------------

FLOAT8 = (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz)


@pytest.mark.parametrize("dtype", FLOAT8)
def test_float8_is_checked_in_pieces(tmp_path: Path, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_formats, "_PIECE", 5)
    weight = torch.arange(12.0).reshape(3, 4)
    save_file({"a": weight.to(dtype)}, tmp_path / "w.safetensors")
    found = read_state_dict(tmp_path / "w.safetensors")["a"]
    assert found.dtype == dtype
    assert torch.equal(found.float(), weight.to(dtype).float())
    weight[2, 3] = float("nan")
    save_file({"a": weight.to(dtype)}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsFormatError, match=r"not numbers \(in a\)"):
        read_state_dict(tmp_path / "w.safetensors")


def test_two_weights_in_a_byte_are_refused(tmp_path: Path) -> None:
    packed = torch.zeros(4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)
    with pytest.raises(WeightsFormatError, match="float4"):
        weight_formats.finite({"a": packed}, tmp_path / "w.pth")


def test_complex_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3, dtype=torch.complex64), "b": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsFormatError, match=r"type complex64 \(in a\)"):
        read_state_dict(tmp_path / "w.pth")


def test_integers_alone_are_no_weights(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(3, dtype=torch.int8), "b": torch.ones(2, dtype=torch.int64)}, tmp_path / "w.pth")
    with pytest.raises(WeightsFormatError, match="no weights but int64, int8"):
        read_state_dict(tmp_path / "w.pth")


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


# -- hostile files: nothing is believed before it has been held against the file ------------------------------------


def with_storage_of(path: Path, numel: int, *, legacy: bool) -> Path:
    """A checkpoint whose pickle says that its 1000 weights are ``numel``."""
    torch.save({"a": torch.ones(1000)}, path, _use_new_zipfile_serialization=not legacy)
    told, claimed = b"M\xe8\x03", b"\x8a\x06" + numel.to_bytes(6, "little")
    if legacy:
        path.write_bytes(path.read_bytes().replace(told, claimed))
        return path
    crafted = path.with_name("crafted.pth")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(crafted, "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member).replace(told, claimed))
    return crafted


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("numel", [2000, 10**10, 10**13])
def test_a_storage_larger_than_the_file_is_refused_before_it_is_made(
    tmp_path: Path, numel: int, legacy: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_storage_of(tmp_path / "w.pth", numel, legacy=legacy)
    made: list[int] = []
    genuine = torch.UntypedStorage

    class Watched(genuine):  # type: ignore[misc,valid-type]
        def __new__(cls, *args, **options):
            made.extend(arg for arg in args if isinstance(arg, int) and options.get("device") != "meta")
            return genuine.__new__(cls, *args, **options)

    monkeypatch.setattr(torch, "UntypedStorage", Watched)
    with pytest.raises(WeightsFormatError, match=r"larger than the file|cannot be read"):
        read_state_dict(path)
    assert all(size <= path.stat().st_size for size in made)


def test_an_old_checkpoint_is_still_read(tmp_path: Path) -> None:
    shared = torch.arange(6000.0)
    state = {str(i): shared[i : i + 3] for i in range(50)} | {"c": torch.ones(2, dtype=torch.float16)}
    torch.save({"params": state}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    read = read_state_dict(tmp_path / "w.pth")
    assert all(torch.equal(read[name], tensor) for name, tensor in state.items())


@pytest.mark.parametrize("version", ["2.9.1", "2.6.0+cu124", "1.13.1", "unknown"])
def test_an_old_torch_reads_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    monkeypatch.setattr(torch, "__version__", version)
    with pytest.raises(WeightsFormatError, match="cannot read those safely") as caught:
        read_state_dict(tmp_path / "w.pth")
    assert "CVE-2026-24747" in caught.value.hint


def test_an_old_torch_reads_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file(STATE, tmp_path / "w.safetensors")
    monkeypatch.setattr(torch, "__version__", "2.9.1")
    assert_same(read_state_dict(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("version", ["2.10.0", "2.10.0a0+git1234", "3.0"])
def test_a_newer_torch_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    monkeypatch.setattr(torch, "__version__", version)
    assert_same(read_state_dict(tmp_path / "w.pth"))


def test_what_a_pickle_wants_to_call_is_named(tmp_path: Path) -> None:
    torch.save({"a": Evil(tmp_path / "owned")}, tmp_path / "w.pth")
    with pytest.raises(WeightsFormatError, match=r"it names (posix|nt)\.system"):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("mark", ["net/constants.pkl", "net/code/__torch__.py"])
def test_a_checkpoint_that_poses_as_torchscript_is_not_unpickled(tmp_path: Path, mark: str) -> None:
    """Programs have a reader that takes only their tensors; see test_torchscript_reader.py."""
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("net/data.pkl", pickle.dumps({"a": Evil(tmp_path / "owned")}, protocol=2))
        archive.writestr(mark, "x")
    with pytest.raises(WeightsFormatError, match=r"names (posix|nt)\.system"):
        read_state_dict(tmp_path / "w.pt")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("name", ["../../evil", "/tmp/photokeep-evil", "archive/../../evil"])
def test_members_with_paths_out_of_the_archive_are_never_written(tmp_path: Path, name: str) -> None:
    path, folder = tmp_path / "w.pth", tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    torch.save(STATE, path)
    before = sorted(tmp_path.rglob("*"))
    with zipfile.ZipFile(path, "a") as archive:
        link = zipfile.ZipInfo(name)
        link.external_attr = 0o120777 << 16  # a symbolic link
        archive.writestr(link, "/etc/passwd")
    with contextlib.suppress(WeightsFormatError):
        assert_same(read_state_dict(path))
    assert sorted(tmp_path.rglob("*")) == before
    assert not os.path.lexists("/tmp/photokeep-evil")


def test_a_bomb_of_one_deflated_member_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("archive/data/0", "w", force_zip64=True) as member:
            for _ in range(64):
                member.write(b"\0" * (1 << 20))
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
    assert path.stat().st_size < 200_000
    with pytest.raises(WeightsFormatError, match="compressed"):
        read_state_dict(path)


def test_members_that_overlap_are_refused(tmp_path: Path) -> None:
    """Many names for the same bytes: small on disk, large when read."""
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(5000)}, path)
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(50):
            twin = archive.getinfo("w/data/0")
            archive.filelist.append(twin)
            archive.NameToInfo[f"w/data/{number}"] = twin
        archive._didModify = True
    with pytest.raises(WeightsFormatError):
        read_state_dict(path)


class _Meta:
    def __reduce__(self):
        return torch._utils._rebuild_meta_tensor_no_storage, (torch.float32, (2, 2), (2, 1), False)


def test_a_tensor_without_values_is_refused(tmp_path: Path) -> None:
    torch.save({"a": _Meta()}, tmp_path / "w.pth")
    with pytest.raises(WeightsFormatError, match="without its values"):
        read_state_dict(tmp_path / "w.pth")


class _Calls:
    def __init__(self, function: object, *args: object) -> None:
        self.call = (function, args)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("call", [(bytearray, 2**50), (torch.FloatTensor, 2**45), (torch.Size, [2**60])])
def test_a_pickle_that_asks_for_memory_is_refused(tmp_path: Path, call: tuple) -> None:
    torch.save({"a": _Calls(*call)}, tmp_path / "w.pth")
    with pytest.raises(WeightsFormatError):
        read_state_dict(tmp_path / "w.pth")


def test_a_key_nested_in_itself_is_not_spelt_out(tmp_path: Path) -> None:
    key: tuple = (1,)
    for _ in range(16):
        key = (key, key)
    torch.save({key: torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsFormatError, match="a key of type tuple") as caught:
        read_state_dict(tmp_path / "w.pth")
    assert len(caught.value.message) < 200


@pytest.mark.parametrize("size", [100_000_001, 2**62, 2**64 - 1])
def test_a_safetensors_header_longer_than_the_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(size.to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}' + b"\0" * 4)
    with pytest.raises(WeightsFormatError, match="cannot be read"):
        read_state_dict(path)


@pytest.mark.parametrize("shape", [[2**40], [2**62, 4], [2, -1]])
def test_a_safetensors_shape_larger_than_its_bytes_is_refused(tmp_path: Path, shape: list[int]) -> None:
    head = json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 4]}}).encode()
    (tmp_path / "w.safetensors").write_bytes(len(head).to_bytes(8, "little") + head + b"\0" * 4)
    with pytest.raises(WeightsFormatError, match="cannot be read"):
        read_state_dict(tmp_path / "w.safetensors")


def test_a_placeholder_of_no_bytes_is_refused(tmp_path: Path) -> None:
    for name in ("w.pth", "w.safetensors", "w.bin"):
        (tmp_path / name).touch()
        with pytest.raises(WeightsFormatError, match="0 bytes"):
            read_state_dict(tmp_path / name)


def test_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.pth").mkdir()
    with pytest.raises(WeightsFormatError):
        read_state_dict(tmp_path / "w.pth")


@pytest.mark.parametrize("size", [64, 100_000])
def test_a_file_of_zeros_is_called_one(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.pth").write_bytes(bytes(size))
    with pytest.raises(WeightsFormatError, match="filled with zeros"):
        read_pickle(tmp_path / "a.pth")


def test_an_archive_of_the_first_pytorch_is_called_one(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.pth", "w") as archive:
        archive.add(__file__, "pickle")
    with pytest.raises(WeightsFormatError, match="tar archive") as caught:
        read_pickle(tmp_path / "a.pth")
    assert "safetensors" in caught.value.hint


def test_nobody_is_advised_to_read_it_unsafely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save({"w": torch.zeros(2)}, tmp_path / "a.pth")

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Cannot do it. Re-running torch.load with weights_only set to False will likely succeed")

    monkeypatch.setattr(torch, "load", refuse)
    with pytest.raises(WeightsFormatError, match="no plain checkpoint") as caught:
        read_pickle(tmp_path / "a.pth")
    assert "weights_only" not in str(caught.value)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("name", ["numel", "detach", "element_size", "is_floating_point"])
def test_attributes_that_hide_a_tensors_methods_do_nothing(tmp_path: Path, name: str, legacy: bool) -> None:
    """The restricted unpickler lets a file set them."""
    tensor = torch.ones(3)
    setattr(tensor, name, 5)
    torch.save({"w": tensor}, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    assert getattr(torch.load(tmp_path / "a.pth", weights_only=True)["w"], name) == 5
    state = read_state_dict(tmp_path / "a.pth")
    assert state["w"].numel() == 3
    assert vars(state["w"]) == {}
