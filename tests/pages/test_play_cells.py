"""What the page to write with shows of each byte: its surprise, and the cells."""

import math

import completions
import pytest
from completions import cell_state, logprob
from conftest import wait_until
from play_pages import cells_of, strengths, text_of, write


def test_pointing_at_a_byte_shows_its_probability_and_the_cells(page):
    write(page, "abc", length=60, seed=1)
    text = text_of(page).encode()
    page.locator(".byte").nth(20).hover()
    details = page.locator("#details").inner_text()
    probability = math.exp(logprob(text[20], 20))
    assert f"byte 20: 0x{text[20]:02X} {chr(text[20])}" in details
    assert f"probability {100 * probability:.1f} %" in details
    assert f"{-math.log2(probability):.2f} bits" in details
    for name, shown in cells_of(page).items():
        state = cell_state(name, text[20], 20)
        assert shown == f"{'−' if state < 0 else '+'}{abs(state):.2f}"
        assert f"{name}\N{NO-BREAK SPACE}{shown}" in details
    page.locator(".byte").first.hover()
    assert "no probability" in page.locator("#details").inner_text()


def test_cells_light_up_while_the_text_is_written(page, server):
    server.pause, server.per_event = 0.1, 1
    page.locator("#prompt").fill("abc")
    page.locator("#length").fill("12")
    seen = set()
    page.get_by_role("button", name="Write").click()
    while page.locator("#stop").is_enabled():
        glow = "getComputedStyle(document.querySelector('.glow')).backgroundColor"
        seen.add((page.evaluate(glow), page.locator(".lamp .value").first.inner_text()))
    assert len(seen) > 5
    text = text_of(page).encode()
    first, shown = next(iter(cells_of(page).items()))
    state = cell_state(first, text[-1], len(text) - 1)
    assert float(shown.replace("−", "-")) == pytest.approx(state, abs=0.006)
    # The strip: a pixel for each byte, the last one at its right end.
    pixels = page.evaluate(
        """() => { const strip = document.querySelector('.lamp canvas');
             return [...strip.getContext('2d').getImageData(0, 0, strip.width, 1).data]; }"""
    )
    opacities = pixels[3::4]
    assert [opacity > 0 for opacity in opacities] == [False] * (40 - 15) + [True] * 15
    assert opacities[-1] == pytest.approx(255 * 0.9 * abs(state), abs=3)


def test_choosing_a_cell_colours_the_text_by_it(page):
    write(page, "abc", length=40)
    text = text_of(page).encode()
    page.locator(".lamp .choose").nth(3).click()
    name = page.locator(".lamp .label").nth(3).inner_text()
    assert page.locator("#chosen").inner_text() == f"cell {name}"
    assert page.locator("#legend-cell").is_visible()
    states = [cell_state(name, byte, place) for place, byte in enumerate(text)]
    expected = [abs(state) * (0.6 if state < 0 else 0.75) for state in states]
    assert strengths(page) == pytest.approx(expected, abs=0.006)


def test_a_cell_that_is_added_is_known_for_the_whole_text(page, server):
    write(page, "abc", length=40)
    page.locator("#cell").fill("1:31")
    page.locator("#cell").press("Enter")
    wait_until(page, "!document.querySelector('.unknown')")
    read = server.requests[-1]
    assert read["cells"][-1] == "1:31" and read["echo"] and len(read["prompt"]) == 43
    text = text_of(page).encode()
    assert len(text) == 43
    states = [cell_state("1:31", byte, place) for place, byte in enumerate(text)]
    expected = [abs(state) * (0.6 if state < 0 else 0.75) for state in states]
    assert strengths(page) == pytest.approx(expected, abs=0.006)
    page.get_by_role("button", name="Remove cell 1:31").click()
    assert "1:31" not in cells_of(page)
    page.get_by_role("button", name="Go on").click()
    wait_until(page, "document.querySelectorAll('.byte').length === 83")
    assert "1:31" not in server.requests[-1]["cells"]


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("2:0", "layers 0 to 1"),
        ("0:32", "cells 0 to 31"),
        ("0:2", "there already"),
    ],
)
def test_a_cell_that_cannot_be_added_is_refused(page, typed, says):
    page.locator("#cell").fill(typed)
    page.locator("#cell").press("Enter")
    assert says in page.locator("#cells-say").inner_text()
    assert len(cells_of(page)) == 12


def test_there_are_at_most_64_cells(page):
    page.evaluate(
        """() => { for (let cell = 0; cell < 64; cell++) for (const layer of [0, 1]) {
             document.getElementById('cell').value = `${layer}:${cell}`;
             document.getElementById('add-cell').requestSubmit(); } }"""
    )
    assert len(cells_of(page)) == 64
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280


def test_several_models_can_be_chosen_between(page, server):
    server.models = [
        completions.describe("small", num_layers=1, hidden_size=8, bits_per_byte=None),
        completions.describe("large", num_layers=3, hidden_size=64),
    ]
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert "bits per byte" not in page.locator("#facts").inner_text()
    write(page, "abc", length=5)
    page.get_by_label("Model").select_option("large")
    assert page.locator("h1").inner_text() == "large" and text_of(page) == ""
    facts = page.locator("#facts").inner_text()
    assert "3 layers of 64 cells" in facts and "1.946 bits per byte" in facts
    assert {name[0] for name in cells_of(page)} == {"0", "1", "2"}
    write(page, "abc", length=5)
    assert [asked["model"] for asked in server.requests] == ["small", "large"]


def test_every_byte_is_coloured_by_its_surprise(page):
    write(page, "abc", length=60, seed=1)
    text = text_of(page).encode()
    most = 0.6  # opacity at 8 bits
    expected = [
        0 if place == 0 else most * min(1, -logprob(byte, place) / math.log(2) / 8)
        for place, byte in enumerate(text)
    ]
    assert strengths(page) == pytest.approx(expected, abs=0.006)
    assert page.locator("#legend-surprise").is_visible()
    page.get_by_role("button", name="none").click()
    assert set(strengths(page)) == {0}


def test_a_text_that_was_stopped_before_its_prompt_was_read_gets_all_values_later(page, server):
    server.pause = 0.3
    page.locator("#prompt").fill("abcdefghijklmnopqrstuvwxyz")
    page.get_by_role("button", name="Write").click()
    page.get_by_role("button", name="Stop").click()
    page.locator("#go-on:enabled").wait_for()
    server.pause = 0
    page.locator("#length").fill("10")
    page.get_by_role("button", name="Go on").click()
    wait_until(page, "document.querySelectorAll('.byte').length === 36")
    page.locator("#go-on:enabled").wait_for()
    text = text_of(page).encode()
    states = [logprob(byte, place) for place, byte in enumerate(text)]
    expected = [0, *(0.6 * min(1, -state / math.log(2) / 8) for state in states[1:])]
    assert strengths(page) == pytest.approx(expected, abs=0.006)
