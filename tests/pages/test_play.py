"""The page to write with, in a real browser, with a server whose every answer is known."""

import math
import re

import completions
import pytest
from completions import DRAWN, GREEDY, cell_state, logprob
from conftest import wait_until

from charlstm.pages import play

NASTY = "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"


@pytest.fixture
def server():
    with completions.serving(play.render_served()) as running:
        yield running


@pytest.fixture
def page(open_page, server):
    return open_page(server.url)


def write(page, prompt, **settings):
    """Types a prompt and settings, presses Write, and waits for the end."""
    page.locator("#prompt").fill(prompt)
    for name, value in settings.items():
        page.locator(f"#{name}").fill(str(value))
    page.get_by_role("button", name="Write").click()
    page.locator("#go-on:enabled").wait_for()


def text_of(page):
    """The bytes on the page: from what is shown, character by character."""
    signs = page.evaluate(
        "[...document.querySelectorAll('.byte')].map(made => made.textContent)",
    )
    return "".join("\n" if sign == "↵" else sign for sign in signs)


def strengths(page):
    """The opacity of the colour behind each character of one byte."""
    return page.evaluate(
        """[...document.querySelectorAll('.byte')].map(made => {
             const colour = getComputedStyle(made).backgroundColor;
             return colour === 'rgba(0, 0, 0, 0)' ? 0
               : Number(colour.match(/[\\d.]+/g)[3] ?? 1); })"""
    )


def continuation(prompt, length, seed):
    """What the server writes after a prompt at a temperature above 0."""
    return "".join(chr(DRAWN[(len(prompt) + i + seed) % len(DRAWN)]) for i in range(length))


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


def cells_of(page):
    """What is shown of each cell."""
    names = page.locator(".lamp .label").all_inner_texts()
    return dict(zip(names, page.locator(".lamp .value").all_inner_texts(), strict=True))


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


def test_markup_in_prompts_names_and_errors_is_shown_and_not_run(page, server):
    server.models = [completions.describe(NASTY)]
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert page.locator("h1").inner_text() == NASTY
    scripts = page.evaluate("document.querySelectorAll('script, img').length")
    write(page, NASTY, length=20)
    assert text_of(page).startswith(NASTY)
    server.failure = (503, f"busy {NASTY}")
    page.get_by_role("button", name="Write").click()
    page.locator("#notice").wait_for()
    assert page.locator("#notice-text").inner_text() == f"busy {NASTY}"
    assert page.evaluate("document.querySelectorAll('script, img').length") == scripts
    assert page.evaluate("window.ran") is None
    del page.complaints[:]  # Chromium notes the answer 503


def test_the_policy_lets_the_page_ask_its_own_server_only(page, server):
    blocked = """async () => { const said = [];
      document.addEventListener('securitypolicyviolation', event => {
        said.push(event.effectiveDirective); });
      await fetch('http://127.0.0.1:9/').catch(() => {});
      const add = (tag, with_) => {
        document.body.append(Object.assign(document.createElement(tag), with_)); };
      add('script', {textContent: 'ran = 1'});
      add('img', {src: 'v1/models'});
      await new Promise(resolve => setTimeout(resolve, 300));
      return said; }"""
    assert set(page.evaluate(blocked)) == {"connect-src", "script-src-elem", "img-src"}
    assert page.evaluate("window.ran") is None
    del page.complaints[:]
    policy = page.evaluate("document.querySelector('meta[http-equiv]').content")
    assert "connect-src 'self'" in policy and "wasm" not in policy and "eval" not in policy
    assert {path for _, path in server.seen} == {"/", "/v1/models"}
    write(page, "a", length=3)
    assert {path for _, path in server.seen} == {"/", "/v1/models", "/v1/completions"}


def test_it_works_by_keyboard_alone(page, server):
    server.pause = 0.05
    focused = "document.activeElement.id || document.activeElement.textContent"
    reached = []
    for _ in range(12):
        page.keyboard.press("Tab")
        reached.append(page.evaluate(focused))
        style = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert style == "solid", reached  # the focus can be seen
    assert reached[:6] == ["prompt", "write", "temperature", "top-p", "length", "seed"]
    assert "surprise" in reached and "text" in reached
    for _ in range(12):
        page.keyboard.press("Shift+Tab")
    page.keyboard.press("Tab")
    page.keyboard.type("abc\nd")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Home")  # the slider
    page.keyboard.press("ArrowRight")
    assert page.locator("#temperature-value").inner_text() == "0.05"
    page.keyboard.press("Control+Enter")
    wait_until(page, "document.querySelectorAll('.byte').length > 10")
    page.keyboard.press("Escape")
    page.locator("#go-on:enabled").wait_for()
    assert page.locator("#status").inner_text().startswith("Stopped.")
    assert server.requests[0]["temperature"] == 0.05
    length = len(text_of(page))
    page.locator("#go-on").focus()
    page.keyboard.press("Enter")
    wait_until(page, f"document.querySelectorAll('.byte').length > {length}")
    assert page.evaluate(focused) == "stop"  # the button that was pressed can't have the focus
    page.keyboard.press("Enter")
    page.locator("#go-on:enabled").wait_for()
    assert page.evaluate(focused) == "go-on"
    page.locator("#text").focus()
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    assert page.locator("#details").inner_text().startswith("byte 1: 0x62 b")
    page.keyboard.press("End")
    last = len(text_of(page)) - 1
    assert page.locator("#details").inner_text().startswith(f"byte {last}:")
    page.keyboard.press("ArrowUp")
    assert not page.locator("#details").inner_text().startswith(f"byte {last}:")
    page.keyboard.press("Meta+Enter")  # on a Mac
    page.locator("#stop:enabled").wait_for()
    page.keyboard.press("Escape")
    page.locator("#go-on:enabled").wait_for()


