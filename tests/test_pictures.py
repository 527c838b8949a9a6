"""Pictures from outside: what is read of them, what becomes of their pixels, and what is refused
before a decoder sees it."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from packager import limits
from packager.errors import ExitCode, PackError
from packager.pictures import container, take, take_data
from packager.python import python_environment

Image = pytest.importorskip("PIL.Image", reason="needs Pillow, of the extra `vision`")

from packager.pictures.decode import rgb  # noqa: E402

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def picture(width: int = 40, height: int = 24, mode: str = "RGB", colour: object = RED) -> object:
    return Image.new(mode, (width, height), colour)


def stored(image: object, kind: str = "PNG", **more: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **more)  # type: ignore[attr-defined]
    return buffer.getvalue()


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, body: bytes = b"") -> bytes:
    """A PNG whose header says what we like."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(body)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def refused(data: bytes, name: str = "picture") -> str:
    with pytest.raises(PackError) as caught:
        rgb(data, name)
    assert caught.value.exit_code == ExitCode.INPUT
    assert caught.value.hint
    assert caught.value.message.startswith(name)
    assert "\n" not in caught.value.message
    return caught.value.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP"])
def test_each_kind_is_read_by_its_content(kind: str) -> None:
    data = stored(picture(), kind)
    assert container.read(data, "x") == container.Container(kind, 40, 24)
    image, notes = rgb(data, "no ending")
    assert (image.mode, image.size, notes) == ("RGB", (40, 24), [])
    assert max(abs(a - b) for a, b in zip(image.getpixel((20, 12)), RED, strict=True)) < 6


def test_a_picture_is_turned_as_its_orientation_says() -> None:
    """The upper left corner is red in the world; a camera held otherwise stores it elsewhere."""
    upright = picture(32, 16, colour=GREEN)
    upright.paste(RED, (0, 0, 8, 8))
    stored_as = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for number, turn in stored_as.items():
        exif = Image.Exif()
        exif[0x0112] = number
        turned = upright if turn is None else upright.transpose(turn)
        for kind in ("PNG", "WebP"):
            data = stored(turned, kind, exif=exif, **({"lossless": True} if kind == "WebP" else {}))
            image, _ = rgb(data, "x")
            assert image.size == (32, 16), (number, kind)
            assert image.tobytes() == upright.tobytes(), (number, kind)
    # An orientation that does not exist, and EXIF that is none, leave the picture as it is.
    exif = Image.Exif()
    exif[0x0112] = 77
    for broken in (exif.tobytes(), b"Exif\0\0garbage"):
        image, _ = rgb(stored(upright, "PNG", exif=broken), "x")
        assert image.tobytes() == upright.tobytes()


def test_what_is_transparent_becomes_white() -> None:
    clear = {
        "RGBA": picture(mode="RGBA", colour=(255, 0, 0, 0)),
        "LA": picture(mode="LA", colour=(0, 0)),
    }
    palette = picture(mode="P", colour=3)
    palette.putpalette([10, 20, 30] * 256)
    cases = [stored(image) for image in clear.values()]
    cases += [stored(palette, transparency=3), stored(picture(), transparency=RED)]
    cases += [stored(clear["RGBA"], "WebP", lossless=True)]
    for number, data in enumerate(cases):
        image, _ = rgb(data, "x")
        assert image.getpixel((5, 5)) == WHITE, number
    half, _ = rgb(stored(picture(mode="RGBA", colour=(0, 0, 0, 51))), "x")
    assert half.getpixel((5, 5)) == (204, 204, 204)


def test_sixteen_bits_keep_their_upper_eight() -> None:
    row = struct.pack(">40H", *(number * 1600 for number in range(40)))
    grey = png(40, 24, depth=16, colour=0, body=(b"\0" + row) * 24)
    image, _ = rgb(grey, "x")
    assert [image.getpixel((x, 9)) for x in (0, 20, 39)] == [
        (value, value, value) for value in (0, 32000 >> 8, 62400 >> 8)
    ]
    colour = b"\0" + struct.pack(">3H", 0xFFFF, 0x8000, 0x00FF) * 40
    image, _ = rgb(png(40, 24, depth=16, colour=2, body=colour * 24), "x")
    assert image.getpixel((3, 3)) == (255, 128, 0)


