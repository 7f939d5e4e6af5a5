"""The one way in for pictures: all comes out upright and RGB, and what is wrong is said in a line."""

import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from vision_reasoner import images
from vision_reasoner.errors import ImageError, UsageError
from vision_reasoner.images import FORMATS, SUFFIXES, load_image, without_warnings

# Red above left, blue below right, black elsewhere: no turn or flip leaves it as it is.
PIXELS = np.zeros((24, 40, 3), dtype=np.uint8)
PIXELS[:12, :20] = (255, 0, 0)
PIXELS[12:, 20:] = (0, 0, 255)
PIXELS[:4, 36:] = (0, 255, 0)
PICTURE = Image.fromarray(PIXELS)


def encoded(image, image_format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def difference(image, pixels=PIXELS):
    """The mean difference of all channels, 0 to 255."""
    values = np.asarray(image)
    assert values.shape == pixels.shape
    return np.abs(values.astype(int) - pixels).mean()


def refused(source, **options):
    """The message of the ImageError, which is one clear line."""
    with pytest.raises(ImageError) as caught:
        load_image(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert " at 0x" not in message, "a heap address"
    return message


# ---- sources ----


def test_path_text_bytes_image_and_array_give_the_same_picture(tmp_path):
    file = tmp_path / "picture.png"
    PICTURE.save(file)
    for source in (file, str(file), file.read_bytes(), PICTURE, PIXELS, Image.open(file)):
        notes: list[str] = []
        loaded = load_image(source, notes=notes)
        assert loaded.mode == "RGB"
        assert type(loaded) is Image.Image
        assert difference(loaded) == 0
        assert notes == []


def test_the_given_image_is_not_changed_and_not_shared():
    image = PICTURE.copy()
    loaded = load_image(image)
    loaded.putpixel((0, 0), (1, 2, 3))
    assert difference(image) == 0


@pytest.mark.parametrize("image_format", FORMATS)
def test_every_format_of_the_allow_list_is_read(image_format):
    assert difference(load_image(encoded(PICTURE, image_format))) < 12


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_listed_ending_is_one_of_an_allowed_format(suffix):
    assert Image.registered_extensions()[suffix] in FORMATS


@pytest.mark.parametrize("source", [None, 7, ["a.png"], object()])
def test_other_types_are_a_mistake_of_the_caller(source):
    with pytest.raises(UsageError, match="a picture is a path, bytes, a Pillow image or an array, not"):
        load_image(source)


# ---- orientation ----

UNDO = Image.Transpose
STORED = {  # how an upright picture is stored under each EXIF orientation
    1: None,
    2: UNDO.FLIP_LEFT_RIGHT,
    3: UNDO.ROTATE_180,
    4: UNDO.FLIP_TOP_BOTTOM,
    5: UNDO.TRANSPOSE,
    6: UNDO.ROTATE_90,
    7: UNDO.TRANSVERSE,
    8: UNDO.ROTATE_270,
}


def stored(orientation, image_format, kind="exif"):
    """PICTURE as a camera stores it that says its orientation in EXIF or XMP."""
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    xmp = f'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="{orientation}"/>'.encode()
    metadata = {"exif": exif} if kind == "exif" else {"xmp": xmp}
    return encoded(PICTURE if turn is None else PICTURE.transpose(turn), image_format, **metadata)


@pytest.mark.parametrize(
    ("image_format", "kind"),
    [*((f, "exif") for f in ("JPEG", "PNG", "TIFF", "WEBP", "AVIF")), ("JPEG", "xmp"), ("WEBP", "xmp")],
)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright_once(image_format, kind, orientation):
    data = stored(orientation, image_format, kind)
    once = load_image(data)
    assert difference(once) < 12
    assert difference(load_image(Image.open(io.BytesIO(data)))) < 12
    assert load_image(once) == once


MODES = "1 L LA La P PA RGB RGBA RGBa RGBX CMYK YCbCr LAB HSV I I;16 F".split()


@pytest.mark.parametrize("mode", MODES)
def test_a_loaded_picture_is_loaded_again_as_it_is(mode):
    through = {"La": "LA", "PA": "P", "RGBa": "RGBA", "LAB": "RGB", "HSV": "RGB"}.get(mode, mode)
    picture = (PICTURE.convert("L") if mode == "I;16" else PICTURE).convert(through).convert(mode)
    once = load_image(picture)
    assert once.info == {}
    assert load_image(once) == once


@pytest.mark.parametrize("transparent", [(255, 0, 0), (0, 0, 255)])
def test_a_transparent_color_is_laid_on_white_once(transparent):
    once = load_image(encoded(PICTURE, transparency=transparent))
    assert once.getpixel((1 if transparent[0] else 39, 1 if transparent[0] else 23)) == (255, 255, 255)
    assert load_image(once) == once


def test_an_orientation_that_does_not_exist_is_passed_over():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert difference(load_image(encoded(PICTURE, exif=exif))) == 0


@pytest.mark.parametrize("exif", [b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"\0" * 9])
def test_broken_metadata_does_not_cost_the_picture(exif):
    assert difference(load_image(encoded(PICTURE, "JPEG", exif=exif))) < 12


# ---- modes ----


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "LAB", "P", "PA"])
def test_colour_modes_keep_their_colours(mode):
    assert difference(load_image(PICTURE.convert(mode))) < 5


