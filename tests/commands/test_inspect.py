"""`charlstm inspect` as users run it, its pages in a real browser."""

import os
import re
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import wait_until
from planted import CELL, HIDDEN_SIZE, LAYER, NUM_LAYERS, make_run

PLANTED = f"{LAYER}:{CELL}"
# Markup, NULs, broken UTF-8, right-to-left letters and signs that turn a line round, every byte.
NASTY = (
    b"<script>alert(1)</script> </script> <!-- <img src=x onerror=alert(2)> &amp; {{ 7 * 7 }}\n"
    b"\x00\x01 \xff\xfe \xc3( \xf0\x9f\x98\x80 \xe2\x80\xae turned \xe2\x80\xac\n"
    + "שלום עולם مرحبا e\u0301 漢字\n".encode()
    + bytes(range(256))
)


@pytest.fixture(scope="session")
def planted(tmp_path_factory):
    """A run folder, its name full of markup, with a cell that follows brackets."""
    return make_run(tmp_path_factory.mktemp("planted") / "<b onclick=alert(3)>run")


@pytest.fixture(scope="module")
def inspected(charlstm, planted, tmp_path_factory):
    """The page of a text with brackets in it and all that is nasty, and what was printed."""
    folder = tmp_path_factory.mktemp("inspected")
    rng = np.random.default_rng(0)
    words = [b"(some words)", b"WORD ", b"and ", b'"said" ', b"[x] ", b"line\n", b"word. "]
    text = NASTY + b"".join(words[i] for i in rng.integers(0, len(words), 6000))
    corpus = folder / "<i>corpus.txt"
    corpus.write_bytes(text)
    output = folder / "page.html"
    done = charlstm(
        "inspect", planted, f"--corpus={corpus}", f"--output={output}", r"--regex=<i>|\bword\b"
    )
    assert done.returncode == 0, done.stderr
    return output, text, done.stdout


@pytest.fixture
def page(inspected, open_page):
    return open_page(inspected[0])


def background(page, place):
    """The colour behind a byte that is in view, as red, green, blue and opacity."""
    colour = page.evaluate(
        """place => getComputedStyle([...document.querySelectorAll('.byte')]
           .find(made => made.place === place).firstChild).backgroundColor""",
        place,
    )
    numbers = [float(number) for number in re.findall(r"[\d.]+", colour)]
    return numbers if len(numbers) == 4 else [*numbers, 1.0]


def glyphs(page, start, stop):
    """How bytes in view are shown: text and class of each."""
    return page.evaluate(
        """([start, stop]) => [...document.querySelectorAll('.byte')]
           .filter(made => made.place >= start && made.place < stop)
           .map(made => [made.firstChild.textContent, made.firstChild.classList[0]])""",
        [start, stop],
    )


def test_the_search_finds_the_planted_cell(page, inspected):
    assert re.search(rf"inside brackets +cell {PLANTED} +AUC 1\.000", inspected[2])
    page.get_by_role("button", name="inside brackets").click()
    assert page.locator("#chosen").inner_text() == f"cell {PLANTED}"
    assert page.locator("#found button").first.inner_text().split() == [
        PLANTED,
        "▲",
        "AUC",
        "1.000",
    ]
    row = page.locator("tr", has=page.get_by_role("cell", name="inside brackets"))
    assert "1.000" in row.inner_text()


def test_choosing_a_cell_recolours_the_text(page, inspected):
    text = inspected[1]
    inside = text.index(b"(some words)", len(NASTY)) + 3
    outside = inside + len(b"e words)")
    page.locator("#place").fill(str(inside))
    page.locator("#place").press("Enter")
    page.get_by_role("button", name="inside brackets").click()
    # c is 1 inside and 0 outside: strong, and none.
    assert background(page, inside)[3] > 0.6 and background(page, outside)[3] == 0
    page.locator("#cell").fill("2")
    page.locator("#cell").press("Enter")
    assert page.locator("#chosen").inner_text() == "cell 0:2"
    assert background(page, inside)[3] != 1 and background(page, outside)[3] > 0
    page.get_by_role("button", name="the cell before").click()
    assert page.locator("#chosen").inner_text() == "cell 0:1"
    page.locator("#layer").select_option("1")
    assert page.locator("#chosen").inner_text() == "cell 1:1"


