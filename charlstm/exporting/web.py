"""A page with the model in it, which a browser runs: it needs no server and makes no requests.

The page is the one that `charlstm serve` has, with the model as ONNX and ONNX Runtime inside.
"""

import shlex
from pathlib import Path

from charlstm.checkpoint.metadata import METRIC, UNKNOWN_CORPUS, Metadata
from charlstm.errors import UserError
from charlstm.exporting import extras, onnx
from charlstm.exporting import onnxruntime_web as runtimes
from charlstm.model.language_model import LanguageModel
from charlstm.pages import html, play
from charlstm.runtime.names import printable

PAGE = "index.html"


def write(
    model: LanguageModel,
    metadata: Metadata,
    output: Path,
    dtype: str,
    *,
    name: str,
    onnxruntime_web: str | None = None,
) -> list[str]:
    """Writes the page.

    Args:
      model, metadata: of the checkpoint.
      output: the folder, which gets an `index.html`; or a file whose name ends in .html.
      dtype: float32.
      name: of the model, on the page.
      onnxruntime_web: the file of the package of npm with that name, if one has it.

    Returns:
      Where the page is, and how large.

    Raises:
      UserError: the library `onnx` or the package is missing, or the page cannot be written.
    """
    page = output if output.suffix == ".html" else output / PAGE
    if page != output and output.exists() and not output.is_dir():
        raise UserError(
            f"--output={output} is a file: --format=web writes a folder with an {PAGE}, or a file "
            "whose name ends in .html"
        )
    extras.load("onnx", "web")
    content = render(model, metadata, name, onnxruntime_web)
    try:
        page.parent.mkdir(exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cannot make the folder {page.parent} ({error.strerror}): choose another --output"
        ) from error
    html.write(page, content)
    return [f"open {page} in a browser, or send it to somebody: {len(content) / 1e6:.1f} MB"]


def render(model: LanguageModel, metadata: Metadata, name: str, package: str | None = None) -> str:
    """Returns the page; the arguments are those of `write`."""
    num_layers, hidden_size = model.shape
    described = play.Model(
        id=printable(name),
        num_layers=num_layers,
        hidden_size=hidden_size,
        alphabet=list(model.alphabet.symbols),
        num_parameters=model.num_parameters,
        bits_per_byte=metadata.metrics.get(METRIC),
        reset_every=model.reset_every,
    )
    network = onnx.model_bytes(model, metadata)
    corpus = metadata.corpus["name"]
    facts, commands = [], [f"charlstm export {shlex.quote(printable(name))} --format=web"]
    if corpus != UNKNOWN_CORPUS["name"]:
        size, updates = metadata.corpus["num_bytes"], metadata.clock.get("updates", 0)
        facts.append(f"trained on {printable(corpus)}, {_size(size)}, with {updates:,} updates")
        commands.insert(0, f"charlstm train --corpus={shlex.quote(printable(corpus))}")
    return play.render_static(
        described,
        network,
        runtimes.load(package),
        facts=facts,
        commands=commands,
    )


def _size(num_bytes: int) -> str:
    for unit, factor in (("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= factor:
            return f"{num_bytes / factor:,.1f} {unit}"
    return f"{num_bytes} bytes"
