from __future__ import annotations

import base64
import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms

from photokeep_nodes.errors import PhotoWriteError
from photokeep_nodes.photo_io import place, read_photo, write_photo
from photokeep_nodes.photo_io.write import still_gray

ROOT = Path(__file__).parents[2]
NOW = datetime(2031, 2, 3, 4, 5, 6)  # noqa: DTZ001 - local time is what file names carry
GRAPH = {"prompt": {"1": {"class_type": "PhotokeepLoadPhoto"}}, "workflow": {"nodes": [], "title": "Omas Fotoß"}}
FORMATS = ("png", "jpeg", "webp", "tiff")

quick = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def picture(height: int = 48, width: int = 64) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return np.stack([0.5 + 0.4 * np.sin(x / (5 + c) + c) * np.cos(y / (7 - c)) for c in range(3)], axis=-1)


def info(**changes: object) -> dict:
    known = {
        "name": "olga", "format": "JPEG", "mode": "rgb", "bit_depth": 8, "has_alpha": False,
        "exif": "", "icc": "", "dpi": None, "warnings": [],
    }  # fmt: skip
    return known | changes


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def opened(path: Path) -> Image.Image:
    """The file as Pillow reads it, with nothing left open."""
    return Image.open(io.BytesIO(path.read_bytes()))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


