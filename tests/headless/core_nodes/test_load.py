"""LoadImage and its kin: what they make of files, which files they touch, and what they refuse."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
from PIL import Image, ImageOps

from headless import core_nodes
from headless.core_nodes import _decode, load
from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError, PhotoReadError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CLASSES = core_nodes.node_classes()
RNG = np.random.default_rng(3)
COLOUR = RNG.integers(0, 256, (19, 23, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (19, 23), np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "input" / "album").mkdir(parents=True)
    (tmp_path / "output").mkdir()
    with host.standalone(host.Standalone(input_dirs=(tmp_path / "input",), output_dir=tmp_path / "output")):
        yield tmp_path / "input"


def loaded(name: str, node: str = "LoadImage", **inputs: str) -> tuple[np.ndarray, ...]:
    return tuple(each.numpy() for each in CLASSES[node]().run(name, **inputs))


def as_pillow(path: Path) -> np.ndarray:
    """As ComfyUI before 0.33 reads it."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(np.float32) / 255.0


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(folder, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(COLOUR).save(folder / "a.jpg", exif=exif, quality=95)
    image, mask = loaded("a.jpg")
    np.testing.assert_array_equal(image[0], as_pillow(folder / "a.jpg"))
    assert mask.shape == (1, 64, 64)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.jpg", {"subsampling": 2}),
        ("a.webp", {"quality": 80}),
        ("a.bmp", {}),
        ("a.tif", {"compression": "tiff_lzw"}),
        ("a.png", {"icc_profile": b"not a profile"}),
    ],
)
def test_colours_are_as_pillow_decodes_them(folder, name, options):
    Image.fromarray(COLOUR).save(folder / name, **options)
    np.testing.assert_array_equal(loaded(name)[0][0], as_pillow(folder / name))


@pytest.mark.parametrize("mode", ["1", "L", "CMYK"])
def test_other_modes_become_colour(folder, mode):
    name = "a.jpg" if mode == "CMYK" else "a.png"
    Image.fromarray(COLOUR).convert(mode).save(folder / name)
    np.testing.assert_array_equal(loaded(name)[0][0], as_pillow(folder / name))


def test_profiles_are_not_converted(folder):
    """The host gives the numbers in the file; Load Photo is for those who want the colours."""
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB"))
    Image.fromarray(COLOUR).save(folder / "a.png", icc_profile=profile.tobytes())
    np.testing.assert_array_equal(loaded("a.png")[0][0], COLOUR.astype(np.float32) / 255.0)