@pytest.mark.parametrize("mode", ["L", "LA", "I", "F"])
def test_grey_modes_keep_their_brightness(mode):
    gray = np.asarray(PICTURE.convert("L").convert("RGB"))
    assert difference(load_image(PICTURE.convert("L").convert(mode)), gray) == 0


def test_black_and_white_stays_so():
    half = Image.new("1", (4, 2))
    half.paste(1, (2, 0, 4, 2))
    assert np.asarray(load_image(half))[0, :, 0].tolist() == [0, 0, 255, 255]


RAMP = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
EIGHT_BITS = np.rint(RAMP / 257).astype(np.uint8)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_cut(image_format):
    data = encoded(Image.fromarray(RAMP), image_format)
    np.testing.assert_array_equal(np.asarray(load_image(data))[:, :, 1], EIGHT_BITS)


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_sixteen_bits_of_either_byte_order_are_scaled(mode):
    image = Image.new(mode, (2, 1))
    image.putpixel((0, 0), 257 * 200)
    assert np.asarray(load_image(image))[0, :, 0].tolist() == [200, 0]


def test_a_dark_picture_of_sixteen_bits_stays_dark():
    dark = np.full((4, 4), 200, dtype=np.uint16)
    for image_format in ("PNG", "PPM"):
        assert np.asarray(load_image(encoded(Image.fromarray(dark), image_format))).max() == 1


@pytest.mark.parametrize(
    ("values", "expected", "note"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255], None),
        ([0.0, 128.0, 255.0], [0, 128, 255], None),
        ([0.0, 257.0, 65535.0], [0, 1, 255], None),
        ([-1.0, 0.0, 1.0], [0, 128, 255], "stretched"),
        ([0.0, float("nan"), 200.0], [0, 0, 200], "not finite"),
        ([0.0, float("inf"), 1.0], [0, 0, 255], "not finite"),
        ([-3.0, -3.0, -3.0], [0, 0, 0], "stretched"),
        ([1e30, -1e30, 1e30], [255, 0, 255], "stretched"),
    ],
)
def test_floats_are_brought_to_eight_bits(values, expected, note):
    image = Image.fromarray(np.array([values], dtype=np.float32))
    notes: list[str] = []
    assert image.mode == "F"
    assert np.asarray(load_image(image, notes=notes))[0, :, 0].tolist() == expected
    assert [note in line for line in notes] == ([True] if note else [])