class TestPixels:
    @quick
    @given(
        samples=hnp.arrays(np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
        kind=st.sampled_from(["png", "tiff"]),
        covered=st.booleans(),
    )
    def test_sixteen_bits_come_back_exactly(self, tmp_path, samples, kind, covered):
        pixels = samples.astype(np.float32) / np.float32(65535)
        alpha = pixels[..., 1] if covered else None
        saved = write_photo(pixels, tmp_path, format=kind, bit_depth="16", alpha=alpha)
        photo = read_photo(saved.path)
        assert photo.info["bit_depth"] == 16
        np.testing.assert_array_equal(np.rint(photo.pixels * 65535), samples)
        np.testing.assert_array_equal(photo.pixels, pixels)
        if covered:
            np.testing.assert_array_equal(photo.alpha, alpha)

    @quick
    @given(
        samples=hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
        kind=st.sampled_from(["png", "tiff", "webp"]),
    )
    def test_eight_bits_come_back_exactly(self, tmp_path, samples, kind):
        pixels = samples.astype(np.float32) / np.float32(255)
        photo = read_photo(write_photo(pixels, tmp_path, format=kind, quality=100).path)
        np.testing.assert_array_equal(photo.pixels, pixels)

    def test_rounds_to_the_nearest(self, tmp_path):
        pixels = np.array([[[0.499 / 255, 0.501 / 255, 254.51 / 255]]])
        out = np.asarray(opened(write_photo(pixels, tmp_path).path))
        assert out.tolist() == [[[0, 1, 255]]]

    def test_out_of_range_is_cut_off(self, tmp_path):
        out = np.asarray(opened(write_photo(np.array([[[-1.0, 2.0, 0.5]]]), tmp_path).path))
        assert out.tolist() == [[[0, 255, 128]]]

    @pytest.mark.parametrize("kind", FORMATS)
    def test_the_callers_array_is_left_alone(self, tmp_path, kind):
        pixels = picture() * 3 - 1
        before = pixels.copy()
        write_photo(pixels, tmp_path, format=kind)
        np.testing.assert_array_equal(pixels, before)

    def test_jpeg_keeps_colour_resolution_from_90_on(self, tmp_path):
        for quality, want in ((90, (1, 1)), (89, (2, 2))):
            saved = write_photo(picture(), tmp_path, format="jpeg", quality=quality)
            with Image.open(saved.path) as image:
                assert image.layer[0][1:3] == want

    def test_quality_counts(self, tmp_path):
        for kind in ("jpeg", "webp"):
            small, large = (
                write_photo(picture(), tmp_path, format=kind, quality=q).path.stat().st_size for q in (20, 95)
            )
            assert small < large

    @pytest.mark.parametrize("kind", ["png", "tiff"])
    def test_auto_depth_keeps_sixteen(self, tmp_path, kind):
        for depth in (8, 16):
            saved = write_photo(picture(), tmp_path, format=kind, info=info(bit_depth=depth))
            assert read_photo(saved.path).info["bit_depth"] == depth
            saved = write_photo(picture(), tmp_path, format=kind, info=info(bit_depth=depth), bit_depth="8")
            assert read_photo(saved.path).info["bit_depth"] == 8

    @pytest.mark.parametrize("kind", ["jpeg", "webp"])
    def test_eight_bit_formats(self, tmp_path, kind):
        assert (
            read_photo(write_photo(picture(), tmp_path, format=kind, info=info(bit_depth=16)).path).info["bit_depth"]
            == 8
        )
        with pytest.raises(PhotoWriteError, match="8 bits only"):
            write_photo(picture(), tmp_path, format=kind, bit_depth="16")

    @pytest.mark.parametrize("kind", ["png", "webp", "tiff"])
    def test_alpha(self, tmp_path, kind):
        alpha = np.linspace(0, 1, 48 * 64, dtype=np.float32).reshape(48, 64)
        photo = read_photo(write_photo(picture(), tmp_path, format=kind, alpha=alpha, quality=100).path)
        np.testing.assert_allclose(photo.alpha, alpha, atol=0.51 / 255)
        np.testing.assert_allclose(photo.pixels, picture(), atol=0.51 / 255)

    def test_alpha_is_scaled_to_the_picture(self, tmp_path):
        alpha = np.zeros((6, 8), np.float32)
        alpha[:, 4:] = 1
        photo = read_photo(write_photo(picture(), tmp_path, alpha=alpha).path)
        assert photo.alpha.shape == (48, 64)
        assert photo.alpha[:, :20].max() < 0.1
        assert photo.alpha[:, 44:].min() > 0.9

    def test_jpeg_lies_on_white(self, tmp_path):
        alpha = np.zeros((48, 64), np.float32)
        alpha[:, 32:] = 1
        saved = write_photo(picture() * 0.1, tmp_path, format="jpeg", alpha=alpha)
        photo = read_photo(saved.path)
        assert photo.pixels[:, :24].min() > 0.95
        assert photo.pixels[:, 40:].max() < 0.2
        assert any("transparency" in warning for warning in saved.warnings)


class TestMode:
    @pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
    def test_gray_stays_gray(self, tmp_path, kind):
        gray = np.repeat(picture()[..., :1], 3, axis=2)
        saved = write_photo(gray, tmp_path, format=kind, info=info(mode="gray"), quality=100)
        photo = read_photo(saved.path)
        assert photo.info["mode"] == "gray"
        np.testing.assert_allclose(photo.pixels, gray, atol=(3 if kind == "jpeg" else 0.51) / 255)

    def test_gray_sixteen_bits_are_exact(self, tmp_path):
        steps = np.arange(65536, dtype=np.uint16).reshape(256, 256)
        gray = np.repeat((steps / 65535).astype(np.float32)[..., None], 3, axis=2)
        saved = write_photo(gray, tmp_path, info=info(mode="gray", bit_depth=16))
        np.testing.assert_array_equal(imagecodecs.png_decode(saved.path.read_bytes()), steps)

    def test_the_tint_of_a_network_is_removed(self, tmp_path):
        gray = np.repeat(picture()[..., :1], 3, axis=2)
        tinted = gray + np.random.default_rng(0).normal(0, 0.6 / 255, gray.shape)
        photo = read_photo(write_photo(tinted, tmp_path, info=info(mode="gray")).path)
        assert photo.info["mode"] == "gray"
        np.testing.assert_allclose(photo.pixels, gray, atol=3 / 255)

    def test_a_colourised_photo_is_rgb(self, tmp_path):
        photo = read_photo(write_photo(picture(), tmp_path, info=info(mode="gray")).path)
        assert photo.info["mode"] == "rgb"

    def test_a_little_colour_is_colour(self):
        gray = np.repeat(picture(200, 200)[..., :1], 3, axis=2)
        assert still_gray(gray)
        lips = gray.copy()
        lips[90:100, 80:120, 0] += 0.3
        assert not still_gray(lips)
        sepia = gray * np.array([1.0, 0.97, 0.9])
        assert not still_gray(sepia)
        assert not still_gray(gray + 0.1 * (picture(200, 200) - gray))

    def test_the_traces_of_an_upscaler_are_none(self):
        """What was measured after Real-ESRGAN x4plus: a low tint that changes slowly, and strong fringes at edges."""
        rng = np.random.default_rng(0)
        gray = np.repeat(picture(400, 300)[..., :1], 3, axis=2)
        tint = np.kron(rng.uniform(-1.5, 1.5, (4, 3, 3)), np.ones((100, 100, 1))) / 255
        fringes = rng.choice([-20, 0, 20], (400, 300, 3), p=[0.01, 0.98, 0.01]) / 255
        assert still_gray(gray + tint + fringes)

    @pytest.mark.parametrize("shape", [(1, 1), (1, 500), (5, 3), (17, 33), (130, 1)])
    def test_any_size(self, shape):
        assert still_gray(np.full((*shape, 3), 0.3, np.float32))
        assert not still_gray(np.full((*shape, 3), 0.3, np.float32) * np.array([1, 0.8, 0.7], np.float32))

    def test_a_gray_looking_colour_photo_stays_rgb(self, tmp_path):
        gray = np.repeat(picture()[..., :1], 3, axis=2)
        assert read_photo(write_photo(gray, tmp_path, info=info()).path).info["mode"] == "rgb"
        assert read_photo(write_photo(gray, tmp_path).path).info["mode"] == "rgb"

    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("shape", [(48, 64), (48, 64, 1)])
    def test_one_channel(self, tmp_path, kind, shape):
        gray = picture()[..., 0].reshape(shape)
        photo = read_photo(write_photo(gray, tmp_path, format=kind, quality=100).path)
        assert photo.info["mode"] == ("rgb" if kind == "webp" else "gray")
        np.testing.assert_allclose(photo.pixels[..., 1], gray.reshape(48, 64), atol=2 / 255)


class TestProfiles:
    adobe = imagecodecs.cms_profile("adobergb")
    srgb = imagecodecs.cms_profile("srgb")
    gamma = imagecodecs.cms_profile("gray", gamma=1.8)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_back_into_its_own_profile(self, tmp_path, kind):
        # Colours that both spaces hold: the whole way there and back must lose nothing but a rounding.
        source = (np.random.default_rng(0).uniform(0.42, 0.58, (32, 32, 3)) * 255).astype(np.uint8)
        Image.fromarray(source).save(tmp_path / "in.png", icc_profile=self.adobe)
        photo = read_photo(tmp_path / "in.png")
        saved = write_photo(photo.pixels, tmp_path / "out", format=kind, info=photo.info, quality=100)
        with Image.open(saved.path) as image:
            assert image.info["icc_profile"] == self.adobe
            np.testing.assert_allclose(np.asarray(image).astype(int), source, atol=3 if kind == "jpeg" else 1)
        assert saved.warnings == ()

    def test_sixteen_bits_back_into_their_profile(self, tmp_path):
        source = np.random.default_rng(0).uniform(25_000, 40_000, (32, 32, 3)).astype(np.uint16)
        tifffile.imwrite(tmp_path / "in.tif", source, photometric="rgb", iccprofile=self.adobe)
        photo = read_photo(tmp_path / "in.tif")
        for kind in ("png", "tiff"):
            saved = write_photo(photo.pixels, tmp_path / "out", format=kind, info=photo.info)
            data = saved.path.read_bytes()
            again = imagecodecs.png_decode(data) if kind == "png" else imagecodecs.tiff_decode(data)
            np.testing.assert_allclose(again.astype(int), source, atol=4)

    def test_agrees_with_imagecms(self, tmp_path):
        saved = write_photo(picture(), tmp_path, info=info(icc=b64(self.adobe)))
        want = ImageCms.profileToProfile(
            Image.fromarray(np.rint(picture() * 255).astype(np.uint8)),
            ImageCms.createProfile("sRGB"),
            ImageCms.ImageCmsProfile(io.BytesIO(self.adobe)),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
        # One step for rounding to 8 bits before the conversion, which only the reference does, and one after.
        np.testing.assert_allclose(np.asarray(opened(saved.path)).astype(int), np.asarray(want), atol=2)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_srgb_is_embedded_and_changes_nothing(self, tmp_path, kind):
        saved = write_photo(picture(), tmp_path, format=kind, info=info(icc=b64(self.srgb)), quality=100)
        plain = write_photo(picture(), tmp_path, format=kind, quality=100)
        np.testing.assert_array_equal(np.asarray(opened(saved.path)), np.asarray(opened(plain.path)))
        assert opened(saved.path).info["icc_profile"] == self.srgb
        assert "icc_profile" not in opened(plain.path).info

    @pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
    def test_gray_profile_for_a_gray_photo(self, tmp_path, kind):
        source = np.arange(256, dtype=np.uint8).reshape(16, 16)
        Image.fromarray(source).save(tmp_path / "in.png", icc_profile=self.gamma)
        photo = read_photo(tmp_path / "in.png")
        saved = write_photo(photo.pixels, tmp_path / "out", format=kind, info=photo.info, quality=100)
        with Image.open(saved.path) as image:
            assert image.mode == "L"
            assert image.info["icc_profile"] == self.gamma
            np.testing.assert_allclose(np.asarray(image).astype(int), source, atol=1)

    def test_gray_profile_for_a_colourised_photo(self, tmp_path):
        saved = write_photo(picture(), tmp_path, info=info(mode="gray", icc=b64(self.gamma)))
        with Image.open(saved.path) as image:
            assert "icc_profile" not in image.info
            np.testing.assert_array_equal(np.asarray(image), np.rint(picture() * 255))

    def test_gray_webp_carries_no_gray_profile(self, tmp_path):
        gray = np.repeat(picture()[..., :1], 3, axis=2)
        saved = write_photo(gray, tmp_path, format="webp", info=info(mode="gray", icc=b64(self.gamma)), quality=100)
        with Image.open(saved.path) as image:
            assert "icc_profile" not in image.info
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.rint(gray * 255))

    @pytest.mark.parametrize("broken", ["@@@", b64(b"not a profile"), b64(srgb[:200])])
    def test_a_broken_profile_is_left_out(self, tmp_path, broken):
        saved = write_photo(picture(), tmp_path, info=info(icc=broken))
        assert "icc_profile" not in opened(saved.path).info
        assert len(saved.warnings) == 1


def camera_exif() -> str:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110], exif[0x0112], exif[0x010E] = "Leica", "M3", 6, "Holiday"
    exif[0x8769] = {0x9003: "1958:07:01 12:00:00", 0xA002: 640, 0xA003: 480}
    exif[0x8825] = {1: "N"}
    return b64(exif.tobytes())