def test_other_ways_to_store_colours_are_converted() -> None:
    cmyk, _ = rgb(stored(picture(mode="CMYK", colour=(0, 255, 255, 0)), "JPEG", quality=100), "x")
    assert max(abs(a - b) for a, b in zip(cmyk.getpixel((5, 5)), RED, strict=True)) < 6
    for mode, colour in (("1", 1), ("L", 255), ("P", 0)):
        image, _ = rgb(stored(picture(mode=mode, colour=colour)), "x")
        assert image.mode == "RGB"


@pytest.mark.parametrize("kind", ["PNG", "WebP"])
def test_of_one_that_moves_the_first_frame_is_taken_and_that_is_said(kind: str) -> None:
    more = [picture(colour=GREEN), picture(colour=BLUE)]
    lossless = {"lossless": True} if kind == "WebP" else {}
    data = stored(picture(), kind, save_all=True, append_images=more, duration=100, **lossless)
    image, notes = rgb(data, "walk")
    assert image.getpixel((5, 5)) == RED
    assert notes == ["walk is animated: the first of its 3 frames is taken."]


def test_a_telephones_picture_with_a_second_one_or_a_video_behind_it_is_read() -> None:
    first = stored(picture(), "JPEG")
    for behind in (
        stored(picture(colour=BLUE), "JPEG"),
        b"\0\0\0\x18ftypmp42" + bytes(40),
        b"\0" * 9,
    ):
        image, _ = rgb(first + behind, "x")
        assert image.size == (40, 24)
    two = stored(picture(), "MPO", save_all=True, append_images=[picture(colour=BLUE)])
    image, notes = rgb(two, "x")
    assert (image.size, notes) == ((40, 24), [])


REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "is empty"),
    "text": (lambda: b"hello, this is no picture at all", "is not a PNG, JPEG or WebP picture"),
    "svg": (lambda: b'<?xml version="1.0"?><svg xmlns="x"><script/></svg>', "is an SVG picture"),
    "svg with a mark": (lambda: b"\xef\xbb\xbf  <!-- --> <SVG >", "is an SVG picture"),
    "html": (lambda: b"<!DOCTYPE html><html>", "is a web page"),
    "gif": (lambda: stored(picture(mode="P", colour=1), "GIF"), "is a GIF picture"),
    "bmp": (lambda: stored(picture(), "BMP"), "is a BMP picture"),
    "tiff": (lambda: stored(picture(), "TIFF"), "is a TIFF picture"),
    "heic": (lambda: b"\0\0\0\x18ftypheic" + bytes(30), "is a HEIC or AVIF picture"),
    "pdf": (lambda: b"%PDF-1.7 ...", "is a PDF document"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0", "is not a PNG, JPEG or WebP picture"),
    "one pixel": (lambda: stored(picture(1, 1)), "has 1 x 1 pixels"),
    "one row": (lambda: stored(picture(300, 1)), "has 300 x 1 pixels"),
    "a ribbon": (lambda: stored(picture(2400, 10)), "200 times the other"),
    "30,000 pixels": (lambda: png(30_000, 30_000), "more than 16384 a side"),
    "a bomb": (lambda: png(16_000, 16_000), "more than 67 million"),
    "a webp bomb": (
        lambda: b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\x10\0\0\0" + b"\xfe\x3f\0" * 2,
        "more than 67 million",
    ),
    "no pixels": (lambda: png(0, 8), "has 0 x 8 pixels"),
    "frames without end": (
        lambda: png(8, 8).replace(
            chunk(b"IEND", b""),
            chunk(b"acTL", struct.pack(">II", 1 << 20, 0)) + chunk(b"IEND", b""),
        ),
        "1048576 frames",
    ),
    "a text that unpacks to gigabytes": (
        lambda: stored(picture()).replace(
            chunk(b"IEND", b""),
            chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20 << 20))) + chunk(b"IEND", b""),
        ),
        "cannot be decoded",
    ),
    "cut png": (lambda: stored(picture())[:-20], "is truncated"),
    "cut jpeg": (lambda: stored(picture(200, 200), "JPEG")[:-40], "is truncated"),
    "cut webp": (lambda: stored(picture(), "WebP")[:-9], "is truncated"),
    "only a signature": (lambda: b"\x89PNG\r\n\x1a\n", "is truncated"),
    "a wrong sum": (lambda: _flipped(stored(picture()), b"IDAT", 8), "cannot be decoded"),
    "a zip behind": (lambda: stored(picture()) + b"PK\x03\x04" + bytes(60), "is more than a PNG"),
    "a zip far behind": (
        lambda: stored(picture(), "JPEG") + b"note" * 9 + b"PK\x05\x06" + bytes(18),
        "is more than a JPEG",
    ),
    "a page behind": (
        lambda: stored(picture(), "WebP") + b"<html><script>",
        "a web page or other text follows its end",
    ),
    "a program behind": (
        lambda: stored(picture(), "JPEG") + b"\x7fELF" + bytes(60),
        "a program follows its end",
    ),
    "a picture behind a document": (lambda: b"%PDF-1.7\n" + stored(picture()), "PDF document"),
    "twelve bits": (
        lambda: b"\xff\xd8\xff\xc0\0\x0b\x0c\0\x20\0\x20\x01\x01\x11\0\xff\xd9",
        "12 bits a channel",
    ),
    "scans without end": (
        lambda: b"\xff\xd8" + b"\xff\xda\0\x02" * 200 + b"\xff\xd9",
        "more than 100 scans",
    ),
}