WHITE = [255, 255, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_what_is_transparent_is_white(mode):
    clear = Image.new("RGBA", (2, 2), (10, 200, 30, 0))
    image = Image.new("La", (2, 2), (0, 0)) if mode == "La" else clear.convert(mode)
    assert np.asarray(load_image(image))[0, 0].tolist() == WHITE


def test_half_transparent_is_half_white():
    image = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    assert np.asarray(load_image(image))[0, 0].tolist() == pytest.approx([255, 127, 127], abs=1)


@pytest.mark.parametrize(("mode", "hidden"), [("RGB", (10, 20, 30)), ("L", 20), ("P", 1)])
def test_a_transparent_colour_is_white(mode, hidden):
    image = Image.new(mode, (2, 1), hidden)
    if mode == "P":
        image.putpalette([0, 0, 0, 10, 20, 30])
    image.putpixel((0, 0), 0 if mode != "RGB" else (0, 0, 0))
    loaded = np.asarray(load_image(encoded(image, "PNG", transparency=hidden)))
    assert loaded[0].tolist() == [[0, 0, 0], WHITE]


def test_a_clear_gif_lies_on_white():
    image = Image.new("P", (3, 3), 1)
    image.putpalette([0, 0, 0, 9, 9, 9])
    assert np.asarray(load_image(encoded(image, "GIF", transparency=1)))[1, 1].tolist() == WHITE


# ---- arrays ----


@pytest.mark.parametrize(
    ("array", "first"),
    [
        (np.full((2, 3), 7, np.uint8), [7, 7, 7]),
        (np.full((2, 3, 1), 7, np.uint8), [7, 7, 7]),
        (np.full((2, 3, 3), (1, 2, 3), np.uint8), [1, 2, 3]),
        (np.full((2, 3, 4), (1, 2, 3, 255), np.uint8), [1, 2, 3]),
        (np.full((2, 3, 4), (1, 2, 3, 0), np.uint8), WHITE),
        (np.full((2, 3, 3), (1, 2, 3), np.int64), [1, 2, 3]),
        (np.full((2, 3, 3), (0.0, 0.2, 1.0)), [0, 51, 255]),
        (np.full((2, 3, 3), (0, 257, 65535), np.uint16), [0, 1, 255]),
        (np.ones((2, 3), np.bool_), WHITE),
        (np.full((3, 2, 3), (1, 2, 3), np.uint8).transpose(1, 0, 2), [1, 2, 3]),
    ],
)
def test_arrays_are_height_width_channels(array, first):
    loaded = load_image(array)
    assert loaded.size == (3, 2)
    assert np.asarray(loaded)[0, 0].tolist() == first


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 2), np.uint8), r"got shape (3, 4, 2)"),
        (np.zeros((1, 3, 4, 3), np.uint8), r"got shape (1, 3, 4, 3)"),
        (np.zeros(5, np.uint8), r"got shape (5,)"),
        (np.zeros((), np.uint8), r"got shape ()"),
        (np.zeros((3, 4), np.complex64), "got complex64"),
        (np.full((3, 4), "x"), "got <U1"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels (4x0)"),
        (np.zeros((4, 0), np.uint8), "no pixels (0x4)"),
    ],
)
def test_other_arrays_are_refused_with_what_they_are(array, message):
    assert message in refused(array)


# ---- animations ----


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_of_an_animation_the_first_frame_is_taken_with_a_note(image_format):
    others = [Image.new("RGB", PICTURE.size, (0, 255 * i, 255)) for i in range(2)]
    data = encoded(PICTURE, image_format, save_all=True, append_images=others)
    notes: list[str] = []
    assert difference(load_image(data, notes=notes)) < 12
    assert notes == ["the given bytes: only the first of its frames is used"]
    image = Image.open(io.BytesIO(data))
    assert difference(load_image(image)) < 12


def test_a_preview_inside_a_photograph_is_no_animation():
    notes: list[str] = []
    data = encoded(PICTURE, "MPO", save_all=True, append_images=[PICTURE.resize((10, 6))])
    assert difference(load_image(data, notes=notes)) < 12
    assert notes == []


def test_an_animation_damaged_behind_its_first_frame_is_read():
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    frames = [Image.fromarray(np.roll(noise, i, 0)) for i in range(4)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert load_image(data[: len(data) // 2]).size == (64, 64)


# ---- what is refused ----


@pytest.mark.parametrize(
    "url",
    ["http://example.org/a.png", "https://example.org/a.png", "ftp://a/b", "file:///a", "data:image/png;base64,AAAA"],
)
def test_urls_are_refused(url):
    assert "addresses are not fetched; download the image first" in refused(url)


def test_a_missing_file_is_named():
    assert refused("no/such/picture.png") == "no/such/picture.png: there is no such file; check the path"


@pytest.mark.parametrize("source", ["", ".", Path()])
def test_no_path_at_all_is_said_so(source):
    assert "no picture is given" in refused(source)


def test_a_folder_is_named_as_one(tmp_path):
    assert "this is a folder" in refused(tmp_path)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refused(tmp_path / "pipe.png")
    assert "not a regular file" in refused("/dev/zero")


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc")
@pytest.mark.parametrize("path", ["/proc/self/environ", "/proc/kmsg"])
def test_a_file_of_the_system_is_not_waited_for(path):
    assert "the file is empty" in refused(path)


@pytest.mark.parametrize("path", ["a\x00b.png", "x" * 5000])
def test_an_impossible_path_is_refused(path):
    assert "cannot be read" in refused(path)


@pytest.mark.parametrize("as_file", [True, False])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, this is text\n" * 50, "no picture that can be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture that can be read"),
        (b"%PDF-1.7\n", "no picture that can be read"),
        (b"\x89PNG\r\n\x1a\n", "picture"),
        (b"\xff\xd8\xff", "picture"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, data, message, as_file):
    (tmp_path / "a.png").write_bytes(data)
    assert message in refused(tmp_path / "a.png" if as_file else data)


@pytest.mark.parametrize("image_format", ["ICO", "TGA", "PCX", "EPS", "PDF", "JPEG2000", "ICNS", "DDS", "SGI"])
def test_formats_outside_the_allow_list_are_refused(image_format):
    message = refused(encoded(PICTURE.resize((32, 32)), image_format))
    assert "convert it to one of" in message


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "BMP", "WEBP", "AVIF", "PPM", "TIFF"])
@pytest.mark.parametrize("part", [0.5, 0.9])
def test_a_truncated_picture_is_refused(image_format, part):
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(noise), image_format)
    assert "get it again" in refused(data[: int(len(data) * part)])