class TestMetadata:
    @pytest.mark.parametrize("kind", FORMATS)
    @pytest.mark.parametrize("graph", [None, GRAPH])
    def test_exif(self, tmp_path, kind, graph):
        saved = write_photo(picture(), tmp_path, format=kind, info=info(exif=camera_exif()), metadata=graph)
        with Image.open(saved.path) as image:
            exif = image.getexif()
            assert exif[0x010F] == "Leica"
            assert exif[0x0110] == "M3"
            assert exif[0x010E] == "Holiday"
            assert exif[0x0112] == 1
            assert exif.get_ifd(0x8769)[0x9003] == "1958:07:01 12:00:00"
            assert exif.get_ifd(0x8769)[0xA002] == 64
            assert exif.get_ifd(0x8769)[0xA003] == 48
            assert exif.get_ifd(0x8825)[1] == "N"
            np.testing.assert_allclose(np.asarray(image.convert("RGB")) / 255, picture(), atol=0.1)
        # And a photo restored twice has it still, without an older graph.
        again = read_photo(saved.path)
        kept = Image.Exif()
        kept.load(base64.b64decode(again.info["exif"]))
        assert kept[0x010F] == "Leica"
        assert 0xFDE8 not in kept
        assert again.info["warnings"] == []

    @pytest.mark.parametrize("order", "<>")
    def test_tiff_in_either_byte_order(self, tmp_path, order):
        exif = Image.Exif()
        exif.endian = order
        exif[0x010F] = "Leica"
        exif[0x8769] = {0x829A: 0.5}
        saved = write_photo(
            picture(), tmp_path, format="tiff", info=info(exif=b64(exif.tobytes()[6:]), bit_depth=16), metadata=GRAPH
        )
        assert saved.path.read_bytes()[:2] == (b"II" if order == "<" else b"MM")
        with Image.open(saved.path) as image:
            assert image.getexif()[0x010F] == "Leica"
            assert image.getexif().get_ifd(0x8769)[0x829A] == 0.5
        np.testing.assert_allclose(read_photo(saved.path).pixels, picture(), atol=1e-5)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_resolution(self, tmp_path, kind):
        saved = write_photo(picture(), tmp_path, format=kind, info=info(dpi=[600.0, 300.0]))
        with Image.open(saved.path) as image:
            if kind != "webp":
                assert image.info["dpi"] == pytest.approx((600, 300), abs=0.02)

    @pytest.mark.parametrize("kind", FORMATS)
    def test_no_resolution_is_made_up(self, tmp_path, kind):
        assert read_photo(write_photo(picture(), tmp_path, format=kind).path).info["dpi"] is None

    def test_png_carries_the_graph_as_comfyui_does(self, tmp_path):
        from PIL.PngImagePlugin import PngInfo

        for depth in ("8", "16"):
            saved = write_photo(picture(), tmp_path, metadata=GRAPH, bit_depth=depth)
            with Image.open(saved.path) as image:
                image.load()
                assert image.text == {name: json.dumps(value) for name, value in GRAPH.items()}
            # The very chunks that ComfyUI's own call produces.
            reference = PngInfo()
            for name, value in GRAPH.items():
                reference.add_text(name, json.dumps(value))
            data = saved.path.read_bytes()
            for _kind, body, *_ in reference.chunks:
                assert b"tEXt" + body in data

    @pytest.mark.parametrize("kind", ["jpeg", "webp", "tiff"])
    @pytest.mark.parametrize("exif", ["", camera_exif()])
    def test_the_editor_finds_the_graph_in_exif(self, tmp_path, kind, exif):
        saved = write_photo(picture(), tmp_path, format=kind, metadata=GRAPH, info=info(exif=exif))
        if kind == "tiff":
            block = saved.path.read_bytes()
        else:
            with Image.open(saved.path) as image:
                block = image.info["exif"].removeprefix(b"Exif\0\0")
        found = as_the_editor_reads(block)
        assert json.loads(found["workflow"]) == GRAPH["workflow"]
        assert json.loads(found["prompt"]) == GRAPH["prompt"]

    def test_a_graph_too_large_for_jpeg(self, tmp_path):
        large = {"workflow": {"nodes": ["x" * 70_000]}}
        saved = write_photo(picture(), tmp_path, format="jpeg", metadata=large, info=info(exif=camera_exif()))
        assert any("too large" in warning for warning in saved.warnings)
        assert opened(saved.path).getexif()[0x010F] == "Leica"
        for kind in ("png", "webp", "tiff"):
            assert write_photo(picture(), tmp_path, format=kind, metadata=large).warnings == ()

    def test_exif_too_large_for_jpeg(self, tmp_path):
        exif = Image.Exif()
        exif[0x010F] = "Leica"
        for tag in (0xC001, 0xC002):
            exif[tag] = "x" * 40_000
        saved = write_photo(picture(), tmp_path, format="jpeg", info=info(exif=b64(exif.tobytes())))
        assert any("too large" in warning for warning in saved.warnings)
        assert not opened(saved.path).getexif()

    def test_what_json_cannot_say_is_left_out(self, tmp_path):
        saved = write_photo(picture(), tmp_path, metadata={"workflow": object(), "prompt": None})
        assert len(saved.warnings) == 1
        assert opened(saved.path).text == {}

    def test_odd_names_of_metadata(self, tmp_path):
        odd = {"größe": 1, "x" * 100: 2, "": 3}
        for kind in FORMATS:
            write_photo(picture(), tmp_path, format=kind, metadata=odd)

    def test_broken_exif_is_left_out(self, tmp_path):
        saved = write_photo(picture(), tmp_path, info=info(exif=b64(b"II*\0junk")))
        assert len(saved.warnings) == 1
        assert saved.path.exists()

    @pytest.mark.parametrize("kind", FORMATS)
    def test_the_whole_way_round(self, tmp_path, kind):
        source = np.rint(picture() * 255).astype(np.uint8)
        exif = Image.Exif()
        exif[0x0112], exif[0x013B] = 6, "Uncle Jan"
        Image.fromarray(source).save(tmp_path / "oma.jpg", quality=98, exif=exif, dpi=(300, 300))
        photo = read_photo(tmp_path / "oma.jpg")
        saved = write_photo(photo.pixels, tmp_path / "out", info=photo.info, format=kind, quality=100)
        again = read_photo(saved.path)
        assert again.pixels.shape == (64, 48, 3)
        np.testing.assert_allclose(again.pixels, photo.pixels, atol=3 / 255)
        kept = Image.Exif()
        kept.load(base64.b64decode(again.info["exif"]))
        assert kept[0x013B] == "Uncle Jan"
        assert again.info["name"] == "oma_restored"