def test_the_mask_is_what_is_transparent(folder):
    Image.fromarray(np.dstack([COLOUR, ALPHA])).save(folder / "a.png")
    image, mask = loaded("a.png")
    np.testing.assert_array_equal(image[0], COLOUR.astype(np.float32) / 255.0)
    np.testing.assert_array_equal(mask[0], np.float32(1) - ALPHA.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_kept(folder, channels):
    samples = RNG.integers(0, 65536, (5, 6, channels)).astype(np.uint16)
    (folder / "scan.png").write_bytes(imagecodecs.png_encode(samples if channels == 3 else samples[..., 0]))
    image, _ = loaded("scan.png")
    np.testing.assert_array_equal(np.rint(image[0] * 65535), np.broadcast_to(samples, (5, 6, 3)))


def test_an_animation_is_a_batch(folder):
    frames = [Image.fromarray(np.roll(COLOUR, 3 * i, 0)) for i in range(3)]
    frames[0].save(folder / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    image, mask = loaded("a.webp")
    np.testing.assert_array_equal(image, np.stack([np.asarray(each) for each in frames]).astype(np.float32) / 255.0)
    assert mask.shape == (3, 64, 64)


def test_an_animation_counts_with_all_its_pictures(folder, monkeypatch):
    frames = [Image.fromarray(np.roll(COLOUR, i, 0)) for i in range(5)]
    frames[0].save(folder / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    monkeypatch.setattr(_decode, "MAX_PIXELS", 4 * 19 * 23)
    with pytest.raises(PhotoReadError, match="holds 5 pictures"):
        loaded("a.webp")


def test_a_damaged_animation_is_refused(folder):
    frames = [Image.fromarray(RNG.integers(0, 256, (40, 50, 3), np.uint8)) for _ in range(4)]
    frames[0].save(folder / "a.gif", save_all=True, append_images=frames[1:])
    data = (folder / "a.gif").read_bytes()
    (folder / "a.gif").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(PhotoReadError, match="damaged"):
        loaded("a.gif")


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_what_is_cut_off_is_refused(folder, name):
    Image.fromarray(RNG.integers(0, 256, (90, 80, 3), np.uint8)).save(folder / name)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: len(data) // 2])
    with pytest.raises(PhotoReadError, match="damaged") as caught:
        loaded(name)
    assert caught.value.context["photo"] == str(folder / name)


def test_a_bomb_is_refused_before_it_is_unpacked(folder):
    header = b"\x00\x00\xff\xff\x00\x00\xff\xff\x08\x02\x00\x00\x00"
    data = (folder / "x.png").write_bytes
    Image.fromarray(COLOUR).save(folder / "x.png")
    whole = (folder / "x.png").read_bytes()
    import zlib

    data(whole[:16] + header + zlib.crc32(b"IHDR" + header).to_bytes(4, "big") + whole[33:])
    with pytest.raises(PhotoReadError, match="megapixels; at most"):
        loaded("x.png")


# -- which files ------------------------------------------------------------------------------------------------------


def test_folders_behind_a_name(folder):
    for place in (folder / "a.png", folder.parent / "output" / "b.png", folder / "album" / "c.png"):
        Image.fromarray(COLOUR).save(place)
    for name in ("a.png [input]", "b.png [output]", "album/c.png", "album/c.png [input]"):
        assert loaded(name)[0].shape == (1, 19, 23, 3)
    for name in ("a.png [output]", "b.png", "b.png [input]"):
        with pytest.raises(PhotoReadError, match="no photo"):
            loaded(name)
    with pytest.raises(PhotoReadError, match="preview of ComfyUI"):
        loaded("a.png [temp]")
    with pytest.raises(PhotoReadError, match="brackets"):
        loaded("a.png [attic]")


@pytest.mark.parametrize("suffix", ["", " [input]", " [output]"])
@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "album/../../secret.png", "a\0.png", "link.png", ""])
def test_names_stay_in_their_folder(folder, name, suffix):
    Image.fromarray(COLOUR).save(folder.parent / "secret.png")
    for place in (folder, folder.parent / "output"):
        (place / "link.png").symlink_to(folder.parent / "secret.png")
    with pytest.raises(PhotoReadError):
        load.find_picture(f"{name}{suffix}")
    assert isinstance(CLASSES["LoadImage"].VALIDATE_INPUTS(f"{name}{suffix}"), str)


@pytest.mark.parametrize("odd", [5, None, ["a.png"], {"a": 1}, True])
def test_what_is_no_name_is_refused(folder, odd):
    with pytest.raises(PhotoReadError, match="no photo is named"):
        load.find_picture(odd)


def test_a_pipe_is_no_picture(folder):
    os.mkfifo(folder / "pipe.png")
    with pytest.raises(PhotoReadError, match="pipe"):
        loaded("pipe.png")


def test_what_a_link_will_bring_is_not_judged(folder):
    assert CLASSES["LoadImage"].VALIDATE_INPUTS() is True
    assert CLASSES["LoadImage"].IS_CHANGED() == ""
    Image.fromarray(COLOUR).save(folder / "a.png")
    before = CLASSES["LoadImageMask"].IS_CHANGED("a.png")
    Image.fromarray(COLOUR[::-1]).save(folder / "a.png")
    assert CLASSES["LoadImageMask"].IS_CHANGED("a.png") != before


def test_masks_of_one_channel(folder):
    Image.fromarray(np.dstack([COLOUR, ALPHA])).save(folder / "a.png")
    for i, channel in enumerate(("red", "green", "blue")):
        (mask,) = loaded("a.png", "LoadImageMask", channel=channel)
        np.testing.assert_array_equal(mask[0], COLOUR[..., i].astype(np.float32) / 255.0)
    with pytest.raises(NodeInputError, match="channel cannot be 'hue'"):
        loaded("a.png", "LoadImageMask", channel="hue")


def test_pictures_of_the_output_folder(folder):
    Image.fromarray(COLOUR).save(folder.parent / "output" / "b.png")
    assert loaded("b.png [output]", "LoadImageOutput")[0].shape == (1, 19, 23, 3)