def test_more_pixels_than_allowed_are_refused_before_decoding():
    message = refused(encoded(PICTURE), max_pixels=959)
    assert "40x24 is 960 pixels, more than 959; give a smaller picture" in message
    assert load_image(encoded(PICTURE), max_pixels=960).size == (40, 24)
    assert "960 pixels" in refused(PIXELS, max_pixels=959)
    assert "960 pixels" in refused(PICTURE, max_pixels=959)


def test_a_decompression_bomb_is_refused_in_one_line_without_a_warning():
    small = Image.new("1", (20_000, 6_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "120,000,000 pixels" in refused(encoded(small))
        assert "more pixels than Pillow decodes" in refused(encoded(Image.new("1", (20_000, 10_000))))


def test_more_bytes_than_allowed_are_refused_before_reading(tmp_path):
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(300 * 1024**2)  # a sparse file: takes no room on the disk
    assert "the file has 314,572,800 bytes, more than 268,435,456" in refused(tmp_path / "a.png")
    data = encoded(PICTURE)
    assert f"{len(data):,} bytes are more than 10" in refused(data, max_bytes=10)


def test_an_image_without_pixels_is_refused():
    assert "no pixels (0x5)" in refused(Image.new("RGB", (0, 5)))


WHOLE = [encoded(PICTURE, image_format) for image_format in FORMATS]


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(WHOLE), st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=12), st.floats(0, 1)
)
def test_damaged_bytes_give_a_picture_or_an_image_error(data, changes, keep):
    damaged = bytearray(data)
    for place, value in changes:
        damaged[place % len(damaged)] = value
    try:
        loaded = load_image(bytes(damaged[: int(len(damaged) * keep) + 1]), max_pixels=1_000_000)
    except ImageError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either way is right
    else:
        assert loaded.mode == "RGB"


# ---- depths and byte orders ----


@pytest.mark.parametrize("bits", [10, 12, 14])
def test_fewer_bits_in_sixteen_are_scaled_by_what_the_values_use(bits):
    values = (PIXELS[..., 0].astype(np.uint16) << (bits - 8)) + 3 * (PIXELS[..., 0] > 0)
    notes: list[str] = []
    loaded = load_image(values, notes=notes)
    assert np.asarray(loaded).max() >= 250
    assert len(notes) == 1
    assert f"{bits} bits" in notes[0]


@pytest.mark.parametrize("dtype", [">u2", "<u2", ">i4", ">f4", ">f8"])
def test_the_order_of_bytes_changes_nothing(dtype):
    values = np.arange(4000, dtype=np.float64).reshape(50, 80)
    scaled = values / 4000 if "f" in dtype else values
    native = scaled.astype(np.dtype(dtype).newbyteorder("="))
    assert load_image(native.astype(dtype)) == load_image(native)


# ---- files that Pillow reads otherwise than they are meant ----