def test_every_control_has_a_name(page, server):
    server.models = [completions.describe("one"), completions.describe("two")]
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    write(page, "abc", length=20)
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    controls = {}
    for node in tree:
        role = node.get("role", {}).get("value")
        if not node["ignored"] and role in (
            "button", "textbox", "slider", "spinbutton", "combobox", "group", "toolbar", "region"
        ):  # fmt: skip
            controls.setdefault(role, []).append(node.get("name", {}).get("value", ""))
    assert all(name for names in controls.values() for name in names), controls
    assert {"Prompt", "Cell"} <= set(controls["textbox"])
    assert controls["slider"] == ["Temperature", "Top-p"]
    assert controls["spinbutton"] == ["Length", "Seed"]
    assert controls["combobox"] == ["Model"]
    assert {"Write", "Stop", "Go on", "Copy", "Clear"} <= set(controls["button"])
    live = page.locator("[aria-live=polite], [role=status]")
    assert live.count() >= 2 and page.locator("#text[aria-live]").count() == 0


CONTRASTS = """() => {
  const parse = (colour) => {
    const [r, g, b, a = 1] = colour.match(/[\\d.]+/g).map(Number);
    const scale = colour.startsWith('color(') ? 255 : 1; // of color-mix()
    return { rgb: [r * scale, g * scale, b * scale], a }; };
  const over = (top, under) => top.rgb.map((c, i) => c * top.a + under[i] * (1 - top.a));
  const behind = (made) => {
    if (!made) return [255, 255, 255];
    const { backgroundColor } = getComputedStyle(made);
    return over(parse(backgroundColor), behind(made.parentElement)); };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map((c) => (
      c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const made = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim()) continue;
    if (!made.checkVisibility() || made.closest(':disabled, script')) continue;
    let back = behind(made);
    const glow = made.closest('.lamp')?.querySelector('.glow');
    if (glow) back = over(parse(getComputedStyle(glow).backgroundColor), back);
    const front = over(parse(getComputedStyle(made).color), back);
    const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
    const mark = made.closest('.break') ? 1.5 : 1; // a sign, not a text: 3 is enough
    found.push([mark * (a + 0.05) / (b + 0.05), walker.currentNode.data.trim().slice(0, 30)]);
  }
  return found.sort((x, y) => x[0] - y[0]).slice(0, 5); }"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read(open_page, server, scheme, monkeypatch):
    """Contrasts of at least 4.5, on the strongest colours too."""
    monkeypatch.setattr(completions, "logprob", lambda byte, place: -9.0)
    monkeypatch.setattr(completions, "cell_state", lambda name, byte, place: [-1, 1][place % 2])
    page = open_page(server.url, color_scheme=scheme, reduced_motion="reduce")
    for length in (20, 21):
        write(page, "abc \x01\n", length=length)
        page.locator(".byte").first.hover()
        for name in ("surprise", "cell", "none"):
            page.locator(f"[data-colour={'nothing' if name == 'none' else name}]").click()
            worst = page.evaluate(CONTRASTS)
            assert worst[0][0] >= 4.5, (name, worst)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_phones_and_desktops(open_page, server, width, scheme):
    server.models = [completions.describe("a-very-long-name-of-a-model_" * 5), *server.models]
    page = open_page(server.url, width=width, height=780, color_scheme=scheme, has_touch=True)
    write(page, "x" * 400, length=300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 150) == (scheme == "dark")
    text = page.locator("#text").bounding_box()
    assert text["width"] > 0.55 * width and text["height"] > 200
    assert 0 <= text["y"] < 780 - text["height"] / 2  # it was scrolled into view
    page.locator(".byte").nth(5).tap()
    assert page.locator("#details").inner_text().startswith("byte 5:")
    sizes = page.evaluate(
        """[...document.querySelectorAll('button, input, select, textarea')]
           .filter(made => made.checkVisibility())
           .map(made => { const box = made.getBoundingClientRect();
             return Math.min(box.width, box.height); })"""
    )
    assert min(sizes) >= 24  # a finger's


def test_less_motion_if_the_reader_asks_for_it(open_page, server):
    server.pause = 0.2
    for wish, moves in (("reduce", False), ("no-preference", True)):
        page = open_page(server.url, reduced_motion=wish)
        page.locator("#prompt").fill("abc")
        page.get_by_role("button", name="Write").click()
        wait_until(page, "document.querySelectorAll('.byte').length > 3")
        style = page.evaluate(
            """[getComputedStyle(document.querySelector('.line:last-child'), '::after')
                .animationName, getComputedStyle(document.querySelector('.glow'))
                .transitionDuration]"""
        )
        assert (style[0] != "none") == moves and (style[1] != "0s") == moves
        page.keyboard.press("Escape")
        page.locator("#go-on:enabled").wait_for()


def test_bytes_that_the_model_does_not_know_are_named(page, server):
    server.models = [completions.describe("letters", b"\n abc")]
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    page.locator("#prompt").fill("a é\tb<c ü" + "😀")
    page.get_by_role("button", name="Write").click()
    said = page.locator("#notice").inner_text()
    for name in ("0xC3 0xA9 é", "0x09 tab", "0x3C <", "0xC3 0xBC ü", "0xF0 0x9F 0x98 0x80 😀"):
        assert name in said
    assert server.requests == []
    page.get_by_role("button", name="Leave them out").click()
    assert page.locator("#prompt").input_value() == "a bc "
    assert page.locator("#notice").is_hidden()
    server.models = [completions.describe("the-model")]


def test_errors_of_the_server_are_shown_and_what_was_written_stays(page, server):
    server.failure = (503, "all 64 places are taken: try again in a moment")
    page.locator("#length").fill("40")
    page.locator("#prompt").fill("abc")
    page.get_by_role("button", name="Write").click()
    page.locator("#notice").wait_for()
    assert page.locator("#notice").inner_text() == server.failure[1]
    server.failure = (None, "the model was removed")
    page.get_by_role("button", name="Write").click()
    wait_until(page, "document.getElementById('notice').textContent.includes('removed')")
    assert text_of(page) == "abc" + continuation("abc", 2, server.requests[-1]["seed"])
    server.failure, server.breaks_after = None, 20
    page.get_by_role("button", name="Write").click()
    wait_until(page, "document.getElementById('notice').textContent.includes('before it was')")
    written = text_of(page)
    assert len(written) == 20
    server.breaks_after = None
    page.get_by_role("button", name="Go on").click()
    page.locator("#go-on:enabled").wait_for()
    assert text_of(page).startswith(written) and len(text_of(page)) == 60
    assert page.locator("#notice").is_hidden()
    del page.complaints[:]  # Chromium notes the answer 503


def test_a_server_that_goes_away_is_named_and_found_again(open_page):
    with completions.serving(play.render_served()) as server:
        page = open_page(server.url)
        write(page, "abc", length=20)
    page.get_by_role("button", name="Go on").click()
    page.locator("#notice").wait_for()
    assert "The server cannot be reached" in page.locator("#notice").inner_text()
    assert len(text_of(page)) == 23 and page.locator("#go-on").is_enabled()
    del page.complaints[:]


def test_without_models_there_is_a_way_to_try_again(page, server):
    server.models = []
    page.reload()
    page.wait_for_selector("html[data-ready=yes]")
    assert "no model" in page.locator("#notice").inner_text()
    assert page.locator("#write").is_disabled()
    server.models = [completions.describe("late")]
    page.get_by_role("button", name="Try again").click()
    page.locator("#write:enabled").wait_for()
    assert page.locator("h1").inner_text() == "late"


def test_a_key_is_asked_for_and_kept_in_memory_only(server, open_page):
    server.key = "sésame 1"
    page = open_page(server.url)
    assert page.locator("#key-form").is_visible()
    assert page.evaluate("document.activeElement.id") == "key"
    page.locator("#key").fill("wrong")
    page.locator("#key").press("Enter")
    wait_until(page, "document.getElementById('key-says').textContent.includes('wrong')")
    server.key = "sesame"
    page.locator("#key").fill("sesame")
    page.locator("#key").press("Enter")
    page.locator("#write:enabled").wait_for()
    assert page.locator("#key-form").is_hidden()
    write(page, "abc", length=20)
    assert len(text_of(page)) == 23
    kept = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    assert page.evaluate(kept) == '[{},{},""]'
    assert page.locator("#key").input_value() == ""
    del page.complaints[:]  # Chromium notes the answers 401


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


def test_bad_settings_are_not_sent(page, server):
    page.locator("#prompt").fill("abc")
    for name, value in (("length", "0"), ("length", ""), ("seed", "-1"), ("seed", "4294967296")):
        before = page.locator(f"#{name}").input_value()
        page.locator(f"#{name}").fill(value)
        page.get_by_role("button", name="Write").click()
        assert page.evaluate("document.activeElement.id") == name
        page.locator(f"#{name}").fill(before)
    assert server.requests == []


def test_the_page_is_small_and_names_no_other_address():
    text = play.render_served()
    assert len(text) < 80_000  # no library of charts
    assert not re.findall(r"https?://", text)