def test_a_pattern_of_the_readers_finds_the_planted_cell(page):
    page.locator("#pattern").fill(r"[(\[][^)\]]*")
    page.get_by_role("button", name="find").click()
    assert page.locator("#found button").first.inner_text().split()[:2] == [PLANTED, "▲"]
    page.locator("#pattern").fill("(")
    page.get_by_role("button", name="find").click()
    assert "nvalid" in page.locator("#property-meaning").inner_text()
    page.locator("#pattern").fill("no such words")
    page.get_by_role("button", name="find").click()
    assert "matches 0 and 0 bytes" in page.locator("#property-meaning").inner_text()


def test_bytes_that_are_no_text_are_shown_as_hexadecimal(page, inspected):
    text = inspected[1]
    shown = {}
    for line in (0, 1, 2):
        start = [0, text.index(b"\x00"), text.index("ש".encode())][line]
        for offset, glyph in enumerate(glyphs(page, start, start + 60)):
            shown[start + offset] = glyph
    assert [shown[place] for place in range(8)] == [[sign, "glyph"] for sign in "<script>"]
    second = text.index(b"\x00")
    assert shown[second] == ["00", "hex"] and shown[second + 1] == ["01", "hex"]
    broken = text.index(b"\xff\xfe")
    assert shown[broken] == ["FF", "hex"] and shown[broken + 1] == ["FE", "hex"]
    assert shown[text.index(b"\xc3(")] == ["C3", "hex"]
    face = text.index("😀".encode())
    assert [shown[face + i] for i in range(4)] == [["😀", "glyph"]] + [["", "rest"]] * 3
    turner = text.index(b"\xe2\x80\xae")
    assert [shown[turner + i][0] for i in range(3)] == ["E2", "80", "AE"]
    assert shown[text.index("ש".encode())] == ["ש", "glyph"]


def test_right_to_left_text_keeps_the_order_of_its_bytes(page, inspected):
    start = inspected[1].index("ש".encode())
    lefts = page.evaluate(
        """([start, stop]) => [...document.querySelectorAll('.byte')]
           .filter(made => made.place >= start && made.place < stop)
           .map(made => made.getBoundingClientRect().left)""",
        [start, start + 30],
    )
    assert len(lefts) == 30 and lefts == sorted(lefts)


def test_names_are_shown_as_they_are(page):
    assert "<b onclick=alert(3)>run" in page.locator("h1").inner_text()
    assert "<i>corpus.txt" in page.locator("h1").inner_text()
    assert "<b>1</b>" in page.locator("footer").inner_text()
    assert page.get_by_role("button", name=r"/<i>|\bword\b/").is_visible()


def test_surprise_and_predictions(page):
    page.get_by_role("button", name="surprise").click()
    assert page.locator("#legend-surprise").is_visible()
    assert max(background(page, place)[3] for place in range(20)) > 0.3
    page.get_by_role("button", name="five likeliest next bytes").click()
    under = page.locator(".byte").first.locator("i")
    assert under.count() == 5
    strengths = page.evaluate(
        """() => [...document.querySelector('.byte').querySelectorAll('i')].map(made =>
           Number(getComputedStyle(made).backgroundColor.match(/[\\d.]+/g)[3] ?? 1))"""
    )
    assert strengths == sorted(strengths, reverse=True)
    page.locator(".byte").nth(3).hover()
    details = page.locator("#details").inner_text()
    assert "byte 3: 0x72 r" in details and "bits" in details and details.count("%") == 5