def png(depth: int, row: bytes, transparent: int) -> bytes:
    """A gray PNG of eight pixels in a row, one value of which is transparent."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 8, 1, depth, 0, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"tRNS", struct.pack(">H", transparent))]
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, chunk(b"IDAT", zlib.compress(b"\0" + row)), chunk(b"IEND", b"")])


@pytest.mark.parametrize(
    ("depth", "row", "transparent", "expected"),
    [
        (1, bytes([0b01010101]), 0, [255, 255, 255, 255, 255, 255, 255, 255]),
        (1, bytes([0b01010101]), 1, [0, 255, 0, 255, 0, 255, 0, 255]),
        (2, bytes([0b00011011, 0b00011011]), 1, [0, 255, 170, 255, 0, 255, 170, 255]),
        (4, bytes([0x01, 0x23, 0x45, 0x67]), 2, [0, 17, 255, 51, 68, 85, 102, 119]),
        (8, bytes(range(0, 256, 32)), 64, [0, 32, 255, 96, 128, 160, 192, 224]),
        (16, struct.pack(">8H", *range(0, 65536, 8192)), 8192, [0, 255, 64, 96, 128, 159, 191, 223]),
    ],
)
def test_the_transparent_gray_of_a_png_is_white_at_every_depth(depth, row, transparent, expected):
    assert np.asarray(load_image(png(depth, row, transparent)))[0, :, 0].tolist() == expected


def tiff(values, order, photometric=1, pages=1):
    """A TIFF of eight gray pixels in a row; its pages share them."""
    formats = {"u": 1, "i": 2, "f": 3}
    data = np.array(values, order + values.dtype.str[1:]).tobytes()
    out = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data)) + data
    for page in range(pages):
        tags = {256: 8, 257: 1, 258: 8 * values.itemsize, 259: 1, 262: photometric, 273: 8, 278: 1, 279: len(data)}
        tags[339] = formats[values.dtype.kind]
        following = len(out) + 2 + 12 * len(tags) + 4 if page < pages - 1 else 0
        entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items())
        out += struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", following)
    return out


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    ("values", "photometric", "expected"),
    [
        (np.array([-128, -64, -1, 0, 1, 64, 100, 127], np.int8), 1, [0, 64, 127, 128, 129, 192, 228, 255]),
        (np.arange(0, 65536, 9362, dtype=np.uint16), 1, [0, 36, 73, 109, 146, 182, 219, 255]),
        (np.arange(0, 65536, 9362, dtype=np.uint16), 0, [255, 219, 182, 146, 109, 73, 36, 0]),
        (np.array([0, 1, 2**30, 2**31, 3 * 2**30, 2**32 - 1, 5, 6], np.uint32), 1, [0, 0, 64, 128, 191, 255, 0, 0]),
        (np.linspace(0, 1, 8, dtype=np.float32), 1, [0, 36, 73, 109, 146, 182, 219, 255]),
        (np.arange(0, 256, 32, dtype=np.uint8), 0, [255, 223, 191, 159, 127, 95, 63, 31]),
    ],
    ids=["signed 8", "unsigned 16", "white is zero, 16", "unsigned 32", "float", "white is zero, 8"],
)
def test_a_tiff_is_read_as_it_is_meant_or_refused(values, photometric, expected, order):
    data = tiff(values, order, photometric)
    if order == ">" and (values.dtype == np.uint32 or (values.dtype == np.uint16 and photometric == 0)):
        assert "no picture that can be read here" in refused(data)  # Pillow has no decoder for it
        return
    loaded = load_image(data)
    assert np.abs(np.asarray(loaded)[0, :, 0].astype(int) - expected).max() <= 1


def test_the_pages_of_a_document_are_not_counted():
    data = tiff(np.arange(8, dtype=np.uint8), "<", pages=20_000)
    looked_at: list[int] = []
    real = TiffImagePlugin.TiffImageFile._seek

    def seek(self, frame):
        looked_at.append(frame)
        real(self, frame)

    notes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TiffImagePlugin.TiffImageFile, "_seek", seek)
        load_image(data, notes=notes)
    assert notes == ["the given bytes: only the first of its frames is used"]
    assert max(looked_at, default=0) < 10


def jpeg_of(junk, before=b"\xff\xdb"):
    data = encoded(PICTURE, "JPEG")
    place = data.index(before)
    return data[:place] + junk + data[place:]


def png_of(name, number):
    chunk = struct.pack(">I", 0) + name + struct.pack(">I", zlib.crc32(name))
    data = encoded(PICTURE, "PNG")
    place = data.index(b"IDAT") - 4
    return data[:place] + chunk * number + data[place:]


def gif_of_comments(number):
    data = encoded(PICTURE.convert("P"), "GIF")
    place = data.index(b",", 13 + 3 * (2 << (data[10] & 7)))
    return data[:place] + b"!\xfe\x01a\x00" * number + data[place:]


def bmp_of_runs(side, runs):
    data = b"\x01\x00" * runs
    start = 54 + 1024
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + header + bytes(1024) + data


def tiff_of_tiles(side, number):
    """Each tile is one pixel."""
    tags = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    place = 16 + 2 + 12 * 10 + 4
    tags += [(322, 4, 1, 1), (323, 4, 1, 1), (324, 4, number, place), (325, 4, number, place + 4 * number)]
    listed = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    offsets = np.arange(8, 8 + number, dtype="<u4") % 8
    head = b"II*\0" + struct.pack("<I", 16) + bytes(8)
    return head + struct.pack("<H", 10) + listed + bytes(4) + offsets.tobytes() + bytes([1, 0, 0, 0]) * number


def jpeg_of_scans(side, scans):
    """A progressive picture whose scans say in 20 bytes each that nothing changes."""
    data = bytearray(encoded(Image.new("L", (64, 64)), "JPEG", progressive=True))
    frame = data.index(b"\xff\xc2")
    data[frame + 5 : frame + 9] = struct.pack(">HH", side, side)
    runs = -(-((side // 8) ** 2) // 32767)
    bits = ("0" + "1" * 14) * runs
    bits += "1" * (-len(bits) % 8)
    run_lengths = bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)).replace(b"\xff", b"\xff\0")
    table = b"\xff\xc4\x00\x14\x10\x01" + bytes(15) + b"\xe0"
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x00" + run_lengths
    return bytes(data[: data.index(b"\xff\xda")]) + table + scan * scans + b"\xff\xd9"


WORKFUL = {
    "fill bytes in a JPEG": lambda: jpeg_of((b"\xff" * 4000 + b"\xfe\x00\x02") * 500),
    "comments in a JPEG": lambda: jpeg_of(b"\xff\xfe\x00\x02" * 200_000),
    "scans in a JPEG": lambda: jpeg_of_scans(4000, 300),
    "chunks in a PNG": lambda: png_of(b"abCd", 200_000),
    "empty data in a PNG": lambda: png_of(b"IDAT", 200_000),
    "comments in a GIF": lambda: gif_of_comments(200_000),
    "runs in a BMP": lambda: bmp_of_runs(9000, 2_000_000),
    "tiles in a TIFF": lambda: tiff_of_tiles(300, 90_000),
    "text in a PPM": lambda: b"P3 600 600 255 " + b"1 " * 3 * 600 * 600,
}


@pytest.mark.parametrize("what", WORKFUL)
def test_a_file_that_asks_for_more_than_its_share_of_work_is_refused(what, monkeypatch):
    monkeypatch.setattr(images, "MAX_SECONDS", 0.05)  # of computing; these need a second or more
    assert "takes more than 0.05 seconds" in refused(WORKFUL[what]())
    assert difference(load_image(encoded(PICTURE))) == 0


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "jpeg"])
def test_libtiff_writes_no_lines_of_its_own(compression, capfd):
    data = bytearray(encoded(PICTURE, "TIFF", compression=compression))
    data[8:40] = b"\xff" * 32
    assert "damaged" in refused(bytes(data))
    assert capfd.readouterr().err == ""


def test_a_jpeg_of_fill_bytes_is_refused_at_once():
    assert "fill bytes" in refused(jpeg_of(b"\xff" * 10_000_000))
    assert difference(load_image(jpeg_of(b"\xff" * 1000))) < 12


def test_a_tiff_of_millions_of_tiles_is_refused_before_they_are_looked_at():
    assert "1,000,000 strips or tiles" in refused(tiff_of_tiles(1000, 1_000_000))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_the_tiles_of_a_tiff_are_counted_in_either_order_and_size(order, big):
    number, tag = ("Q", "HHQQ") if big else ("H", "HHII")
    head = struct.pack(f"{order}HHHQ", 43, 8, 0, 16) if big else struct.pack(f"{order}HI", 42, 8)
    tags = struct.pack(order + number, 2) + struct.pack(order + tag, 256, 4, 1, 9)
    data = (b"II" if order == "<" else b"MM") + head + tags + struct.pack(order + tag, 273, 4, 1 << 20, 0)
    assert "1,048,576 strips or tiles" in refused(data)


def test_warnings_are_shown_again_when_the_last_of_overlapping_threads_leaves():
    before = warnings.filters[:]
    first, second = without_warnings(), without_warnings()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert warnings.filters != before, "the second is still reading"
    second.__exit__(None, None, None)
    assert warnings.filters == before
