"""The page to write with, in a real browser: text that streams in, and what is done with it."""

import completions
from completions import GREEDY, continuation
from conftest import wait_until
from play_pages import cells_of, text_of, write


def test_text_streams_in_and_the_request_has_what_was_set(page, server):
    server.pause = 0.05
    page.locator("#prompt").fill("Once é")
    page.locator("#temperature").fill("1.25")
    page.locator("#top-p").fill("0.9")
    page.locator("#length").fill("100")
    page.locator("#seed").fill("7")
    page.get_by_role("button", name="Write").click()
    wait_until(page, "document.querySelectorAll('.byte').length > 20")
    assert page.locator("#stop").is_enabled()  # it is still writing
    assert page.locator("#status").inner_text() == "Writing …"
    page.locator("#go-on:enabled").wait_for()
    assert text_of(page) == "Once é" + continuation("Once é".encode(), 100, 7)
    cells = page.locator(".lamp .label").all_inner_texts()
    assert server.requests == [
        {
            "model": "the-model",
            "prompt": list("Once é".encode()),
            "max_tokens": 100,
            "temperature": 1.25,
            "top_p": 0.9,
            "seed": 7,
            "stream": True,
            "logprobs": 1,
            "echo": True,
            "cells": cells,
        }
    ]
    assert len(cells) == 12 and {cell[0] for cell in cells} == {"0", "1"}
    assert page.locator("#status").inner_text() == "Wrote 100 bytes, seed 7."
    assert "107 bytes" in page.locator("#count").inner_text()
    assert page.locator(".byte.prompt").count() == 6  # é is one character


def test_at_temperature_0_the_text_is_the_greedy_one(page, server):
    write(page, "A", temperature=0, length=30)
    assert server.requests[0]["temperature"] == 0
    assert text_of(page) == "A" + GREEDY[1:31].decode()


def test_without_a_seed_each_text_has_its_own_and_says_which(page, server):
    write(page, "A", length=5)
    write(page, "A", length=5)
    seeds = [asked["seed"] for asked in server.requests]
    assert seeds[0] != seeds[1] and all(0 <= seed < 2**32 for seed in seeds)
    assert page.locator("#status").inner_text() == f"Wrote 5 bytes, seed {seeds[1]}."


def test_an_empty_prompt_is_a_line_break_or_the_alphabets_first_byte(page, server):
    write(page, "", length=5)
    assert server.requests[-1]["prompt"] == [0x0A]
    server.models = [completions.describe("letters", b"abc")]
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    write(page, "", length=5)
    assert server.requests[-1]["prompt"] == [ord("a")]


def test_stop_and_go_on(page, server):
    server.pause = 0.05
    page.locator("#prompt").fill("abc")
    page.locator("#length").fill("5000")
    page.locator("#seed").fill("3")
    page.get_by_role("button", name="Write").click()
    wait_until(page, "document.querySelectorAll('.byte').length > 20")
    page.get_by_role("button", name="Stop").click()
    page.locator("#go-on:enabled").wait_for()
    written = text_of(page)
    assert 20 < len(written) < 1000
    assert page.locator("#status").inner_text() == (
        f"Stopped. Wrote {len(written) - 3} bytes, seed 3."
    )
    server.pause = 0
    page.locator("#length").fill("10")
    page.get_by_role("button", name="Go on").click()
    page.locator("#go-on:enabled").wait_for()
    asked = server.requests[-1]
    assert bytes(asked["prompt"]) == written.encode() and not asked["echo"]
    assert asked["seed"] == 4  # with the same one, the numbers of the first piece would return
    assert text_of(page) == written + continuation(written, 10, 4)
    assert page.locator(".byte.prompt").count() == 3


def test_copy_and_clear(page):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    write(page, "aé\nb", length=30, seed=2)
    page.get_by_role("button", name="Copy").click()
    wait_until(page, "document.getElementById('status').textContent.startsWith('Copied')")
    expected = "aé\nb" + continuation("aé\nb".encode(), 30, 2)
    assert page.evaluate("navigator.clipboard.readText()") == expected
    page.get_by_role("button", name="Clear").click()
    assert text_of(page) == "" and page.locator("#prompt").input_value() == "aé\nb"
    assert page.locator("#go-on").is_disabled() and page.locator("#copy").is_disabled()
    assert set(cells_of(page).values()) == {"–"}


def test_bytes_that_are_no_text_are_shown_as_hexadecimal(page, server, monkeypatch):
    """And a character whose bytes come one by one is shown once it is whole."""
    written = b"\x00\x1b" + "é漢😀".encode() + b"\xff\xc3(" + "\u202e".encode() + b"\tz"
    monkeypatch.setattr(
        completions, "next_byte", lambda place, *_: written[(place - 1) % len(written)]
    )
    server.per_event = 1
    write(page, "a", length=len(written))
    shown = page.evaluate(
        """[...document.querySelectorAll('.byte')].map(made =>
             [made.textContent, made.classList[1], made.end - made.start])"""
    )
    assert shown == [
        ["a", "glyph", 1],
        ["00", "hex", 1],
        ["1B", "hex", 1],
        ["é", "glyph", 2],
        ["漢", "glyph", 3],
        ["😀", "glyph", 4],
        ["FF", "hex", 1],
        ["C3", "hex", 1],
        ["(", "glyph", 1],
        ["E2", "hex", 1],
        ["80", "hex", 1],
        ["AE", "hex", 1],
        ["→", "mark", 1],
        ["z", "glyph", 1],
    ]
    page.get_by_text("漢").hover()
    details = page.locator("#details").inner_text()
    assert all(f"byte {place}: 0x{written[place - 1]:02X}" in details for place in (5, 6, 7))
    assert page.get_by_text("漢").evaluate("made => made.style.background").count("rgb") == 3


def test_thousands_of_bytes_are_added_without_drawing_the_others_again(page, server):
    server.per_event = 50
    page.evaluate(
        """() => { window.changes = {added: 0, removed: 0, styled: 0};
          const watch = new MutationObserver((list) => { for (const change of list) {
            window.changes.added += change.addedNodes.length;
            window.changes.removed += change.removedNodes.length;
            window.changes.styled += change.type === 'attributes'; } });
          watch.observe(document.getElementById('text'), {childList: true, subtree: true,
            attributes: true, attributeFilter: ['style']}); }"""
    )
    write(page, "abc", length=20_000)
    changes = page.evaluate("window.changes")
    assert page.evaluate("document.querySelectorAll('.byte').length") == 20_003
    # A text node, an element and a colour for each byte, and a few lines.
    assert changes["added"] <= 20_003 * 2 + 10 and changes["removed"] == 0
    assert changes["styled"] <= 20_003 + 10
    at_end = "made => made.scrollHeight - made.scrollTop - made.clientHeight"
    assert page.locator("#text").evaluate(at_end) < 40  # it follows the text
    page.locator("#text").evaluate("made => { made.scrollTop = 0; }")
    page.locator("#length").fill("500")
    page.get_by_role("button", name="Go on").click()
    page.locator("#go-on:enabled").wait_for()
    assert page.locator("#text").evaluate("made => made.scrollTop") == 0  # nor does it snatch
