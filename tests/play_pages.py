"""What tests of the page to write with share: what is typed, and what is shown."""


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


def cells_of(page):
    """What is shown of each cell."""
    names = page.locator(".lamp .label").all_inner_texts()
    return dict(zip(names, page.locator(".lamp .value").all_inner_texts(), strict=True))
