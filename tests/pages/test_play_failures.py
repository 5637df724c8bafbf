"""The page to write with when something is wrong: what is typed, or the server."""

import re

import completions
from completions import continuation
from conftest import wait_until
from play_pages import text_of, write

from charlstm.pages import play

NASTY = "<script>window.ran = 1</script><img src=x onerror='window.ran = 2'>"


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
