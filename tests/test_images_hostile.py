"""Hostile image files and servers: nothing blocks, leaves the image root, starts a program or takes much memory."""

import io
import os
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anyrec.core.contracts import Context
from anyrec.data import images
from anyrec.data.dataset import Dataset
from anyrec.data.images import FORMATS, ImageFault, load_images, open_image
from anyrec.data.url_fetch import FetchError, fetch
from anyrec.report.examples import picture_of

ROOT = Path(__file__).parent.parent
GRADIENT = np.stack(np.broadcast_arrays(np.arange(60)[None] * 4, np.arange(40)[:, None] * 6, 99), 2).astype(np.uint8)
PICTURE = Image.fromarray(GRADIENT)


def png(width, height, depth=8, kind=0):
    """A PNG of black pixels, whose file is small."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    squeeze = zlib.compressobj(9)
    line = b"\0" * ((width * depth * channels + 7) // 8 + 1)
    body = b"".join(squeeze.compress(line) for _ in range(height)) + squeeze.flush()
    palette = chunk(b"PLTE", bytes(range(6))) if kind == 3 else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + palette + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def kind_of(name, root, **options):
    with pytest.raises(ImageFault) as caught:
        open_image(name, root, **options)
    assert caught.value.kind in images.KINDS
    return caught.value.kind


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def root(tmp_path):
    root = tmp_path / "root"
    (root / "folder.png").mkdir(parents=True)
    PICTURE.save(root / "good.png")
    PICTURE.save(tmp_path / "secret.png")
    os.mkfifo(root / "fifo.png")
    for name, target in {
        "loop.png": "loop.png",
        "dangling.png": "nowhere.png",
        "to-fifo.png": "fifo.png",
        "within.png": "good.png",
        "out.png": "../secret.png",
        "zero.png": "/dev/zero",
    }.items():
        (root / name).symlink_to(target)
    return root


def test_names_of_other_than_regular_files_are_missing_images(root):
    names = ["", ".", "folder.png", "fifo.png", "to-fifo.png", "loop.png", "dangling.png", "good.png\0", "\ud800.png"]
    names += [
        "y" * 256 + ".png",
        "x" * 5000,
        "a/" * 3000,
        "data:image/png;base64,AAAA",
        "DATA:," + "x" * 5000,
    ]
    assert {name[:20]: kind_of(name, root) for name in names} == dict.fromkeys([name[:20] for name in names], "missing")


def test_files_outside_the_root_are_refused_unless_a_flag_allows_them(root):
    outside = [
        "../secret.png",
        str(root.parent / "secret.png"),
        "out.png",
        "zero.png",
        "/dev/zero",
        "/proc/self/environ",
    ]
    assert {kind_of(name, root) for name in [*outside, "../nothing.png", "/etc/passwd"]} == {"outside"}
    for name in outside[:3]:
        assert open_image(name, root, allow_outside_root=True).size == PICTURE.size
    assert kind_of("/dev/zero", root, allow_outside_root=True) == "missing"
    for name in ("good.png", str(root / "good.png"), "folder.png/../good.png", "within.png", "good.png/"):
        assert open_image(name, root).size == PICTURE.size


def test_the_note_on_files_outside_the_root_says_how_to_allow_them(root):
    context = Context(root=root)
    assert load_images(["../secret.png", "good.png", "x" * 5000], context, np.asarray)[1].tolist() == [
        False,
        True,
        False,
    ]
    outside = next(note for note in context.warnings if "outside" in note)
    assert "data.allow_outside_root" in outside and all(len(note) < 400 for note in context.warnings)
    context = Context(root=root, allow_outside_root=True)
    assert load_images(["../secret.png"], context, np.asarray)[1].all() and not context.warnings


def test_a_huge_file_is_too_large_before_it_is_read(root):
    with (root / "huge.png").open("wb") as file:
        file.write((root / "good.png").read_bytes())
        file.truncate(10**12)
    assert kind_of("huge.png", root) == "too large"


def test_a_report_skips_images_that_cannot_be_read(root):
    (root / "bomb.png").write_bytes(png(50_000, 2000))
    for names, shown in (
        (["fifo.png"], False),
        (["bomb.png"], False),
        (["../secret.png"], False),
        (["good.png"], True),
    ):
        items = pa.table({"item_id": ["i0"], "image.views": [names]})
        dataset = Dataset(pa.table({"user_id": ["u0"]}), items, pa.table({"user_id": ["u0"], "item_id": ["i0"]}), root)
        recommender = SimpleNamespace(dataset=dataset, context=Context(root=root))
        assert picture_of(recommender, 0).startswith("data:image/jpeg") == shown  # type: ignore[arg-type]


def test_images_are_opened_in_one_place():
    folders = ("anyrec", "scripts", "examples", "plugins", "benchmarks", "encoders", "interaction", "classifier")
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    opening = {path.name for path in files if "Image.open(" in path.read_text()}
    assert opening == {"images.py"}


# -- formats and modes -------------------------------------------------------------------------------------------------


def test_only_the_listed_formats_are_opened_whatever_a_file_is_called(root, monkeypatch):
    started = []
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: started.append(a))
    head = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\nshowpage\n"
    (root / "a.png").write_bytes(head)
    assert kind_of("a.png", root) == "corrupt" and not started
    for other in ("PPM", "TGA", "PCX", "ICO", "DDS", "SGI", "IM", "JPEG2000"):
        PICTURE.save(root / "b.png", other)
        assert kind_of("b.png", root) == "corrupt"
    for listed in FORMATS:
        PICTURE.save(root / "c.xyz", listed)
        image = open_image("c.xyz", root)
        assert image.mode == "RGB" and np.abs(np.asarray(image, int) - GRADIENT).mean() < 8


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F"])
def test_a_reduced_image_of_any_mode_has_the_colours_of_the_whole_one(root, mode, monkeypatch):
    big = Image.fromarray(np.kron(GRADIENT, np.ones((16, 16, 1), np.uint8)))
    if mode in ("I;16", "I", "F"):
        numbers = np.asarray(big.convert("L"), np.float32) * (257 if mode != "F" else 1)
        big = Image.fromarray(numbers.astype({"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]))
    else:
        big = big.convert(mode)
    big.save(root / "big.tiff", **({"compression": "tiff_lzw"} if mode == "P" else {}))
    whole = np.asarray(open_image("big.tiff", root, side=480), float)
    monkeypatch.setattr(images, "STRIP", 10_000)
    stripped = np.asarray(open_image("big.tiff", root, side=480), float)
    small = open_image("big.tiff", root, side=30)
    assert whole.shape == (640, 960, 3) and np.array_equal(whole, stripped)
    assert small.size == (60, 40)
    means = whole.reshape(40, 16, 60, 16, 3).mean((1, 3))
    assert np.abs(means - np.asarray(small, float)).max() <= 1


def test_numbers_that_are_not_finite_are_black_or_white(root):
    values = np.full((8, 8), 100.0, np.float32)
    values[0, 0], values[1, 1], values[2, 2] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(root / "odd.tiff")
    found = np.asarray(open_image("odd.tiff", root))[..., 0]
    assert [found[0, 0], found[1, 1], found[2, 2], found[3, 3]] == [0, 255, 0, 100]


@pytest.mark.parametrize("turn", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 65535])
def test_every_orientation_is_turned_upright_also_if_the_image_is_reduced(root, turn):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(np.kron(GRADIENT, np.ones((8, 8, 1), np.uint8))).save(root / "t.jpg", exif=exif, quality=95)
    with Image.open(root / "t.jpg") as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    found = open_image("t.jpg", root, side=30)
    assert max(found.size) == 60
    near = np.asarray(expected.resize(found.size, Image.Resampling.BOX), int)
    assert np.abs(near - np.asarray(found, int)).mean() < 4


MEMORY = """
import resource, sys
from pathlib import Path
from anyrec.data.images import open_image
open_image("warm.png", Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name in sys.argv[2:]:
    open_image(name, Path(sys.argv[1]), side=224)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.slow
def test_a_large_image_of_any_mode_takes_little_more_memory_than_its_pixels(root):
    PICTURE.save(root / "warm.png")
    kinds = {"bits": (1, 0, 16), "palette": (8, 3, 16), "sixteen": (16, 0, 32), "glass": (8, 6, 64)}
    for name, (depth, kind, _) in kinds.items():
        (root / name).write_bytes(png(4000, 4000, depth, kind))
    made = subprocess.run([sys.executable, "-c", MEMORY, root, *kinds], capture_output=True, text=True, check=True)
    for line, (_, _, pixels) in zip(made.stdout.split(), kinds.values(), strict=True):  # in MiB
        assert int(line) < pixels + 60


def test_a_picture_of_extreme_proportions_is_reduced(root):
    (root / "line.png").write_bytes(png(1_000_000, 1))
    assert open_image("line.png", root, side=100).size[0] in range(200, 202)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_opened_or_is_an_image_fault(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("damaged")
    kind = data.draw(st.sampled_from(FORMATS))
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    PICTURE.save(buffer, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
    raw = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 8))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place : place + data.draw(st.sampled_from([0, 1, 1, 4]))] = data.draw(st.binary(max_size=4))
        if not raw:
            break
    (root / "a").write_bytes(bytes(raw))
    made, readable = load_images(["a"], Context(root=root), lambda image: image.mode)
    assert made == ["RGB"] * int(readable.sum())