def _flipped(data: bytes, behind: bytes, by: int) -> bytes:
    place = data.index(behind) + by
    return data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_picture_or_too_much_of_one_is_refused_in_a_sentence(case: str) -> None:
    make, sentence = REFUSED[case]
    assert sentence in refused(make())


def test_a_name_that_promises_another_kind_is_refused() -> None:
    data = stored(picture(), "JPEG")
    assert "is a JPEG picture, and its name says PNG" in refused(data, "photo.png")
    assert "its name says SVG" in refused(data, "photo.svg")
    for name in ("photo.JPG", "photo.jpeg", "photo", "photo.tmp", "v1.2"):
        rgb(data, name)


def test_size_and_kind_are_known_without_the_decoder() -> None:
    """The limits hold before Pillow is imported: nothing is decoded, nothing is allocated."""
    code = (
        "import sys; from packager.pictures import container; data = sys.stdin.buffer.read()\n"
        "try: container.read(data, 'x')\nexcept Exception as error: print(error.message)\n"
        "assert 'PIL' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=png(16_000, 16_000), capture_output=True, check=True
    )
    assert b"more than 67 million" in done.stdout


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_damage_raises_anything_but_the_sentence(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WebP"]))
    whole = bytearray(stored(picture(), kind))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole) - 1))
        how = data.draw(st.sampled_from(["flip", "cut", "insert"]))
        if how == "flip":
            whole[place] ^= data.draw(st.integers(1, 255))
        elif how == "cut":
            del whole[place : place + data.draw(st.integers(1, 40))]
        else:
            whole[place:place] = data.draw(st.binary(min_size=1, max_size=12))
        if not whole:
            break
    try:
        image, _ = rgb(bytes(whole), "damaged")
    except PackError as error:
        assert error.exit_code == ExitCode.INPUT
        assert error.message.startswith("damaged ")
    else:
        assert image.mode == "RGB"
        assert image.width * image.height <= limits.PICTURE_PIXELS