def as_the_editor_reads(block: bytes) -> dict[str, str]:
    """What ComfyUI's editor does with a block: every ASCII value of the first directory, split at its first colon."""
    order = "little" if block[:2] == b"II" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(block[at : at + size], order)

    first = number(4, 4)
    found = {}
    for i in range(number(first, 2)):
        entry = first + 2 + 12 * i
        if number(entry + 2, 2) == 2:
            at = number(entry + 8, 4)
            text = block[at : at + number(entry + 4, 4) - 1].decode("utf-8", "replace")
            found[text.partition(":")[0]] = text.partition(":")[2]
    return found


class TestNames:
    def test_numbers(self, tmp_path):
        names = [write_photo(picture(), tmp_path, info=info()).filename for _ in range(3)]
        assert names == ["olga_restored.png", "olga_restored_2.png", "olga_restored_3.png"]
        assert files(tmp_path) == sorted(names)

    def test_a_gap_is_filled_but_nothing_overwritten(self, tmp_path):
        (tmp_path / "p.png").write_bytes(b"mine")
        (tmp_path / "p_3.png").write_bytes(b"mine")
        assert [write_photo(picture(), tmp_path, "p").filename for _ in range(2)] == ["p_2.png", "p_4.png"]
        assert (tmp_path / "p.png").read_bytes() == b"mine"

    def test_case_counts_as_taken(self, tmp_path):
        (tmp_path / "Olga.PNG").write_bytes(b"mine")
        assert write_photo(picture(), tmp_path, "olga").filename == "olga_2.png"

    def test_a_dangling_link_counts_as_taken(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "p.png").symlink_to(tmp_path / "nowhere")
        assert write_photo(picture(), tmp_path / "out", "p").filename == "p_2.png"
        assert not (tmp_path / "nowhere").exists()

    def test_refuse(self, tmp_path):
        write_photo(picture(), tmp_path, "p", if_exists="refuse")
        before = (tmp_path / "p.png").read_bytes()
        with pytest.raises(PhotoWriteError, match="exists already") as caught:
            write_photo(picture() * 0, tmp_path, "p", if_exists="refuse")
        assert "overwrite" in caught.value.hint
        assert (tmp_path / "p.png").read_bytes() == before
        assert files(tmp_path) == ["p.png"]

    def test_overwrite(self, tmp_path):
        write_photo(picture(), tmp_path, "p")
        write_photo(picture() * 0, tmp_path, "p", if_exists="overwrite")
        assert read_photo(tmp_path / "p.png").pixels.max() == 0
        assert files(tmp_path) == ["p.png"]

    def test_overwriting_a_link_spares_what_it_points_to(self, tmp_path):
        (tmp_path / "secret").write_bytes(b"secret")
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "p.png").symlink_to(tmp_path / "secret")
        write_photo(picture(), tmp_path / "out", "p", if_exists="overwrite")
        assert (tmp_path / "secret").read_bytes() == b"secret"
        assert not (tmp_path / "out" / "p.png").is_symlink()

    def test_overwriting_a_folder(self, tmp_path):
        (tmp_path / "p.png").mkdir()
        with pytest.raises(PhotoWriteError):
            write_photo(picture(), tmp_path, "p", if_exists="overwrite")
        assert files(tmp_path) == []

    @pytest.mark.parametrize(
        ("kind", "suffix"), [("png", ".png"), ("jpeg", ".jpg"), ("webp", ".webp"), ("tiff", ".tif")]
    )
    def test_folders_and_suffixes(self, tmp_path, kind, suffix):
        saved = write_photo(picture(), tmp_path, "%date%/a/%photo%", format=kind, info=info(), now=NOW)
        assert saved.subfolder == "2031-02-03/a"
        assert saved.filename == "olga" + suffix
        assert saved.path == tmp_path.resolve() / "2031-02-03" / "a" / saved.filename
        assert saved.path.is_file()

    def test_the_folder_is_made(self, tmp_path):
        assert write_photo(picture(), tmp_path / "not" / "there").path.is_file()

    def test_long_names(self, tmp_path):
        first, second = (write_photo(picture(), tmp_path, "é" * 400) for _ in range(2))
        assert first.filename != second.filename
        assert files(tmp_path) == sorted([first.filename, second.filename])

    def test_the_usual_permissions(self, tmp_path):
        (tmp_path / "plain").write_bytes(b"")
        saved = write_photo(picture(), tmp_path, "p")
        assert saved.path.stat().st_mode == (tmp_path / "plain").stat().st_mode

    @pytest.mark.parametrize("name", ["../p", "a/../../p", "/p", "C:\\p", ""])
    def test_the_folder_is_a_jail(self, tmp_path, name):
        with pytest.raises(PhotoWriteError):
            write_photo(picture(), tmp_path / "out", name)
        assert files(tmp_path) == []

    def test_a_link_out_of_the_folder(self, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "away").mkdir()
        (tmp_path / "out" / "link").symlink_to(tmp_path / "away", target_is_directory=True)
        for name in ("link/p", "link/new/p"):
            with pytest.raises(PhotoWriteError, match="leads out"):
                write_photo(picture(), tmp_path / "out", name)
        assert list((tmp_path / "away").iterdir()) == []

    def test_the_folder_itself_may_be_a_link(self, tmp_path):
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to(tmp_path / "real", target_is_directory=True)
        write_photo(picture(), tmp_path / "link", "a/p")
        assert files(tmp_path / "real") == ["a/p.png"]

    def test_two_processes_number_at_once(self, tmp_path):
        script = (
            "import sys, numpy as np\n"
            "from photokeep_nodes.photo_io import write_photo\n"
            "value = float(sys.argv[2])\n"
            "sys.stdin.readline()\n"
            "for _ in range(20):\n"
            "    print(write_photo(np.full((4, 4, 3), value), sys.argv[1], 'p').filename)\n"
        )
        workers = [
            subprocess.Popen(
                [sys.executable, "-c", script, str(tmp_path), str(value)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            )
            for value in (0.2, 0.8)
        ]  # fmt: skip
        for worker in workers:
            worker.stdin.write("go\n")
            worker.stdin.flush()
        printed = [worker.communicate()[0].split() for worker in workers]
        assert sorted(printed[0] + printed[1]) == files(tmp_path)
        assert len(files(tmp_path)) == 40
        for names, value in zip(printed, (51, 204), strict=True):
            assert len(names) == 20
            for name in names:
                assert (np.asarray(opened(tmp_path / name)) == value).all()


class TestWithoutHardLinks:
    @pytest.fixture(autouse=True)
    def no_links(self, monkeypatch):
        def refuse(*_args, **_options):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)

    def test_numbers(self, tmp_path):
        (tmp_path / "p_2.png").write_bytes(b"mine")
        assert [write_photo(picture(), tmp_path, "p").filename for _ in range(2)] == ["p.png", "p_3.png"]
        assert read_photo(tmp_path / "p_3.png").pixels.shape == (48, 64, 3)
        assert len(files(tmp_path)) == 3

    def test_refuse(self, tmp_path):
        write_photo(picture(), tmp_path, "p", if_exists="refuse")
        with pytest.raises(PhotoWriteError, match="exists already"):
            write_photo(picture(), tmp_path, "p", if_exists="refuse")

    def test_an_interrupt_leaves_no_empty_file(self, tmp_path, monkeypatch):
        def interrupt(*_args):
            raise KeyboardInterrupt

        monkeypatch.setattr(Path, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            write_photo(picture(), tmp_path, "p")
        assert files(tmp_path) == []


FULL = OSError(errno.ENOSPC, "No space left on device")


class TestInterrupted:
    # A link that fails with an OSError is made up for, see TestWithoutHardLinks.
    @pytest.mark.parametrize(
        ("step", "choice", "kind"),
        [
            *(("fsync", choice, kind) for choice in place.PLACERS for kind in (KeyboardInterrupt, MemoryError, FULL)),
            ("link", "number", KeyboardInterrupt),
            ("replace", "overwrite", KeyboardInterrupt),
            ("replace", "overwrite", FULL),
        ],
    )
    def test_no_part_is_left_and_the_old_file_stays(self, tmp_path, monkeypatch, step, choice, kind):
        (tmp_path / "p.png").write_bytes(b"old")

        def fail(*_args, **_options):
            raise kind

        monkeypatch.setattr(Path if step == "replace" else os, step, fail)
        want = PhotoWriteError if isinstance(kind, OSError) else kind
        with pytest.raises(want) as caught:
            write_photo(picture(), tmp_path, "p", if_exists=choice)
        if want is PhotoWriteError:
            assert "disk is full" in caught.value.message
        assert files(tmp_path) == ["p.png"]
        assert (tmp_path / "p.png").read_bytes() == b"old"

    @pytest.mark.parametrize("choice", ["number", "overwrite"])
    def test_killed_before_the_last_step(self, tmp_path, choice):
        """SIGKILL runs no clean-up: a hidden temporary file may stay, but nothing under a photo's name."""
        (tmp_path / "p.png").write_bytes(b"old")
        script = (
            "import os, pathlib, signal, sys, numpy as np\n"
            "from photokeep_nodes.photo_io import write_photo\n"
            "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
            "os.link = pathlib.Path.replace = die\n"
            f"write_photo(np.zeros((4, 4, 3)), sys.argv[1], 'p', if_exists={choice!r})\n"
        )
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, cwd=ROOT)
        assert done.returncode == -signal.SIGKILL
        assert (tmp_path / "p.png").read_bytes() == b"old"
        others = [name for name in files(tmp_path) if name != "p.png"]
        assert all(name.startswith(".photokeep-") and name.endswith(".tmp") for name in others)
        # The leftover is in nobody's way.
        assert write_photo(picture(), tmp_path, "p").filename == "p_2.png"

    def test_ctrl_c_at_any_moment(self, tmp_path):
        """SIGINT into a process that saves without pause: whole files only, nothing else."""
        script = (
            "import sys, numpy as np\n"
            "from photokeep_nodes.photo_io import write_photo\n"
            "pixels = np.random.default_rng(0).random((128, 128, 3))\n"
            "print('ready', flush=True)\n"
            "try:\n"
            "    while True:\n"
            "        write_photo(pixels, sys.argv[1], 'p', if_exists='number')\n"
            "except KeyboardInterrupt:\n"
            "    sys.exit(130)\n"
        )
        for wait in (0.02, 0.05, 0.081):
            folder = tmp_path / str(wait)
            worker = subprocess.Popen(
                [sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE, text=True, cwd=ROOT
            )
            worker.stdout.readline()
            time.sleep(wait)
            worker.send_signal(signal.SIGINT)
            worker.communicate(timeout=20)
            assert worker.returncode == 130
            for name in files(folder) if folder.exists() else []:
                assert name.startswith("p")
                assert read_photo(folder / name).pixels.shape == (128, 128, 3)


class TestRefused:
    @staticmethod
    def refused(*args: object, **options: object) -> PhotoWriteError:
        with pytest.raises(PhotoWriteError) as caught:
            write_photo(*args, **options)
        assert caught.value.hint, caught.value.message
        return caught.value

    def test_a_file_where_the_folder_should_be(self, tmp_path):
        (tmp_path / "file").write_bytes(b"")
        assert "not a folder" in self.refused(picture(), tmp_path / "file").message
        assert "not a folder" in self.refused(picture(), tmp_path / "file" / "below").message
        assert "not a folder" in self.refused(picture(), tmp_path, "file/p").message

    def test_a_folder_that_may_not_be_written(self, tmp_path):
        if os.geteuid() == 0:
            locked = Path("/proc/self")  # not even root may write there
            if not locked.exists():
                pytest.skip("needs a folder that root may not write")
            self.refused(picture(), locked)
            return
        tmp_path.chmod(0o500)
        try:
            assert "may not be written" in self.refused(picture(), tmp_path).message
        finally:
            tmp_path.chmod(0o700)

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EACCES, "may not be written"),
            (errno.EROFS, "read-only"), (errno.EIO, "Input/output"),
        ],
    )  # fmt: skip
    def test_what_the_system_says(self, tmp_path, monkeypatch, code, words):
        real = os.open

        def fail(path, flags, *rest, **options):
            if str(path).endswith(".tmp"):
                raise OSError(code, os.strerror(code), str(path))
            return real(path, flags, *rest, **options)

        monkeypatch.setattr(os, "open", fail)
        assert words in self.refused(picture(), tmp_path).message
        assert files(tmp_path) == []

    def test_a_disk_that_takes_only_a_part(self, tmp_path):
        """A real short write: the process may write 2 kB per file."""
        script = (
            "import resource, sys, numpy as np\n"
            "from photokeep_nodes.errors import PhotoWriteError\n"
            "from photokeep_nodes.photo_io import write_photo\n"
            "pixels = np.random.default_rng(0).random((64, 64, 3))\n"
            "import PIL.JpegImagePlugin, imagecodecs; imagecodecs.png_encode(np.zeros((2, 2), np.uint8))\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))\n"
            "try:\n"
            "    write_photo(pixels, sys.argv[1], 'p')\n"
            "except PhotoWriteError as error:\n"
            "    sys.exit(7 if error.hint else 8)\n"
        )
        done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, cwd=ROOT)
        assert done.returncode == 7
        assert files(tmp_path) == []

    @pytest.mark.parametrize(("kind", "side"), [("jpeg", 65_501), ("webp", 16_384)])
    @pytest.mark.parametrize("tall", [True, False])
    def test_too_large_for_the_format(self, tmp_path, kind, side, tall):
        pixels = np.zeros((side, 1, 3) if tall else (1, side, 3), np.float32)
        assert "PNG or TIFF" in self.refused(pixels, tmp_path, format=kind).hint
        assert files(tmp_path) == []
        write_photo(pixels[: side - 1, : side - 1], tmp_path, format=kind)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_not_numbers(self, tmp_path, value):
        pixels = picture()
        pixels[3, 4, 1] = value
        assert "not numbers" in self.refused(pixels, tmp_path).message
        assert files(tmp_path) == []

    @pytest.mark.parametrize("shape", [(0, 4, 3), (4, 4, 2), (4, 4, 4), (4,), (1, 4, 4, 3)])
    def test_shapes(self, tmp_path, shape):
        self.refused(np.zeros(shape), tmp_path)

    def test_alpha_shape(self, tmp_path):
        self.refused(picture(), tmp_path, alpha=np.zeros((1, 4, 4)))

    @pytest.mark.parametrize("choice", [{"format": "gif"}, {"bit_depth": "12"}, {"if_exists": "maybe"}])
    def test_choices(self, tmp_path, choice):
        self.refused(picture(), tmp_path, **choice)

    def test_numbers_run_out(self, tmp_path, monkeypatch):
        monkeypatch.setattr(place, "_MAX_NUMBER", 3)
        for _ in range(2):
            write_photo(picture(), tmp_path, "p")
        self.refused(picture(), tmp_path, "p")
        assert len(files(tmp_path)) == 2