# -- URLs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def serve():
    """Answers connections, one after another, with the given bytes; `None` keeps the connection open and silent."""
    open_ones = []

    def start(*answers):
        server = socket.create_server(("127.0.0.1", 0))
        open_ones.append(server)

        def run():
            for answer in answers:
                try:
                    one, _ = server.accept()
                    open_ones.append(one)
                    one.recv(1 << 16)
                    if answer is not None:
                        one.sendall(answer)
                        one.close()
                except OSError:
                    return

        threading.Thread(target=run, daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}"

    yield start
    for one in open_ones:
        one.close()


def answer_of(body, extra=b""):
    return b"HTTP/1.1 200 OK\r\nContent-Length: " + str(len(body)).encode() + b"\r\n" + extra + b"\r\n" + body


def test_an_image_is_fetched_if_urls_are_allowed(serve, root):
    url = serve(answer_of((root / "good.png").read_bytes())) + "/a.png"
    assert kind_of(url, root) == "url" and kind_of("ftp://h/a.png", root, allow_urls=True) == "url"
    assert open_image(url.replace("http", "HTTP"), root, allow_urls=True).size == PICTURE.size


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: ftp://127.0.0.1/x\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://[\r\n\r\n",
    ],
)
def test_a_malformed_answer_is_a_missing_image(serve, root, answer):
    assert kind_of(serve(answer) + "/a.png", root, allow_urls=True) == "missing"


