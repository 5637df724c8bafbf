"""The page to write with is for everybody: by keyboard, on a phone, in the dark."""

import re

import completions
import pytest
from conftest import wait_until
from play_pages import text_of, write


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
    page.wait_for_timeout(500)  # it may still be scrolling
    text = page.locator("#text").bounding_box()
    assert text["width"] > 0.55 * width and text["height"] > 200
    assert text["y"] < 780 - text["height"] / 2  # it was scrolled into view, with its heading
    assert page.locator("#text-title").bounding_box()["y"] >= 0
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
