"""Imported weight files: checked, identified, written as safetensors; strangers' files are refused by name."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import sys
import zipfile
from typing import TYPE_CHECKING

import onnx
import pytest
import safetensors
import small_networks
import torch
from ncnn_files import NcnnWriter, srvgg
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file, save_file
from small_models import checkpoint, entry, spec_of

from photokeep_nodes import digests, importing, weights
from photokeep_nodes.errors import MissingExtraError, UsageError, WeightsError, WeightsFormatError
from photokeep_nodes.files import sha256_of
from photokeep_nodes.importing import import_file
from photokeep_nodes.models import catalogue

if TYPE_CHECKING:
    from pathlib import Path


pytestmark = pytest.mark.usefixtures("own_folders")


def compact(*, features: int = 8, scale: int = 2) -> dict[str, torch.Tensor]:
    """Weights of a small SRVGGNetCompact."""
    torch.manual_seed(0)
    last = 3 * scale * scale
    return {
        "body.0.weight": torch.randn(features, 3, 3, 3),
        "body.0.bias": torch.randn(features),
        "body.1.weight": torch.rand(features),
        "body.2.weight": torch.randn(last, features, 3, 3),
        "body.2.bias": torch.randn(last),
    }


def check_compact(found: importing.Imported, path: Path) -> None:
    assert found.architecture == "RealESRGAN Compact"
    assert found.facts is not None
    facts = found.facts
    assert (facts.scale, facts.input_channels, facts.output_channels, facts.purpose) == (2, 3, 3, "SR")
    assert found.parameters == sum(tensor.numel() for tensor in compact().values())
    assert found.path == path
    state = load_file(path)
    assert state.keys() == compact().keys()
    assert all(torch.equal(state[name], tensor) for name, tensor in compact().items())


# -- what is taken -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "wrap"),
    [
        (".pth", lambda state: state),
        (".pt", lambda state: {"params": compact(features=4), "params_ema": state}),
        (".ckpt", lambda state: {"model_state": state, "epoch": 3}),
        (".ckpt", lambda state: {"state_dict": {f"net_g.{k}": v for k, v in state.items()}, "epoch": 3}),
        (".ckpt", lambda state: {"state_dict": {f"model.module.{k}": v for k, v in state.items()}}),
        (
            ".ckpt",
            lambda state: {
                "state_dict": {f"net_g.{k}": v * 0 for k, v in state.items()}
                | {f"net_g_ema.{k}": v for k, v in state.items()}
                | {"net_d.conv.weight": torch.ones(1)}
            },
        ),
        (".pth", lambda state: {f"_orig_mod.{k}": v for k, v in state.items()}),
    ],
    ids=["plain", "ema", "model_state", "lightning", "nested", "two-nets", "compiled"],
)
def test_checkpoints_of_every_wrapping(tmp_path: Path, suffix: str, wrap) -> None:  # type: ignore[no-untyped-def]
    torch.save(wrap(compact()), tmp_path / f"net{suffix}")
    check_compact(import_file(tmp_path / f"net{suffix}"), tmp_path / "models" / "net.safetensors")


@pytest.mark.parametrize("suffix", [".safetensors", ".sft"])
def test_safetensors(tmp_path: Path, suffix: str) -> None:
    save_file(compact(), tmp_path / f"net{suffix}", metadata={"format": "pt", "source": "a lie"})
    found = import_file(tmp_path / f"net{suffix}", name="mine", folder=tmp_path / "here")
    check_compact(found, tmp_path / "here" / "mine.safetensors")
    with safetensors.safe_open(found.path, framework="pt") as stream:
        about = stream.metadata()
    assert about["source"] == f"net{suffix}"
    assert about["source_sha256"] == sha256_of(tmp_path / f"net{suffix}")
    assert (about["architecture"], about["scale"]) == ("Compact", "2")


def test_tensors_that_share_memory_are_taken_apart(tmp_path: Path) -> None:
    state = compact(features=12)
    state["body.0.bias"] = state["body.2.bias"]
    torch.save(state, tmp_path / "net.pth")
    import_file(tmp_path / "net.pth")


def test_what_was_imported_is_remembered_as_it_was_written(tmp_path: Path) -> None:
    torch.save(compact(), tmp_path / "net.pth")
    path = import_file(tmp_path / "net.pth").path
    assert importing.imported_files() == {path: sha256_of(path)}
    assert digests.digest(path) == sha256_of(path)
    path.unlink()
    assert importing.imported_files() == {}


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_others_may_read_what_was_imported(tmp_path: Path) -> None:
    torch.save(compact(), tmp_path / "net.pth")
    before = os.umask(0o022)
    try:
        path = import_file(tmp_path / "net.pth").path
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize("named", ["net.bin", "net.param"])
def test_ncnn(tmp_path: Path, named: str) -> None:
    param, binary = srvgg(features=8, depth=1).save(tmp_path)
    found = import_file(tmp_path / named)
    assert found.facts is not None
    assert (found.architecture, found.facts.scale) == ("RealESRGAN Compact", 4)
    moved = param.rename(tmp_path / "elsewhere.txt")
    with pytest.raises(UsageError, match=r"without its text net\.param"):
        import_file(binary)
    import_file(binary, param_path=moved, overwrite=True)


@pytest.mark.parametrize("named", ["NET.BIN", "NET.PARAM"])
def test_ncnn_in_capital_letters(tmp_path: Path, named: str) -> None:
    param, binary = srvgg(features=8, depth=1).save(tmp_path)
    param.rename(tmp_path / "NET.PARAM")
    binary.rename(tmp_path / "NET.BIN")
    assert import_file(tmp_path / named).architecture == "RealESRGAN Compact"


def test_safetensors_in_capital_letters(tmp_path: Path) -> None:
    save_file(compact(), tmp_path / "NET.SAFETENSORS")
    check_compact(import_file(tmp_path / "NET.SAFETENSORS"), tmp_path / "models" / "NET.safetensors")


def test_float8(tmp_path: Path) -> None:
    save_file(
        {name: tensor.to(torch.float8_e4m3fn) for name, tensor in compact().items()}, tmp_path / "net.safetensors"
    )
    found = import_file(tmp_path / "net.safetensors")
    assert found.architecture == "RealESRGAN Compact"
    assert load_file(found.path)["body.0.weight"].dtype == torch.float8_e4m3fn


@pytest.mark.parametrize("content", [b"", b"\x80", b"\x80\x01", b"ncnn"])
def test_a_bin_that_is_neither(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.bin").write_bytes(content)
    with pytest.raises(UsageError, match=r"without its text net\.param"):
        import_file(tmp_path / "net.bin")


def test_a_bin_that_is_a_checkpoint(tmp_path: Path) -> None:
    torch.save(compact(), tmp_path / "pytorch_model.bin")
    check_compact(import_file(tmp_path / "pytorch_model.bin"), tmp_path / "models" / "pytorch_model.safetensors")


# -- where it goes -----------------------------------------------------------------------------------------------------


def test_an_upscaler_goes_where_comfyui_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ComfyUI").mkdir()
    monkeypatch.delenv("PHOTOKEEP_MODELS")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    torch.save(compact(), tmp_path / "net.pth")
    assert import_file(tmp_path / "net.pth").path.parent == tmp_path / "ComfyUI" / "models" / "upscale_models"


def test_what_comfyui_cannot_use_is_kept_from_its_upscalers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ComfyUI").mkdir()
    monkeypatch.delenv("PHOTOKEEP_MODELS")
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "ComfyUI"))
    small_networks.save(small_networks.compact(2, channels=1), tmp_path / "gray.pth")
    found = import_file(tmp_path / "gray.pth")
    assert found.path.parent == tmp_path / "ComfyUI" / "models" / "photokeep"
    assert found.found_as == "gray.safetensors"


def test_it_is_said_under_which_name_a_file_is_found(tmp_path: Path) -> None:
    torch.save(compact(), tmp_path / "net.pth")
    models = tmp_path / "models"
    assert import_file(tmp_path / "net.pth", folder=models / "mine").found_as == "mine/net.safetensors"
    assert import_file(tmp_path / "net.pth", folder=tmp_path / "elsewhere").found_as is None
    later = tmp_path / "home" / "photokeep" / "models"
    assert import_file(tmp_path / "net.pth", folder=later).found_as == "net.safetensors"
    assert import_file(tmp_path / "net.pth", folder=models).found_as == "net.safetensors"
    assert import_file(tmp_path / "net.pth", folder=later, overwrite=True).found_as is None, "the other one comes first"


def test_a_file_of_that_name_is_not_replaced_unasked(tmp_path: Path) -> None:
    torch.save(compact(), tmp_path / "net.pth")
    path = tmp_path / "models" / "net.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="is there already"):
        import_file(tmp_path / "net.pth")
    assert path.read_bytes() == b"mine"
    check_compact(import_file(tmp_path / "net.pth", overwrite=True), path)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "/abs", ".hidden", "a\0b", "x" * 200, ".."])
def test_a_name_stays_in_its_folder(tmp_path: Path, name: str) -> None:
    torch.save(compact(), tmp_path / "net.pth")
    with pytest.raises(UsageError, match="no file name"):
        import_file(tmp_path / "net.pth", name=name)
    assert not (tmp_path / "models").exists()


def test_a_source_of_an_odd_name_gets_a_plain_one(tmp_path: Path) -> None:
    source = tmp_path / "..;$(x) é.pth"
    torch.save(compact(), source)
    assert import_file(source).path == tmp_path / "models" / "x_ é.safetensors"


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    torch.save(compact(), tmp_path / "net.pth")
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="could not be imported"):
        import_file(tmp_path / "net.pth", folder=tmp_path / "file" / "models")


# -- what the extra architectures know ---------------------------------------------------------------------------------

EXTRA_ARCHES = """
from spandrel import Architecture, ArchSupport
from spandrel.architectures.Compact import CompactArch
from spandrel.util import KeyCondition


