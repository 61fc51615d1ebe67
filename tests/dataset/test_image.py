"""Reading images: same pixels as OpenCV, and for broken files an error that names the file."""

import os
import zipfile

import cv2
import numpy as np
import pytest

from lib.dataset import image as image_module
from lib.dataset.image import MAX_PIXELS, MAX_SIDE, check_size, image_paths, read_image
from lib.utils.errors import InputError
from tests import tiny

PICTURE = cv2.resize(np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8), (160, 120))


def encoded(suffix: str, image: np.ndarray = PICTURE, *flags: int) -> bytes:
    return cv2.imencode(suffix, image, flags)[1].tobytes()


def with_orientation(jpeg: bytes) -> bytes:
    """The JPEG with an EXIF header that rotates it by 90 degrees."""
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    body = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body + jpeg[2:]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_images_are_read_as_bgr(tmp_path, suffix):
    path = tmp_path / f"bild ä{suffix}"
    path.write_bytes(encoded(suffix))
    image = read_image(str(path))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, cv2.imdecode(np.fromfile(path, np.uint8), 1))
    if suffix == ".png":
        np.testing.assert_array_equal(image, PICTURE)


def test_gray_transparent_and_16_bit_images_become_8_bit_bgr(tmp_path):
    for image in (
        PICTURE[..., 0],
        np.dstack([PICTURE, PICTURE[..., :1]]),
        PICTURE.astype(np.uint16) * 256,
    ):
        path = tmp_path / "a.png"
        path.write_bytes(encoded(".png", image))
        read = read_image(str(path))
        assert read.shape == (120, 160, 3) and read.dtype == np.uint8


def test_exif_orientation_is_applied_only_on_request(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(with_orientation(encoded(".jpg")))
    turned = cv2.imread(str(path))
    assert turned.shape == (160, 120, 3)
    assert read_image(str(path)).shape == (120, 160, 3)
    np.testing.assert_array_equal(read_image(str(path), apply_exif=True), turned)


def test_too_large_images_are_an_error_that_gives_the_limit():
    check_size((MAX_SIDE, 1), "a.png")
    with pytest.raises(
        InputError, match=r"a\.png is 1 x 32767 pixels.* limit is 32766 pixels per side"
    ):
        check_size((1, MAX_SIDE + 1), "a.png")
    side = int(MAX_PIXELS**0.5)
    check_size((side, side), "a.png")
    with pytest.raises(InputError, match=r"is 26755 x 26755 pixels.* 715 million in total"):
        check_size((side + 1, side + 1), "a.png")


def test_too_large_png_files_are_detected_by_their_header(tmp_path):
    tiny.write_huge_png(tmp_path / "huge.png")
    with pytest.raises(InputError, match=r"huge\.png is 30000 x 30000 pixels"):
        read_image(str(tmp_path / "huge.png"))


def test_every_format_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(image_module, "MAX_PIXELS", 160 * 120 - 1)
    for suffix in (".jpg", ".png", ".bmp", ".webp"):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(encoded(suffix))
        with pytest.raises(InputError, match=rf"a\{suffix} is 160 x 120 pixels"):
            read_image(str(path))


PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)


@pytest.mark.parametrize("flags", [(), PROGRESSIVE], ids=["baseline", "progressive"])
def test_a_truncated_jpeg_is_an_error(tmp_path, flags):
    whole = encoded(".jpg", PICTURE, *flags)
    path = tmp_path / "cut.jpg"
    for length in [*range(0, len(whole) - 1, 97), len(whole) - 3, len(whole) - 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.jpg"):
            read_image(str(path))
    path.write_bytes(whole + b"some bytes after the end, as cameras leave them" * 3)
    assert read_image(str(path)).shape == PICTURE.shape


def test_a_truncated_png_is_an_error(tmp_path):
    whole = encoded(".png")
    path = tmp_path / "cut.png"
    for length in [*range(0, len(whole) - 12, 997), len(whole) - 12, len(whole) - 9]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.png"):
            read_image(str(path))


def test_missing_empty_and_invalid_files_are_errors(tmp_path):
    path = tmp_path / "a.jpg"
    with pytest.raises(InputError, match=r"a\.jpg: there is no such image"):
        read_image(str(path))
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"a\.jpg: the image file is empty"):
        read_image(str(path))
    path.write_text("<html>not found</html>")
    with pytest.raises(InputError, match=r"a\.jpg: not an image"):
        read_image(str(path))
    with pytest.raises(InputError, match="cannot read the image"):
        read_image(str(tmp_path))


@pytest.mark.parametrize("folder", ["", "val2017/"])
def test_files_in_an_archive_may_be_in_a_folder(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "val2017.zip", "w") as archive:
        archive.writestr(f"{folder}a.png", encoded(".png"))
        archive.writestr(f"{folder}cut.png", encoded(".png")[:500])
    np.testing.assert_array_equal(read_image(f"{tmp_path}/val2017.zip@/a.png"), PICTURE)
    with pytest.raises(InputError, match=r"val2017\.zip: the archive has no b\.png"):
        read_image(f"{tmp_path}/val2017.zip@/b.png")
    with pytest.raises(InputError, match=r"val2017\.zip@/cut\.png: the image file is truncated"):
        read_image(f"{tmp_path}/val2017.zip@/cut.png")


def test_a_missing_or_damaged_archive_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputError, match=r"none\.zip"):
        read_image(f"{tmp_path}/none.zip@/a.png")
    (tmp_path / "text.zip").write_text("no archive")
    with pytest.raises(InputError, match=r"text\.zip.*cannot read the image"):
        read_image(f"{tmp_path}/text.zip@/a.png")
    for name, method in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
        path = tmp_path / f"{name}.zip"
        with zipfile.ZipFile(path, "w", method) as archive:
            archive.writestr("a.png", encoded(".png"))
        data = bytearray(path.read_bytes())
        data[60:400] = bytes(340)
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"{name}\.zip.*cannot read the image"):
            read_image(f"{tmp_path}/{name}.zip@/a.png")


@pytest.mark.parametrize("special", ["pipe", "/dev/zero"])
def test_pipes_and_devices_are_not_read(tmp_path, special):
    path = tmp_path / "a.jpg"
    if special == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(special)
    with pytest.raises(InputError, match=r"a\.jpg is a pipe or device, not a file"):
        read_image(str(path))


def test_too_large_files_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(image_module, "MAX_BYTES", 1000)
    (tmp_path / "a.jpg").write_bytes(bytes(1001))
    with pytest.raises(InputError, match=r"a\.jpg has 1001 bytes; the limit is 1000"):
        read_image(f"{tmp_path}/a.jpg")
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("b.jpg", bytes(10**6))
    with pytest.raises(InputError, match=r"a\.zip: b\.jpg has 1000000 bytes; the limit is 1000"):
        read_image(f"{tmp_path}/a.zip@/b.jpg")


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/passwd", "a/../../b.jpg", "..\\a.jpg"])
def test_names_outside_the_folder_are_refused(name):
    with pytest.raises(InputError, match="absolute or points outside this folder"):
        image_paths("images", ["good.jpg", name], "jpg")
    assert image_paths("images", ["a..b.jpg", "a/b.jpg"], "jpg").tolist()


def test_a_name_with_control_characters_is_shown_escaped():
    with pytest.raises(InputError) as error:
        read_image("a\x1b[31m\n.jpg")
    assert r"a\x1b[31m\n.jpg: there is no such image" in str(error.value)
    with pytest.raises(InputError, match="NUL"):
        read_image("a\0.jpg")