@settings(max_examples=150, deadline=None)
@given(st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF"]), st.binary(max_size=300))
def test_no_bytes_behind_a_signature_raise_anything_but_the_sentence(
    head: bytes, rest: bytes
) -> None:
    try:
        container.read(head + rest, "made up")
    except PackError as error:
        assert error.exit_code == ExitCode.INPUT


def test_pictures_are_decoded_in_a_process_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "one.png").write_bytes(stored(picture(16, 8, colour=BLUE)))
    (tmp_path / "two.webp").write_bytes(stored(picture(24, 8, colour=GREEN), "WebP", lossless=True))
    paths = [tmp_path / "one.png", tmp_path / "two.webp"]
    one, two = take(paths, tmp_path / "out", tmp_path / "log")
    assert (one.width, one.height, two.width, two.height) == (16, 8, 24, 8)
    assert one.path.read_bytes() == bytes(BLUE) * 128
    assert two.path.read_bytes() == bytes(GREEN) * 192
    assert "PIL" in sys.modules  # by these tests, not by `take`
    (tmp_path / "more").mkdir()
    [same] = take_data([paths[0].read_bytes()], tmp_path / "more", tmp_path / "log")
    assert same.path.read_bytes() == one.path.read_bytes()
    assert [path.name for path in (tmp_path / "more").iterdir()] == ["1.rgb"]


def test_a_file_that_is_none_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PackError, match="is not a file") as caught:
        take([tmp_path / "pipe.png"], tmp_path, tmp_path / "log")
    assert caught.value.exit_code == ExitCode.INPUT
    with pytest.raises(FileNotFoundError):
        take([tmp_path / "none.png"], tmp_path, tmp_path / "log")
    with pytest.raises(PackError, match="65 pictures are more than 64") as caught:
        take([tmp_path / "pipe.png"] * 65, tmp_path, tmp_path / "log")
    assert caught.value.exit_code == ExitCode.USAGE


def test_a_file_larger_than_any_picture_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.write(png(8, 8)[:50])
        file.truncate(limits.PICTURE_BYTES + 1)
    with pytest.raises(PackError, match="far more than a file of its kind") as caught:
        take([path], tmp_path, tmp_path / "log")
    assert caught.value.exit_code == ExitCode.INPUT


@pytest.mark.slow
def test_the_largest_picture_stays_within_the_memory_of_its_process(tmp_path: Path) -> None:
    """With transparency and a turn it takes the most; its address space is bounded besides."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "large.png"
    data = stored(picture(8192, 8192, "LA", (7, 128)), "PNG", exif=exif, compress_level=1)
    path.write_bytes(data)
    code = (
        "import json, sys; from packager.pictures.decode import decode_job\n"
        "from packager.process import peak_resident_bytes\n"
        "made = decode_job(None, path=sys.argv[1], name='x', out=sys.argv[2])\n"
        "print(json.dumps([made['width'], peak_resident_bytes()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "out")],
        capture_output=True,
        env=python_environment(),
        check=True,
    )
    width, peak = json.loads(done.stdout)
    assert width == 8192
    assert (tmp_path / "out").stat().st_size == 3 * 8192 * 8192
    assert peak < 1.7e9
    (tmp_path / "out").unlink()


def test_a_decoder_that_crashes_is_the_pictures_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "evil.png"
    path.write_bytes(stored(picture()))
    monkeypatch.setattr("packager.pictures.taken._JOB", "tests.test_pictures:crash_job")
    with pytest.raises(PackError, match=r"evil\.png makes the decoder of pictures crash") as caught:
        take([path], tmp_path, tmp_path / "log")
    assert caught.value.exit_code == ExitCode.INPUT
    monkeypatch.setattr("packager.pictures.taken._JOB", "tests.test_pictures:endless_job")
    monkeypatch.setattr("packager.pictures.taken.SECONDS", 0.5)
    with pytest.raises(PackError, match=r"cannot be decoded within") as caught:
        take([path], tmp_path, tmp_path / "log")
    assert caught.value.exit_code == ExitCode.INPUT


def crash_job(report: object, **_: object) -> None:
    os.abort()


def endless_job(report: object, **_: object) -> None:
    import time

    time.sleep(60)


def test_without_pillow_the_way_to_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(stored(picture()))
    monkeypatch.setattr("packager.pictures.taken.find_spec", lambda name: None)
    with pytest.raises(PackError, match="Pillow is not installed") as caught:
        take([path], tmp_path, tmp_path / "log")
    assert "qwen-pack[vision]" in caught.value.hint
