"""One file of HTML with everything in it: style, scripts, data. Nothing is ever fetched.

Whatever text a page shows is untrusted. It reaches the page in one of three ways, each safe: by a
template that escapes, as JSON that cannot end its element, or as base64 of compressed bytes. On top
of that the page's own policy lets run only the scripts whose hashes it names, and forbids every
request.
"""

import base64
import functools
import hashlib
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from charlstm.errors import UserError
from charlstm.files import replace_file

ASSETS = Path(__file__).parent / "assets"


def render(
    template: str,
    *,
    scripts: Sequence[str],
    data: Any,
    blobs: Mapping[str, bytes] | None = None,
    **context: Any,
) -> str:
    """A page.

    Args:
      template: its name among the assets; it extends `base.html`.
      scripts: assets that are run one after the other in one scope, after the chart library.
      data: plain JSON values, for the scripts.
      blobs: bytes for the scripts, by name.
      context: for the template.
    """
    own = "\n".join(_asset(name) for name in scripts)
    run = [charts_library(), f"(async () => {{\n'use strict';\n{own}\n}})();"]
    return (
        _templates()
        .get_template(template)
        .render(
            data=data,
            blobs={name: _packed(content) for name, content in (blobs or {}).items()},
            scripts=[Markup(script) for script in run],
            policy=_policy(run),
            style=Markup(_asset("style.css")),
            **context,
        )
    )


def write(path: Path, page: str) -> None:
    """Writes a page so that whoever opens it meanwhile sees the one before or this one, whole.

    Raises:
      UserError: it cannot be written.
    """
    try:
        replace_file(path, page)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}): choose another --output=FILE.html"
        ) from error


@functools.cache
def charts_library() -> str:
    """The script of Vega, Vega-Lite and vega-embed, which sets `vegaEmbed`."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("\r", "").replace("</script", "<\\/script")


@functools.cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


@functools.cache
def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")


def _packed(content: bytes) -> str:
    """Bytes in base64, compressed (the browser's `deflate`)."""
    return base64.b64encode(zlib.compress(content, 6)).decode()


def _policy(scripts: Sequence[str]) -> str:
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {hashes}"
