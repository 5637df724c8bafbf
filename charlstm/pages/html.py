"""Renders HTML pages as single files with style, scripts and data; they never fetch anything.

All text that a page shows is untrusted. It reaches the page in one of three safe ways: through a
template that escapes it, as JSON that cannot end its element, or as base64 of compressed bytes. In
addition, the page's content security policy allows only the scripts whose hashes it names, and
forbids every request but those that a page asks for.
"""

import base64
import functools
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from charlstm.runtime.names import printable
from charlstm.storage import outputs

ASSETS = Path(__file__).parent / "assets"


@functools.cache
def charts_library() -> str:
    """Returns the script of Vega, Vega-Lite and vega-embed, which sets `vegaEmbed`."""
    import vl_convert

    bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("\r", "").replace("</script", "<\\/script")


def render(
    template: str,
    *,
    scripts: Sequence[str],
    data: Any,
    blobs: Mapping[str, bytes] | None = None,
    styles: Sequence[str] = ("style.css",),
    libraries: Sequence[Callable[[], str]] = (charts_library,),
    allowed: Mapping[str, str] | None = None,
    **context: Any,
) -> str:
    """Renders a page.

    Args:
      template: the name of an asset that extends `base.html`.
      scripts: assets that run one after the other in one scope, after the libraries.
      data: plain JSON values for the scripts and the template.
      blobs: bytes for the scripts, by name.
      styles: assets, one after the other.
      libraries: return the scripts that run first, each as it is.
      allowed: what the content security policy allows beside the scripts, by directive.
      context: variables of the template.
    """
    own = "\n".join(_asset(name) for name in scripts)
    run = [library() for library in libraries]
    run.append(f"(async () => {{\n'use strict';\n{own}\n}})();")
    return (
        _templates()
        .get_template(template)
        .render(
            data=data,
            blobs={name: _packed(content) for name, content in (blobs or {}).items()},
            scripts=[Markup(script) for script in run],
            policy=_policy(run, allowed or {}),
            style=Markup("\n".join(_asset(name) for name in styles)),
            **context,
        )
    )


def write(path: Path, page: str) -> None:
    """Replaces a page in one step: a reader sees the whole old page or the whole new one.

    Bytes of a file's name that are not UTF-8 come out as escapes.

    Raises:
      UserError: the page cannot be written.
    """
    outputs.write(path, printable(page), "another --output=FILE.html")


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
    """Returns bytes compressed (as the browser's `deflate`) and in base64."""
    return base64.b64encode(zlib.compress(content, 6)).decode()


def _policy(scripts: Sequence[str], allowed: Mapping[str, str]) -> str:
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    directives = {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "img-src": "data:",
        "script-src": hashes,
    }
    for name, sources in allowed.items():
        directives[name] = " ".join(filter(None, (directives.get(name), sources)))
    return "; ".join(f"{name} {sources}" for name, sources in directives.items())
