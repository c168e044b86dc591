from __future__ import annotations

import base64
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image, ImageCms, ImageOps

from photokeep_nodes.errors import PhotoReadError
from photokeep_nodes.photo_io import Photo, read_photo, tiff
from photokeep_nodes.photo_io.containers import png_chunk

quick = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def picture(height: int = 48, width: int = 64, channels: int = 3) -> np.ndarray:
    """A smooth picture with some texture, the same each time."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    planes = [127 + 100 * np.sin(x / (5 + c) + c) * np.cos(y / (7 - c)) for c in range(channels)]
    out = np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8)
    return out[..., 0] if channels == 1 else out


def encoded(array: np.ndarray, kind: str, mode: str | None = None, **options: object) -> bytes:
    image = Image.fromarray(array)
    if mode:
        image = image.convert(mode)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def exif_with(orientation: int | None = None, **extra: str) -> Image.Exif:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    for tag, text in extra.items():
        exif[int(tag[1:], 16)] = text
    return exif


def as_tiff(array: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, metadata=None, **options)
    return out.getvalue()


@pytest.fixture
def put(tmp_path: Path):
    def write(data: bytes, name: str = "photo.bin") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return write


def eight_bits(pixels: np.ndarray) -> np.ndarray:
    return np.rint(pixels * 255).astype(np.uint8)


class TestFormats:
    @pytest.mark.parametrize(
        ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True}), ("BMP", {})]
    )
    def test_lossless_rgb_is_exact(self, put, kind, options):
        source = picture()
        photo = read_photo(put(encoded(source, kind, **options), "grandma.old.x"))
        assert photo.pixels.dtype == np.float32
        assert photo.pixels.flags.c_contiguous
        np.testing.assert_array_equal(eight_bits(photo.pixels), source)
        assert photo.alpha is None
        assert photo.info == {
            "name": "grandma.old",
            "format": kind,
            "mode": "rgb",
            "bit_depth": 8,
            "has_alpha": False,
            "exif": "",
            "icc": "",
            "dpi": None,
            "warnings": [],
        }

    def test_jpeg_equals_pillow(self, put):
        data = encoded(picture(), "JPEG", quality=90, dpi=(300, 150))
        photo = read_photo(put(data))
        np.testing.assert_array_equal(eight_bits(photo.pixels), np.asarray(Image.open(io.BytesIO(data))))
        assert photo.info["format"] == "JPEG"
        assert photo.info["dpi"] == [300.0, 150.0]

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
    def test_gray_is_repeated_and_remembered(self, put, kind):
        data = encoded(picture(channels=1), kind)
        photo = read_photo(put(data))
        want = np.asarray(Image.open(io.BytesIO(data)))
        for channel in range(3):
            np.testing.assert_array_equal(eight_bits(photo.pixels[..., channel]), want)
        assert photo.info["mode"] == "gray"

    @pytest.mark.parametrize(("kind", "mode"), [("PNG", "LA"), ("PNG", "RGBA"), ("TIFF", "RGBA"), ("TIFF", "LA")])
    def test_alpha(self, put, kind, mode):
        alpha = np.linspace(0, 255, 48 * 64).reshape(48, 64).astype(np.uint8)
        image = Image.fromarray(picture()).convert(mode)
        image.putalpha(Image.fromarray(alpha))
        out = io.BytesIO()
        image.save(out, kind)
        photo = read_photo(put(out.getvalue()))
        assert photo.alpha is not None
        np.testing.assert_array_equal(eight_bits(photo.alpha), alpha)
        np.testing.assert_array_equal(eight_bits(photo.pixels[..., 0]), np.asarray(image)[..., 0])
        assert photo.info["has_alpha"] is True
        assert photo.info["mode"] == ("gray" if mode == "LA" else "rgb")

    def test_webp_alpha(self, put):
        rgba = np.dstack([picture(), picture(channels=1)])
        photo = read_photo(put(encoded(rgba, "WEBP", lossless=True, exact=True)))
        np.testing.assert_array_equal(eight_bits(photo.pixels), rgba[..., :3])
        np.testing.assert_array_equal(eight_bits(photo.alpha), rgba[..., 3])

    @pytest.mark.parametrize("kind", ["PNG", "GIF"])
    def test_palette_with_transparency(self, put, kind):
        image = Image.fromarray(picture()).quantize(16)
        out = io.BytesIO()
        image.save(out, kind, transparency=3)
        photo = read_photo(put(out.getvalue()))
        index = np.asarray(image)
        np.testing.assert_array_equal(photo.alpha == 0, index == 3)
        want = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(eight_bits(photo.pixels)[index != 3], want[index != 3])

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP"])
    def test_palette(self, put, kind):
        image = Image.fromarray(picture()).quantize(16)
        out = io.BytesIO()
        image.save(out, kind)
        photo = read_photo(put(out.getvalue()))
        np.testing.assert_array_equal(eight_bits(photo.pixels), np.asarray(image.convert("RGB")))
        assert photo.info["mode"] == "rgb"

    @pytest.mark.parametrize(
        ("kind", "options"), [("PNG", {}), ("TIFF", {}), ("TIFF", {"compression": "group4"}), ("BMP", {})]
    )
    def test_one_bit(self, put, kind, options):
        bits = picture(channels=1) > 128
        photo = read_photo(put(encoded(bits, kind, **options)))
        np.testing.assert_array_equal(photo.pixels[..., 1] == 1, bits)
        assert set(np.unique(photo.pixels)) == {0.0, 1.0}
        assert photo.info["mode"] == "gray"

    def test_gif_gives_its_first_picture_and_says_so(self, put):
        frames = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (10, 200)]
        out = io.BytesIO()
        frames[0].save(out, "GIF", save_all=True, append_images=frames[1:], duration=50)
        photo = read_photo(put(out.getvalue()))
        assert abs(photo.pixels.mean() * 255 - 10) < 4
        assert any("animated" in warning for warning in photo.info["warnings"])

    @pytest.mark.parametrize("kind", ["PNG", "WEBP"])
    def test_animation_gives_its_first_picture_and_says_so(self, put, kind):
        frames = [Image.fromarray(np.full((20, 30, 3), value, np.uint8)) for value in (10, 200)]
        out = io.BytesIO()
        frames[0].save(out, kind, save_all=True, append_images=frames[1:], duration=50, lossless=True)
        photo = read_photo(put(out.getvalue()))
        assert abs(photo.pixels.mean() * 255 - 10) < 2
        assert any("animated" in warning for warning in photo.info["warnings"])

    def test_tiff_of_several_pages_gives_the_first_and_says_so(self, put):
        out = io.BytesIO()
        with tifffile.TiffWriter(out) as writer:
            writer.write(picture(), photometric="rgb", metadata=None)
            writer.write(picture()[:16, :16], photometric="rgb", metadata=None)
        photo = read_photo(put(out.getvalue()))
        np.testing.assert_array_equal(eight_bits(photo.pixels), picture())
        assert any("pages" in warning for warning in photo.info["warnings"])

    def test_content_decides_not_the_name(self, put):
        assert read_photo(put(encoded(picture(), "PNG"), "actually.jpg")).info["format"] == "PNG"

    def test_trailing_bytes_do_not_matter(self, put):
        for kind in ("PNG", "JPEG"):
            data = encoded(picture(), kind)
            plain = read_photo(put(data, "a"))
            polyglot = read_photo(put(data + b"PK\x03\x04 a zip archive follows" * 20, "b"))
            np.testing.assert_array_equal(plain.pixels, polyglot.pixels)

    def test_a_strip_of_1_by_65535_is_a_photo(self, put):
        strip = np.arange(65535, dtype=np.uint32).astype(np.uint8)[:, None]
        assert read_photo(put(encoded(strip, "PNG"))).pixels.shape == (65535, 1, 3)

    def test_multi_picture_jpeg_of_phones_is_a_jpeg(self, put):
        out = io.BytesIO()
        first = Image.fromarray(picture())
        first.save(out, "MPO", save_all=True, append_images=[Image.fromarray(picture()[:16, :16])])
        photo = read_photo(put(out.getvalue()))
        assert photo.info["format"] == "JPEG"
        assert photo.pixels.shape == (48, 64, 3)
        assert photo.info["warnings"] == []


class TestSixteenBits:
    shapes = st.one_of(
        st.tuples(st.integers(1, 12), st.integers(1, 12)),
        st.tuples(st.integers(1, 12), st.integers(1, 12), st.sampled_from([2, 3, 4])),
    )

    @quick
    @given(samples=hnp.arrays(np.uint16, shapes))
    def test_png_is_exact(self, put, samples):
        photo = read_photo(put(imagecodecs.png_encode(samples)))
        self.check(photo, samples)

    @quick
    @given(
        samples=hnp.arrays(np.uint16, shapes),
        layout=st.sampled_from(["raw", "adobe_deflate", "lzw", "tiles", "planes"]),
        order=st.sampled_from(["<", ">"]),
    )
    def test_tiff_is_exact(self, put, samples, layout, order):
        channels = samples.shape[2] if samples.ndim == 3 else 1
        options: dict = {"photometric": "rgb" if channels > 2 else "minisblack", "byteorder": order}
        stored = samples
        if channels in (2, 4):
            options["extrasamples"] = ["unassalpha"]
        if layout == "tiles":
            options["tile"] = (16, 16)
        elif layout == "planes" and channels > 1:
            options["planarconfig"] = "separate"
            stored = np.moveaxis(samples, 2, 0)
        elif layout in ("adobe_deflate", "lzw"):
            options.update(compression=layout, predictor=True)
        if channels > 1 and "planarconfig" not in options:
            options["planarconfig"] = "contig"
        photo = read_photo(put(as_tiff(np.ascontiguousarray(stored), **options)))
        self.check(photo, samples)

    @staticmethod
    def check(photo, samples):
        channels = samples.shape[2] if samples.ndim == 3 else 1
        assert photo.info["bit_depth"] == 16
        assert photo.info["mode"] == ("gray" if channels < 3 else "rgb")
        got = np.rint(photo.pixels * 65535).astype(np.uint16)
        colours = samples if samples.ndim == 2 else samples[..., : 3 if channels > 2 else 1]
        np.testing.assert_array_equal(got, np.broadcast_to(colours.reshape(*colours.shape[:2], -1), got.shape))
        assert (photo.alpha is not None) == (channels in (2, 4))
        if photo.alpha is not None:
            np.testing.assert_array_equal(np.rint(photo.alpha * 65535).astype(np.uint16), samples[..., -1])

    def test_png_colour_key(self, put):
        samples = np.random.default_rng(0).integers(0, 3, (8, 9, 3)).astype(np.uint16) * 30000
        key = samples[2, 2]
        plain = imagecodecs.png_encode(samples)
        data = plain[:33] + png_chunk(b"tRNS", key.astype(">u2").tobytes()) + plain[33:]
        photo = read_photo(put(data))
        np.testing.assert_array_equal(photo.alpha == 0, (samples == key).all(axis=2))

    def test_interlaced_png(self, put):
        # imagecodecs and Pillow write no interlaced files: one is put together by hand, pass by pass.
        samples = np.random.default_rng(1).integers(0, 65536, (11, 13, 3)).astype(np.uint16)
        raw = b""
        for x, y, dx, dy in (
            (0, 0, 8, 8),
            (4, 0, 8, 8),
            (0, 4, 4, 8),
            (2, 0, 4, 4),
            (0, 2, 2, 4),
            (1, 0, 2, 2),
            (0, 1, 1, 2),
        ):
            for row in samples[y::dy, x::dx]:
                if row.size:
                    raw += b"\0" + row.astype(">u2").tobytes()
        header = struct.pack(">IIBBBBB", 13, 11, 16, 2, 0, 0, 1)
        parts = [png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(raw)), png_chunk(b"IEND", b"")]
        data = b"\x89PNG\r\n\x1a\n" + b"".join(parts)
        self.check(read_photo(put(data)), samples)
        # The whole of it is still there when only the end marker is lost: passes and all.
        self.check(read_photo(put(data[:-12]), on_damage="accept"), samples)

    @pytest.mark.parametrize("bits", [2, 4, 10, 12])
    def test_odd_depths_of_tiff_fill_the_range(self, put, bits):
        ramp = np.arange(2**bits).reshape(2, -1).astype(np.uint16 if bits > 8 else np.uint8)
        try:
            data = as_tiff(ramp, bitspersample=bits, photometric="minisblack")
        except NotImplementedError:
            pytest.skip("this imagecodecs reads odd depths but cannot write any")
        photo = read_photo(put(data))
        assert photo.info["bit_depth"] == (16 if bits > 8 else 8)
        np.testing.assert_allclose(photo.pixels[..., 0], ramp / (2**bits - 1), atol=0.5 / (65535 if bits > 8 else 255))

    def test_float_tiff(self, put):
        values = np.linspace(-0.5, 1.5, 48 * 64).reshape(48, 64).astype(np.float32)
        photo = read_photo(put(as_tiff(values, photometric="minisblack")))
        np.testing.assert_array_equal(photo.pixels[..., 0], values.clip(0, 1))
        assert photo.info["bit_depth"] == 16
        assert any("cut off" in warning for warning in photo.info["warnings"])


class TestTiffKinds:
    @pytest.mark.parametrize("shape", [(2, 1, 2), (2, 2, 2), (3, 3, 3), (4, 3, 4), (3, 5, 3)])
    @pytest.mark.parametrize("planarconfig", ["contig", "separate"])
    def test_planes_are_not_guessed_from_the_shape(self, put, shape, planarconfig):
        samples = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        stored = np.moveaxis(samples, 2, 0).copy() if planarconfig == "separate" else samples
        options = {"extrasamples": ["unassalpha"]} if shape[2] in (2, 4) else {}
        photometric = "rgb" if shape[2] > 2 else "minisblack"
        photo = read_photo(put(as_tiff(stored, photometric=photometric, planarconfig=planarconfig, **options)))
        np.testing.assert_array_equal(eight_bits(photo.pixels[..., 0]), samples[..., 0])

    def test_white_is_zero(self, put):
        gray = picture(channels=1)
        photo = read_photo(put(as_tiff(gray, photometric="miniswhite")))
        np.testing.assert_array_equal(eight_bits(photo.pixels[..., 0]), 255 - gray)

    def test_premultiplied_alpha(self, put):
        rgb = picture().astype(float)
        alpha = np.linspace(1, 255, 48 * 64).reshape(48, 64).astype(np.uint8)
        stored = np.dstack([np.rint(rgb * alpha[..., None] / 255).astype(np.uint8), alpha])
        photo = read_photo(put(as_tiff(stored, photometric="rgb", extrasamples=["assocalpha"])))
        solid = alpha > 128
        np.testing.assert_allclose(photo.pixels[solid] * 255, rgb[solid], atol=1.5)

    def test_cmyk_uses_its_planes(self, put):
        cmyk = np.zeros((16, 16, 4), np.uint8)
        cmyk[:, 8:, 3] = 255
        photo = read_photo(put(as_tiff(cmyk, photometric="separated")))
        assert (photo.pixels[:, :8] == 1).all()
        assert (photo.pixels[:, 8:] == 0).all()
        assert any("CMYK" in warning for warning in photo.info["warnings"])

    @pytest.mark.parametrize("orientation", [1, 3, 6])
    def test_jpeg_in_tiff(self, put, orientation):
        out = io.BytesIO()
        image = Image.fromarray(picture())
        image.save(out, "TIFF", compression="jpeg", quality=95, tiffinfo={0x0112: orientation})
        photo = read_photo(put(out.getvalue()))
        image.getexif()[0x0112] = orientation
        want = np.asarray(ImageOps.exif_transpose(image))
        assert photo.pixels.shape == want.shape
        np.testing.assert_allclose(photo.pixels * 255, want, atol=24)
        assert np.abs(photo.pixels * 255 - want).mean() < 3

    @pytest.mark.parametrize("orientation", [1, 3, 6])
    def test_ycbcr_comes_out_upright(self, put, orientation):
        base = Image.fromarray(picture(32, 48))
        base.getexif()[0x0112] = orientation
        want = np.asarray(ImageOps.exif_transpose(base))
        out = io.BytesIO()
        base.convert("YCbCr").save(out, "TIFF", tiffinfo={0x0112: orientation})
        photo = read_photo(put(out.getvalue()))
        assert photo.pixels.shape == want.shape
        np.testing.assert_allclose(photo.pixels * 255, want, atol=4)

    def test_bigtiff(self, put):
        photo = read_photo(put(as_tiff(picture(), photometric="rgb", bigtiff=True)))
        np.testing.assert_array_equal(eight_bits(photo.pixels), picture())

    def test_tags_are_carried(self, put):
        out = io.BytesIO()
        Image.fromarray(picture()).save(
            out,
            "TIFF",
            dpi=(600, 600),
            tiffinfo={0x010E: "Aunt Olga", 0x013B: "Uncle Jan", 0x0132: "1961:05:04 10:00:00"},
        )
        photo = read_photo(put(out.getvalue()))
        assert photo.info["dpi"] == [600.0, 600.0]
        exif = Image.Exif()
        exif.load(base64.b64decode(photo.info["exif"]))
        assert exif[0x010E] == "Aunt Olga"
        assert exif[0x013B] == "Uncle Jan"
        assert exif[0x0132] == "1961:05:04 10:00:00"
        assert 0x0111 not in exif
        assert 0x0100 not in exif

    @pytest.mark.parametrize("array", [np.zeros((8, 8), np.int16), np.zeros((8, 8), np.complex64)])
    def test_measurements_are_no_photos(self, put, array):
        with pytest.raises(PhotoReadError) as caught:
            read_photo(put(as_tiff(array, photometric="minisblack")))
        assert caught.value.hint


class TestOrientation:
    @pytest.mark.parametrize("orientation", range(1, 9))
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
    def test_applied_and_reset(self, put, kind, orientation):
        base = picture(24, 40)
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(base, kind, exif=exif_with(orientation, x010E="Holiday"), **options)
        photo = read_photo(put(data))
        want = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        np.testing.assert_array_equal(eight_bits(photo.pixels), want)
        kept = Image.Exif()
        kept.load(base64.b64decode(photo.info["exif"]))
        assert kept[0x0112] == 1
        assert kept[0x010E] == "Holiday"

    @pytest.mark.parametrize("orientation", [0, 9, 4711])
    def test_nonsense_is_upright(self, put, orientation):
        data = encoded(picture(), "PNG", exif=exif_with(orientation))
        np.testing.assert_array_equal(eight_bits(read_photo(put(data)).pixels), picture())

    def test_alpha_and_resolution_turn_along(self, put):
        rgba = np.dstack([picture(), picture(channels=1)])
        data = encoded(rgba, "PNG", exif=exif_with(6), dpi=(300, 100))
        photo = read_photo(put(data))
        np.testing.assert_array_equal(eight_bits(photo.alpha), np.rot90(rgba[..., 3], k=-1))
        assert photo.info["dpi"] == pytest.approx([100, 300], abs=0.1)


class TestProfiles:
    relative, compensation = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION

    def by_pillow(self, image: Image.Image, profile: bytes) -> np.ndarray:
        return np.asarray(
            ImageCms.profileToProfile(
                image,
                ImageCms.ImageCmsProfile(io.BytesIO(profile)),
                ImageCms.createProfile("sRGB"),
                renderingIntent=self.relative,
                outputMode="RGB",
                flags=self.compensation,
            )
        )

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
    def test_eight_bits_agree_with_imagecms(self, put, kind):
        profile = imagecodecs.cms_profile("adobergb")
        source = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        options = {"lossless": True} if kind == "WEBP" else {}
        photo = read_photo(put(encoded(source, kind, icc_profile=profile, **options)))
        want = self.by_pillow(Image.fromarray(source), profile)
        np.testing.assert_allclose(photo.pixels * 255, want, atol=1)
        assert np.abs(eight_bits(photo.pixels).astype(int) - source).max() > 10
        assert base64.b64decode(photo.info["icc"]) == profile

    def test_sixteen_bits_are_converted_in_sixteen_bits(self, put):
        profile = imagecodecs.cms_profile("adobergb")
        # Near-gray, so that nothing is cut off and the exact answer is the float one.
        base = np.linspace(3000, 62000, 64 * 64).reshape(64, 64, 1)
        source = (base + np.array([0, 1500, -1500])).astype(np.uint16)
        photo = read_photo(put(as_tiff(source, photometric="rgb", iccprofile=profile)))
        want = imagecodecs.cms_transform(
            source / 65535, profile, imagecodecs.cms_profile("srgb"), colorspace="rgb", outcolorspace="rgb", intent=1
        )
        np.testing.assert_allclose(photo.pixels * 65535, want * 65535, atol=1.0)

    @pytest.mark.parametrize("depth", [np.uint8, np.uint16])
    def test_any_srgb_profile_leaves_pixels_alone(self, put, depth):
        source = np.random.default_rng(0).integers(0, np.iinfo(depth).max, (32, 32, 3), depth, endpoint=True)
        for profile in (
            imagecodecs.cms_profile("srgb"),
            ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        ):
            photo = read_photo(put(as_tiff(source, photometric="rgb", iccprofile=profile)))
            np.testing.assert_array_equal(np.rint(photo.pixels * np.iinfo(depth).max).astype(depth), source)
            assert base64.b64decode(photo.info["icc"]) == profile

    def test_gray_profile(self, put):
        profile = imagecodecs.cms_profile("gray", gamma=1.8)
        source = np.arange(256, dtype=np.uint8).reshape(16, 16)
        photo = read_photo(put(encoded(source, "PNG", icc_profile=profile)))
        linear = (source / 255) ** 1.8
        want = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        np.testing.assert_allclose(photo.pixels[..., 1], want, atol=0.05 / 255)
        assert (photo.pixels[..., 0] == photo.pixels[..., 2]).all()
        assert photo.info["mode"] == "gray"
        assert base64.b64decode(photo.info["icc"]) == profile

    def test_rgb_profile_in_a_gray_photo_keeps_it_gray(self, put):
        profile = imagecodecs.cms_profile("adobergb")
        source = np.arange(256, dtype=np.uint8).reshape(16, 16)
        photo = read_photo(put(encoded(source, "JPEG", quality=100, icc_profile=profile)))
        assert photo.info["mode"] == "gray"
        assert (np.ptp(photo.pixels, axis=2) == 0).all()
        assert photo.info["icc"] == ""

    def test_cmyk_jpeg_without_profile(self, put):
        data = encoded(picture(), "JPEG", mode="CMYK", quality=95)
        photo = read_photo(put(data))
        np.testing.assert_allclose(
            photo.pixels * 255, np.asarray(Image.open(io.BytesIO(data)).convert("RGB")), atol=1.5
        )
        assert photo.info["mode"] == "rgb"
        assert any("CMYK" in warning for warning in photo.info["warnings"])

    def test_cmyk_jpeg_through_its_profile(self, put):
        profile = cmyk_profile()
        data = encoded(picture(), "JPEG", mode="CMYK", quality=95, icc_profile=profile)
        photo = read_photo(put(data))
        with Image.open(io.BytesIO(data)) as image:
            want = self.by_pillow(image, profile)
            naive = np.asarray(image.convert("RGB"))
        np.testing.assert_allclose(photo.pixels * 255, want, atol=1.5)
        assert np.abs(photo.pixels * 255 - naive).mean() > 5
        assert photo.info["warnings"] == []
        assert photo.info["icc"] == ""

    @pytest.mark.parametrize("broken", [b"nonsense" * 40, b"", imagecodecs.cms_profile("srgb")[:300]])
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
    def test_a_broken_profile_is_left_out(self, put, kind, broken):
        if not broken and kind in ("JPEG", "PNG", "WEBP", "TIFF"):
            # An empty block: what a careless editor leaves behind. Pillow will not write one.
            broken = b"\0"
        data = encoded(picture(), kind, icc_profile=broken)
        photo = read_photo(put(data))
        np.testing.assert_array_equal(eight_bits(photo.pixels), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))
        assert photo.info["icc"] == ""
        assert any("profile" in warning for warning in photo.info["warnings"])

    def test_a_profile_for_other_colours_is_left_out(self, put):
        data = encoded(picture(), "PNG", icc_profile=imagecodecs.cms_profile("gray", gamma=2.2))
        photo = read_photo(put(data))
        np.testing.assert_array_equal(eight_bits(photo.pixels), picture())
        assert any("gray profile" in warning for warning in photo.info["warnings"])

    def test_an_incomplete_jpeg_profile_is_left_out(self, put):
        data = bytearray(encoded(picture(), "JPEG", icc_profile=imagecodecs.cms_profile("adobergb")))
        data[data.index(b"ICC_PROFILE\0") + 13] = 2  # says that there are two parts
        photo = read_photo(put(bytes(data)))
        assert photo.info["icc"] == ""
        assert any("incomplete" in warning for warning in photo.info["warnings"])

    def test_a_png_profile_that_unpacks_to_gigabytes(self, put):
        bomb = zlib.compress(bytes(40_000_000), 9)
        plain = encoded(picture(), "PNG")
        data = plain[:33] + png_chunk(b"iCCP", b"x\0\0" + bomb) + plain[33:]
        photo = read_photo(put(data))
        assert photo.info["icc"] == ""
        assert any("profile" in warning for warning in photo.info["warnings"])

    def test_a_png_text_that_unpacks_to_gigabytes_is_not_even_looked_at(self, put):
        bomb = zlib.compress(bytes(80_000_000), 9)
        plain = encoded(picture(), "PNG")
        photo = read_photo(put(plain[:33] + png_chunk(b"zTXt", b"Comment\0\0" + bomb) + plain[33:]))
        np.testing.assert_array_equal(eight_bits(photo.pixels), picture())


def cmyk_profile() -> bytes:
    """A small CMYK input profile: ink to Lab through a 2-point grid (mft1 of ICC.1:2001), made by hand."""
    n_grid, inputs, outputs = 2, 4, 3
    grid = []
    for node in np.ndindex(2, 2, 2, 2):
        c, m, y, k = node
        lightness = 255 * (1 - 0.3 * c) * (1 - 0.5 * m) * (1 - 0.1 * y) * (1 - 0.9 * k)
        grid += [int(lightness), 128 - 40 * c + 70 * m, 128 - 50 * c + 90 * y]
    ramp = bytes(range(256))
    lut = b"mft1\0\0\0\0" + bytes([inputs, outputs, n_grid, 0])
    lut += struct.pack(">9i", *(65536 if i % 4 == 0 else 0 for i in range(9)))
    lut += ramp * inputs + bytes(grid) + ramp * outputs
    lut += b"\0" * (-len(lut) % 4)
    text = b"text\0\0\0\0test\0\0\0\0"
    white = b"XYZ \0\0\0\0" + struct.pack(">3i", 63190, 65536, 54061)
    description = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78 + 3)
    description += b"\0" * (-len(description) % 4)
    tags = [(b"desc", description), (b"cprt", text), (b"wtpt", white), (b"A2B0", lut)]
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags:
        table += name + struct.pack(">II", at + len(body), len(data))
        body += data
    header = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"prtr", b"CMYK", b"Lab ")
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + bytes(28)
    header += struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + body


class TestExif:
    def test_carried_along(self, put):
        exif = exif_with(x010F="Leica", x0110="M3")
        exif[0x8769] = {0x9003: "1958:07:01 12:00:00"}
        exif[0x8825] = {1: "N"}
        for kind in ("JPEG", "PNG", "WEBP"):
            photo = read_photo(put(encoded(picture(), kind, exif=exif)))
            kept = Image.Exif()
            kept.load(base64.b64decode(photo.info["exif"]))
            assert kept[0x010F] == "Leica"
            assert kept.get_ifd(0x8769)[0x9003] == "1958:07:01 12:00:00"
            assert kept.get_ifd(0x8825)[1] == "N"
            assert photo.info["warnings"] == []

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("broken", [b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff", b"rubbish", b"II*\0"])
    def test_a_broken_block_is_left_out(self, put, kind, broken):
        data = with_raw_exif(kind, broken)
        photo = read_photo(put(data))
        np.testing.assert_array_equal(
            eight_bits(photo.pixels), np.asarray(Image.open(io.BytesIO(encoded(picture(), kind, **lossless(kind)))))
        )
        assert photo.info["exif"] == ""
        assert any("EXIF" in warning for warning in photo.info["warnings"])

    @quick
    @given(noise=st.binary(max_size=200), start=st.sampled_from([b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08", b""]))
    def test_no_block_keeps_a_photo_from_loading(self, put, noise, start):
        photo = read_photo(put(with_raw_exif("PNG", start + noise)))
        assert photo.pixels.shape[2] == 3

    def test_a_workflow_of_an_earlier_run_is_dropped(self, put):
        exif = exif_with(x010F='workflow:{"nodes": []}', x0110='prompt:{"1": {}}', x010E="Holiday")
        photo = read_photo(put(encoded(picture(), "WEBP", exif=exif)))
        kept = Image.Exif()
        kept.load(base64.b64decode(photo.info["exif"]))
        assert dict(kept) == {0x010E: "Holiday"}


def lossless(kind: str) -> dict:
    return {"lossless": True} if kind == "WEBP" else {}


def with_raw_exif(kind: str, block: bytes) -> bytes:
    """A photo with these very bytes for an EXIF block."""
    if kind == "PNG":
        plain = encoded(picture(), kind)
        return plain[:33] + png_chunk(b"eXIf", block) + plain[33:]
    if kind == "JPEG":
        plain = encoded(picture(), kind)
        return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 8) + b"Exif\0\0" + block + plain[2:]
    return encoded(picture(), kind, exif=block, lossless=True)


def outcome(path: Path, on_damage: str = "refuse") -> Photo | PhotoReadError:
    """The photo, or the error, which must say what to do; nothing else may be raised."""
    try:
        photo = read_photo(path, on_damage=on_damage, max_pixels=1_000_000)
    except PhotoReadError as error:
        if not error.hint:
            raise
        return error
    assert np.isfinite(photo.pixels).all()
    return photo


class TestRefused:
    @staticmethod
    def refused(path: Path, **options: object) -> PhotoReadError:
        with pytest.raises(PhotoReadError) as caught:
            read_photo(path, **options)
        assert caught.value.hint, caught.value.message
        assert caught.value.context["photo"] == str(path)
        return caught.value

    def test_missing(self, tmp_path):
        assert "no file" in self.refused(tmp_path / "none.jpg").message
        (tmp_path / "file").write_bytes(b"x")
        self.refused(tmp_path / "file" / "below.jpg")

    def test_nul_in_name(self, tmp_path):
        self.refused(tmp_path / "a\0b")

    def test_folder(self, tmp_path):
        assert "folder" in self.refused(tmp_path).message

    def test_empty(self, put):
        assert "empty" in self.refused(put(b"")).message

    @pytest.mark.parametrize(
        ("data", "word"),
        [
            (b"just some text, not a photo at all", "no image"),
            (b"%PDF-1.7 ...", "PDF"),
            (b"PK\x03\x04" + bytes(50), "ZIP"),
            (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC"),
            (b"\0\0\0\x18ftypavif" + bytes(50), "AVIF"),
            (b"\0\0\0\x18ftypmp42" + bytes(50), "video"),
            (b"\x89PN", "no image"),
        ],
    )
    def test_no_image(self, put, data, word):
        assert word in self.refused(put(data)).message

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
    def test_pipe(self, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        assert "pipe" in self.refused(tmp_path / "pipe").message

    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs /dev/zero")
    def test_device(self):
        assert "device" in self.refused(Path("/dev/zero")).message

    def test_unreadable_device_of_a_proc_file(self, put):
        # Reports size 0 but has content: read as what it holds, which is no image.
        if not Path("/proc/version").exists():
            pytest.skip("needs /proc")
        self.refused(Path("/proc/version"))

    def test_too_many_bytes(self, put):
        path = put(encoded(picture(), "PNG"))
        assert "MB" in self.refused(path, max_file_bytes=100).message
        read_photo(path, max_file_bytes=path.stat().st_size)

    def test_unknown_choice(self, put):
        with pytest.raises(PhotoReadError):
            read_photo(put(encoded(picture(), "PNG")), on_damage="ignore")

    @pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"])
    def test_too_many_pixels(self, put, kind):
        path = put(encoded(picture(), kind))
        assert "megapixels" in self.refused(path, max_pixels=48 * 64 - 1).message
        read_photo(path, max_pixels=48 * 64)

    def test_bombs_are_refused_before_they_unpack(self, tmp_path, put):
        """Files of a few hundred bytes that claim gigapixels; the process must not even grow."""
        side = 60_000
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(1000)))
        put(png + png_chunk(b"IEND", b""), "bomb.png")
        jpeg = bytearray(encoded(picture(), "JPEG"))
        sof = jpeg.index(b"\xff\xc0")
        jpeg[sof + 5 : sof + 9] = struct.pack(">HH", side, side)
        put(bytes(jpeg), "bomb.jpg")
        tiff = bytearray(as_tiff(picture(), photometric="rgb", compression="zlib"))
        with tifffile.TiffFile(io.BytesIO(tiff)) as file:
            for tag in (256, 257):
                entry = file.pages.first.tags[tag]
                tiff[entry.offset + 2 : entry.offset + 12] = struct.pack("<HII", 4, 1, side)
        put(bytes(tiff), "bomb.tif")
        webp = b"VP8X" + struct.pack("<IB3x", 10, 0) + (16383).to_bytes(3, "little") * 2
        put(b"RIFF" + struct.pack("<I", 4 + len(webp)) + b"WEBP" + webp, "bomb.webp")
        gif = bytearray(encoded(picture(), "GIF"))
        gif[6:10] = struct.pack("<HH", side, side)
        put(bytes(gif), "bomb.gif")
        bmp = bytearray(encoded(picture(), "BMP"))
        bmp[18:26] = struct.pack("<ii", side, side)
        put(bytes(bmp), "bomb.bmp")
        script = (
            "import resource, sys, pathlib\n"
            "from photokeep_nodes.photo_io import read_photo\n"
            "from photokeep_nodes.errors import PhotoReadError\n"
            "import PIL.JpegImagePlugin, imagecodecs, tifffile\n"
            "imagecodecs.tiff_decode, imagecodecs.png_decode\n"
            "for path in sorted(pathlib.Path(sys.argv[1]).glob('bomb.*')):\n"
            "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "    try:\n"
            "        read_photo(path)\n"
            "    except PhotoReadError as error:\n"
            "        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before\n"
            "        print(path.suffix, 'megapixels' in error.message, grown < 100_000)\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script, str(tmp_path)],
            capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        suffixes = [".bmp", ".gif", ".jpg", ".png", ".tif", ".webp"]
        assert done.stdout.split("\n")[:-1] == [f"{suffix} True True" for suffix in suffixes]

    def test_a_tiff_of_giant_tiles(self, put):
        data = bytearray(as_tiff(picture(), photometric="rgb", compression="zlib", tile=(16, 16)))
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            entry = file.pages.first.tags[322]
            data[entry.offset + 2 : entry.offset + 12] = struct.pack("<HII", 4, 1, 16_000_000)
        assert "tiles" in self.refused(put(bytes(data))).message
        assert "tiles" in self.refused(put(bytes(data)), on_damage="accept").message

    @pytest.mark.parametrize(("code", "encode"), [(8, imagecodecs.zlib_encode), (5, imagecodecs.lzw_encode)])
    def test_a_strip_that_unpacks_to_megabytes_is_no_strip(self, code, encode):
        assert tiff._unpacks_within(encode(bytes(999)), code, 1000)
        assert not tiff._unpacks_within(encode(bytes(1_000_000)), code, 1000)
        assert not tiff._unpacks_within(b"\xff\xff rubbish", 8, 1000)

    def test_a_tiff_of_a_thousand_channels(self, put):
        data = as_tiff(np.zeros((4, 4, 9), np.uint8), photometric="minisblack", planarconfig="contig")
        assert "channels" in self.refused(put(data)).message

    @quick
    @given(data=st.data())
    def test_noise_after_a_signature_is_a_clear_error(self, put, data):
        start = data.draw(
            st.sampled_from(
                [
                    b"\xff\xd8\xff",
                    b"\x89PNG\r\n\x1a\n",
                    b"II*\0",
                    b"MM\0*",
                    b"II+\0",
                    b"GIF89a",
                    b"BM",
                    b"RIFF\x40\0\0\0WEBP",
                ]
            )
        )
        path = put(start + data.draw(st.binary(max_size=300)))
        for choice in ("refuse", "accept"):
            outcome(path, choice)  # a few of these happen to be readable

    @quick
    @given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF"]))
    def test_flipped_bytes_end_in_a_picture_or_a_clear_error(self, put, kind, data):
        whole = bytearray(encoded(picture(), kind))
        for _ in range(data.draw(st.integers(1, 4))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        path = put(bytes(whole))
        for choice in ("refuse", "accept"):
            outcome(path, choice)


class TestTruncated:
    cases = (
        ("PNG", {}),
        ("JPEG", {"quality": 90}),
        ("JPEG", {"quality": 90, "progressive": True}),
        ("BMP", {}),
        ("GIF", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 80}),
    )

    @pytest.mark.parametrize(("kind", "options"), cases)
    def test_refused_wherever_it_is_cut(self, put, kind, options):
        """Or the pixels are all there: formats with a trailer may lose a byte or two of it unharmed."""
        data = encoded(picture(), kind, **options)
        whole = read_photo(put(data)).pixels
        for cut in sorted({1, 2, 3, 10, *np.linspace(20, len(data) - 30, 12).astype(int)}):
            result = outcome(put(data[: len(data) - cut]))
            if isinstance(result, PhotoReadError):
                assert any(word in result.message for word in ("damaged", "no image", "pixels"))
            else:
                assert cut <= 3
                assert kind in ("GIF", "BMP")
                np.testing.assert_array_equal(result.pixels, whole)

    @pytest.mark.parametrize("compression", [None, "lzw", "adobe_deflate", "jpeg"])
    def test_tiff_is_refused_wherever_it_is_cut(self, put, compression):
        data = as_tiff(picture(), photometric="rgb", compression=compression, rowsperstrip=16)
        for cut in sorted({1, 10, *np.linspace(20, len(data) - 30, 12).astype(int)}):
            with pytest.raises(PhotoReadError):
                read_photo(put(data[: len(data) - cut]))

    @pytest.mark.parametrize(("kind", "options"), [case for case in cases if case[0] != "WEBP"])
    def test_accepted_gives_what_is_there(self, put, kind, options):
        # Noise does not compress: half the file is about half the picture.
        source = np.random.default_rng(3).integers(0, 256, (96, 96, 3), np.uint8)
        data = encoded(source, kind, **options)
        whole = read_photo(put(data)).pixels
        photo = read_photo(put(data[: len(data) * 6 // 10]), on_damage="accept")
        assert photo.pixels.shape == whole.shape
        assert any("damaged" in warning for warning in photo.info["warnings"])
        if "progressive" in options:
            # Every row is there, coarsely.
            assert np.abs(photo.pixels - whole).mean() < 0.25
            assert photo.pixels.std() > 0.05
            return
        rows = (photo.pixels == whole).all(axis=(1, 2))
        assert 0.3 < rows.mean() < 0.95

    @pytest.mark.parametrize("compression", [None, "lzw", "adobe_deflate"])
    @pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (32, 32)}, {"planarconfig": "separate"}])
    def test_tiff_accepted_gives_what_is_there(self, put, compression, layout):
        source = np.random.default_rng(3).integers(0, 65536, (96, 96, 3)).astype(np.uint16)
        stored = np.moveaxis(source, 2, 0).copy() if "planarconfig" in layout else source
        data = as_tiff(stored, photometric="rgb", compression=compression, **layout)
        photo = read_photo(put(data[: len(data) * 6 // 10]), on_damage="accept")
        same = np.rint(photo.pixels * 65535).astype(np.uint16) == source
        lost = photo.pixels == 0
        assert 0.25 < same.mean() < 0.95
        assert (same | lost).all()

    def test_webp_cannot_be_read_in_part(self, put):
        data = encoded(picture(), "WEBP")
        with pytest.raises(PhotoReadError, match="too damaged"):
            read_photo(put(data[: len(data) // 2]), on_damage="accept")

    def test_nothing_left(self, put):
        with pytest.raises(PhotoReadError) as caught:
            read_photo(put(encoded(picture(), "PNG")[:20]), on_damage="accept")
        assert caught.value.hint

    def test_a_wrong_checksum_is_damage(self, put):
        data = bytearray(encoded(picture(), "PNG"))
        at = data.index(b"IDAT")
        size = struct.unpack_from(">I", data, at - 4)[0]
        data[at + 4 + size] ^= 0xFF
        with pytest.raises(PhotoReadError, match="checksum"):
            read_photo(put(bytes(data)))
        photo = read_photo(put(bytes(data)), on_damage="accept")
        np.testing.assert_array_equal(eight_bits(photo.pixels), picture())

    def test_a_whole_file_is_the_same_either_way(self, put):
        for kind in ("PNG", "JPEG", "TIFF", "WEBP"):
            path = put(encoded(picture(), kind))
            strict, lenient = read_photo(path), read_photo(path, on_damage="accept")
            np.testing.assert_array_equal(strict.pixels, lenient.pixels)
            assert lenient.info["warnings"] == []


def test_reading_imports_no_torch():
    script = (
        "import sys, photokeep_nodes.photo_io as p\n"
        "p.find_photo, p.list_photos\n"
        "assert 'numpy' not in sys.modules and 'PIL' not in sys.modules\n"
        "p.read_photo, p.write_photo\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2]
    )
    assert done.returncode == 0, done.stderr