@pytest.mark.parametrize(
    "url", ["http://", "http://[", "http://a b/", "http://127.0.0.1:99999/", "http://\ud800/", "http://a\0b/"]
)
def test_a_malformed_url_is_a_missing_image(root, url):
    assert kind_of(url, root, allow_urls=True) == "missing"


def test_only_a_few_redirects_are_followed(serve, root):
    picture = answer_of((root / "good.png").read_bytes())
    to = serve(picture)
    one = serve(b"HTTP/1.1 302 Found\r\nLocation: " + to.encode() + b"/a\r\nContent-Length: 0\r\n\r\n")
    assert open_image(one + "/a.png", root, allow_urls=True).size == PICTURE.size
    loop = serve(*[b"HTTP/1.1 302 Found\r\nLocation: /%d\r\nContent-Length: 0\r\n\r\n" % n for n in range(20)])
    assert kind_of(loop + "/a.png", root, allow_urls=True) == "missing"


@pytest.mark.parametrize("answer", [None, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"])
def test_the_whole_fetch_has_a_deadline(answer, serve):
    dripping = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def drip():
        one, _ = server.accept()
        one.recv(1 << 16)
        one.sendall(answer or b"")
        try:
            while not dripping.wait(0.05):  # a byte now and then, so that no single read times out
                one.sendall(b"x")
        except OSError:
            dripping.set()
        one.close()

    threading.Thread(target=drip, daemon=True).start()
    with pytest.raises(FetchError, match=r"more than 0.4 s"):
        fetch(f"http://127.0.0.1:{server.getsockname()[1]}/", 1000_000, 0.4)
    dripping.set()
    server.close()


def test_a_body_that_is_too_large_is_not_kept(serve):
    with pytest.raises(FetchError, match="more than 10 bytes"):
        fetch(serve(answer_of(b"x" * 11)), 10, 5)
