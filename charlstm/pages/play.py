"""Renders the page to write with: a prompt, text that streams in, and the model's cells.

One page has two back ends. The served one asks charlstm's server at its own address; the static one
has the model in it, and runs it in the browser.
"""

import dataclasses
from collections.abc import Sequence

from charlstm.pages import html

_PAGE = ("play_trace.js", "play_text.js", "play_cells.js", "play_writing.js", "play.js")
_STYLES = ("style.css", "play.css")
# No form is sent anywhere: scripts act on them.
_NO_FORMS = {"base-uri": "'none'", "form-action": "'none'"}


@dataclasses.dataclass(frozen=True)
class Model:
    """Describes a model to its page; the fields are those of `v1/models`, but for the name.

    Attributes:
      id: its name.
      num_layers, hidden_size: of its network.
      alphabet: its bytes, in the order of its symbols.
      num_parameters: how many it has.
      bits_per_byte: on validation, if it is known.
      reset_every: bytes after which the state is zero again, as in training; 0 for never.
    """

    id: str
    num_layers: int
    hidden_size: int
    alphabet: Sequence[int]
    num_parameters: int
    bits_per_byte: float | None = None
    reset_every: int = 0


@dataclasses.dataclass(frozen=True)
class Runtime:
    """Holds the library that runs a network in the browser.

    Attributes:
      version: of ONNX Runtime.
      script: sets `ort`; it is no module, and fetches nothing if `ort.env.wasm.wasmBinary` is set.
      wasm: its compiled part.
      licence: shown on the page.
    """

    version: str
    script: str
    wasm: bytes
    licence: str


def render_served() -> str:
    """Renders the page that a server shows at its root; it asks `v1/models` beside itself."""
    return html.render(
        "play.html",
        scripts=("bytes.js", "play_back_end.js", "play_server.js", *_PAGE),
        styles=_STYLES,
        libraries=(),
        allowed={"connect-src": "'self'", **_NO_FORMS},
        data={},
        about=None,
    )


def render_static(
    model: Model, network: bytes, runtime: Runtime, *, facts: Sequence[str], commands: Sequence[str]
) -> str:
    """Renders a page with a model in it; it needs nothing else, and may be opened from a disk.

    Args:
      model: what is in it.
      network: the model in ONNX; symbols [T, B], h0 and c0 [L, B, H] in, logits [T, B, V], h1 and
        c1 out.
      runtime: runs it.
      facts: what else is to be said of the model, such as the text that it was trained on.
      commands: made the model and the page.
    """
    back_end = ("play_back_end.js", "play_sampling.js", "play_onnx.js")
    return html.render(
        "play.html",
        scripts=("bytes.js", *back_end, *_PAGE),
        styles=_STYLES,
        libraries=(lambda: runtime.script,),
        allowed={"script-src": "'wasm-unsafe-eval'", **_NO_FORMS},
        data={"model": dataclasses.asdict(model) | {"alphabet": list(model.alphabet)}},
        blobs={"runtime": runtime.wasm, "network": network},
        about={
            "name": model.id,
            "facts": facts,
            "commands": commands,
            "runtime_version": runtime.version,
            "runtime_licence": runtime.licence,
        },
    )