def test_saturation_has_a_point_for_every_cell_and_gate(page):
    points = page.locator("#saturation .role-mark path[aria-roledescription=circle]")
    assert points.count() == 3 * HIDDEN_SIZE
    page.locator("#saturation-layer").select_option(str(NUM_LAYERS - 1))
    wait_until(page, "document.querySelector('#saturation path[aria-label*=\"1:\"]')")
    points.first.dispatch_event("click")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_pages_fit_phones_and_desktops(open_page, inspected, width, scheme):
    page = open_page(inspected[0], width=width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 150) == (scheme == "dark")
    text = page.locator("#text").bounding_box()
    assert text["width"] > 0.6 * width and text["height"] > 300


def test_a_megabyte_has_few_elements_and_scrolls_to_its_end(charlstm, planted, open_page, tmp_path):
    rng = np.random.default_rng(3)
    text = rng.choice(np.frombuffer(b"abcde (f) [g] hi.\n", np.uint8), 2**20).tobytes()
    (tmp_path / "text").write_bytes(text[:-6] + b"(last)")
    output = tmp_path / "page.html"
    done = charlstm("inspect", f"--checkpoint={planted}", f"--corpus={tmp_path / 'text'}",
                    f"--output={output}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = open_page(output)
    count = "document.querySelectorAll('*').length"
    assert page.evaluate(count) < 10_000
    # The best cell is there for the whole text, though all cells are only there for a window.
    page.get_by_role("button", name="inside brackets").click()
    page.evaluate("document.getElementById('text').scrollTop = 1e9")
    wait_until(page, f"[...document.querySelectorAll('.byte')].at(-1).place === {2**20 - 1}")
    assert background(page, 2**20 - 3)[3] > 0.6
    assert page.evaluate(count) < 10_000
    assert page.locator("#partly").is_hidden()
    page.get_by_role("button", name="five likeliest next bytes").click()
    page.evaluate("document.getElementById('text').scrollTop = 1e9")
    wait_until(page, f"[...document.querySelectorAll('.byte')].at(-1).place === {2**20 - 1}")


def test_binary_files_are_inspected(charlstm, planted, open_page, tmp_path):
    """A PNG and an ELF program (or whatever runs Python here), end to end."""
    import matplotlib.image

    (tmp_path / "binary").mkdir()
    matplotlib.image.imsave(tmp_path / "binary" / "a.png", np.eye(40))
    program = Path(os.path.realpath(sys.executable)).read_bytes()[:20_000]
    (tmp_path / "binary" / "b.elf").write_bytes(program)
    output = tmp_path / "page.html"
    done = charlstm(
        "inspect",
        f"--corpus={tmp_path / 'binary' / '*'}",
        planted,
        f"--output={output}",
        "--window=9000",
    )
    assert done.returncode == 0, done.stderr
    page = open_page(output)
    assert glyphs(page, 0, 4) == [["89", "hex"], ["P", "glyph"], ["N", "glyph"], ["G", "glyph"]]
    page.get_by_role("button", name="five likeliest next bytes").click()
    page.evaluate("document.getElementById('text').scrollTop = 5e4")


def test_without_a_corpus_the_validation_split_is_read(charlstm, trained, tmp_path):
    """And the alphabet may be the text's own."""
    done = charlstm("inspect", trained, f"--output={tmp_path / 'page.html'}", "--regex=a")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.html").read_text()
    packed = re.search(r'id="blob-text">([^<]*)<', page)[1]
    text = zlib.decompress(__import__("base64").b64decode(packed))
    assert len(text) == 599  # a twentieth of 11,999 bytes
    assert "late in the line" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("PLANTED", "--output=/nowhere/page.html"), "no folder /nowhere"),
        ((), "--checkpoint=RUN_OR_CHECKPOINT is missing"),
        (("PLANTED", "--checkpoint=other"), "differ"),
        (("PLANTED", "--corpus=CORPUS", "--regex=("), "no regular expression"),
    ],
)
def test_bad_input_is_refused_with_one_line(charlstm, planted, text_file, arguments, says):
    names = {"PLANTED": str(planted)}
    given = [names.get(a, a.replace("CORPUS", str(text_file))) for a in arguments]
    done = charlstm("inspect", *given)
    assert done.returncode == 2 and done.stdout == ""
    assert says in done.stderr and len(done.stderr.splitlines()) == 1
