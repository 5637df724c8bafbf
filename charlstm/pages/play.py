"""Renders the page to write with: a prompt, text that streams in, and the model's cells.

One page has two back ends. The served one asks charlstm's server at its own address; the static one
has the model in it, and runs it in the browser.
"""

from charlstm.pages import html

PAGE = ("play_trace.js", "play_text.js", "play_cells.js", "play_writing.js", "play.js")
STYLES = ("style.css", "play.css")
# No form is sent anywhere: scripts act on them.
FORMS = {"base-uri": "'none'", "form-action": "'none'"}


def render_served() -> str:
    """Renders the page that a server shows at its root; it asks `v1/models` beside itself."""
    return html.render(
        "play.html",
        scripts=("bytes.js", "play_back_end.js", "play_server.js", *PAGE),
        styles=STYLES,
        libraries=(),
        allowed={"connect-src": "'self'", **FORMS},
        data={},
        about=None,
    )