class Extra(Architecture):
    def __init__(self):
        super().__init__(id="Extra", detect=KeyCondition.has_all("extra.body.0.weight"))

    def load(self, state_dict):
        return CompactArch().load({key.removeprefix("extra."): value for key, value in state_dict.items()})


EXTRA_REGISTRY = [ArchSupport.from_architecture(Extra())]
"""


def test_the_extra_architectures_count_where_they_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "spandrel_extra_arches"]:
        monkeypatch.delitem(sys.modules, name)
    torch.save({f"extra.{name}": tensor for name, tensor in compact().items()}, tmp_path / "net.pth")
    if importlib.util.find_spec("spandrel_extra_arches") is None:
        with pytest.raises(WeightsFormatError) as caught:
            import_file(tmp_path / "net.pth")
        assert "pip install 'spandrel_extra_arches" in caught.value.hint
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "spandrel_extra_arches.py").write_text(EXTRA_ARCHES)
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = import_file(tmp_path / "net.pth")
    monkeypatch.delitem(sys.modules, "spandrel_extra_arches")
    assert found.facts is not None
    assert found.facts.scale == 2


# -- what is refused ---------------------------------------------------------------------------------------------------


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


def test_code_is_refused_by_name_and_does_not_run(tmp_path: Path) -> None:
    torch.save({"a": Evil(tmp_path / "owned")}, tmp_path / "net.ckpt")
    with pytest.raises(WeightsFormatError, match=r"may carry code \(it names \w+\.system\)"):
        import_file(tmp_path / "net.ckpt")
    assert not (tmp_path / "owned").exists()


def test_an_unknown_architecture_is_told_with_what_was_found(tmp_path: Path) -> None:
    torch.save({"conv9.weight": torch.ones(3), "conv9.bias": torch.ones(3)}, tmp_path / "net.pth")
    with pytest.raises(WeightsFormatError, match=r"no architecture that is known.*2 tensors.*'conv9\.weight'"):
        import_file(tmp_path / "net.pth")


def test_weights_that_do_not_fit_their_architecture(tmp_path: Path) -> None:
    state = compact()
    state["body.2.bias"] = torch.ones(5)
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsFormatError, match=r"do not fit.*body\.2\.bias|do not fit"):
        import_file(tmp_path / "net.pth")


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    state = compact()
    state["body.0.bias"][3] = float("nan")
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsFormatError, match=r"not numbers \(in body\.0\.bias\)"):
        import_file(tmp_path / "net.pth")


@pytest.mark.parametrize("name", ["none.pth", "none.bin", "none.onnx", "photo.jpg", "folder.pth"])
def test_what_is_not_there_or_no_weight_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.pth").mkdir()
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UsageError):
        import_file(tmp_path / name)


def test_another_ncnn_network_is_refused_by_name(tmp_path: Path) -> None:
    net = NcnnWriter()
    net.op("Input")
    net.conv(3, 8)
    net.op("ReLU")
    net.save(tmp_path)
    with pytest.raises(WeightsFormatError, match=r"only RRDBNet x4 and SRVGGNetCompact.*ReLU"):
        import_file(tmp_path / "net.bin")


def test_a_damaged_torchscript_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "big-lama.pt", "w") as archive:
        for name in ("big/data.pkl", "big/constants.pkl", "big/code/__torch__.py", "big/version"):
            archive.writestr(name, "x")
    with pytest.raises(WeightsFormatError, match="cannot be read as TorchScript"):
        import_file(tmp_path / "big-lama.pt")


# -- ONNX --------------------------------------------------------------------------------------------------------------


def save_onnx(path: Path, *tensors: TensorProto, kinds: tuple[str, ...] = ("Conv", "Conv", "PRelu")) -> Path:
    nodes = [helper.make_node(kind, [], []) for kind in kinds]
    onnx.save(helper.make_model(helper.make_graph(nodes, "g", [], [], list(tensors))), path)
    return path


def embedded(state: dict[str, torch.Tensor]) -> list[TensorProto]:
    return [numpy_helper.from_array(tensor.numpy(), name) for name, tensor in state.items()]


def test_onnx_with_its_names_kept(tmp_path: Path) -> None:
    made_up = numpy_helper.from_array(torch.tensor([2.0]).numpy(), "/up/Constant_output_0")
    path = save_onnx(tmp_path / "net.onnx", *embedded(compact()), made_up)
    check_compact(import_file(path), tmp_path / "models" / "net.safetensors")


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE])
def test_onnx_of_other_precision(tmp_path: Path, kind: int) -> None:
    tensors = [
        helper.make_tensor(name, kind, tensor.shape, tensor.flatten().tolist()) for name, tensor in compact().items()
    ]
    found = import_file(save_onnx(tmp_path / "net.onnx", *tensors))
    torch.testing.assert_close(
        load_file(found.path)["body.0.weight"].float(), compact()["body.0.weight"], rtol=0.01, atol=0.01
    )


def test_onnx_whose_names_were_lost(tmp_path: Path) -> None:
    state = compact()
    state["onnx::Conv_17"] = state.pop("body.0.weight")
    path = save_onnx(tmp_path / "net.onnx", *embedded(state))
    with pytest.raises(WeightsFormatError, match=r"1 of its weights have lost.*'onnx::Conv_17'.*2 'Conv', 1 'PRelu'"):
        import_file(path)


def test_onnx_without_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsFormatError, match="embeds no weights"):
        import_file(save_onnx(tmp_path / "net.onnx"))


@pytest.mark.parametrize("location", ["weights.data", "../../secret", "/etc/passwd"])
def test_onnx_with_weights_in_another_file_is_refused(tmp_path: Path, location: str) -> None:
    tensor = TensorProto(name="body.0.weight", data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    (tmp_path / "weights.data").write_bytes(b"\0" * 8)
    with pytest.raises(WeightsFormatError, match="keeps weights in another file"):
        import_file(save_onnx(tmp_path / "net.onnx", tensor))


@pytest.mark.parametrize(
    ("dims", "message"), [([10**6, 10**6], "larger than the file"), ([-1], "larger than"), ([3], "cannot be read")]
)
def test_onnx_that_claims_more_than_it_holds(tmp_path: Path, dims: list[int], message: str) -> None:
    tensor = TensorProto(name="body.0.weight", data_type=TensorProto.FLOAT, dims=dims, raw_data=b"\0" * 8)
    path = save_onnx(tmp_path / "net.onnx", tensor)
    with pytest.raises(WeightsFormatError, match=message):
        import_file(path)


def test_onnx_of_strings_and_of_two_tensors_of_one_name(tmp_path: Path) -> None:
    text = helper.make_tensor("body.0.weight", TensorProto.STRING, [1], [b"x"])
    with pytest.raises(WeightsFormatError):
        import_file(save_onnx(tmp_path / "net.onnx", text))
    with pytest.raises(WeightsFormatError, match="names two tensors"):
        import_file(save_onnx(tmp_path / "net.onnx", *embedded(compact()), *embedded(compact())))


@pytest.mark.parametrize("content", [b"\xff" * 100, b"<html>", b""])
def test_what_is_no_onnx(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(WeightsFormatError):
        import_file(tmp_path / "net.onnx")


def test_without_the_onnx_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_onnx(tmp_path / "net.onnx", *embedded(compact()))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError) as caught:
        import_file(path)
    assert "pip install 'photokeep[onnx]'" in caught.value.hint


# -- what the catalogue knows ------------------------------------------------------------------------------------------


def test_a_published_file_keeps_its_bytes_and_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(entry("known", checkpoint(), "https://example.org/known.pth"))
    monkeypatch.setitem(catalogue(), "known", spec)
    (tmp_path / "download (3).pth").write_bytes(checkpoint())
    found = import_file(tmp_path / "download (3).pth")
    assert (found.spec, found.path) == (spec, tmp_path / "models" / "known.pth")
    assert weights.verify(spec).path.read_bytes() == checkpoint()
    assert import_file(found.path).path == found.path
    found.path.write_bytes(b"mine")
    with pytest.raises(UsageError, match="is there already"):
        import_file(tmp_path / "download (3).pth")
    assert found.path.read_bytes() == b"mine"
    import_file(tmp_path / "download (3).pth", overwrite=True)
    assert found.path.read_bytes() == checkpoint()
    assert json.loads((tmp_path / "cache" / "digests.json").read_text())


def test_a_file_that_ships_with_the_package_is_there_already(tmp_path: Path) -> None:
    bundled = weights.status(catalogue()["ffdnet-color"]).installed
    assert bundled is not None
    (tmp_path / "a.safetensors").write_bytes(bundled.path.read_bytes())
    found = import_file(tmp_path / "a.safetensors")
    assert (found.path, found.spec) == (bundled.path, catalogue()["ffdnet-color"])
    assert not (tmp_path / "models").exists()


def test_every_source_is_read_as_what_its_name_says(tmp_path: Path) -> None:
    """A pickle under the name of a safetensors is not unpickled."""
    torch.save(compact(), tmp_path / "net.safetensors")
    with pytest.raises(WeightsFormatError, match=r"net\.safetensors cannot be read"):
        import_file(tmp_path / "net.safetensors")
