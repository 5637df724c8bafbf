"""Serves models over HTTP: the OpenAI completions protocol, and a page to write with.

  charlstm serve runs/quickstart
  charlstm serve runs/a runs/b --port=8000 --api_key_file=keys.txt

Clients of that protocol work unchanged with the base URL http://127.0.0.1:8000/v1. A token is a
byte. /ready answers 200 once all is compiled; /health, /metrics and /v1/models are there too.
SIGTERM and Ctrl-C end the server when what it has begun is finished; a second one ends it at once.
docs/serving.md says more.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

from charlstm.commands import _checkpoint, _dtype, _flags
from charlstm.errors import UserError
from charlstm.serving import signals, sockets
from charlstm.storage import paths

_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; 0.0.0.0 is every one.")
_PORT = flags.DEFINE_integer("port", 8000, "Port to listen at; 0 takes a free one.", 0, 65535)
_API_KEY_FILE = _flags.define_path(
    "api_key_file", None, "File with the keys of clients, one a line; without it nobody needs one."
)
_MAX_BATCH = flags.DEFINE_integer("max_batch", 64, "Texts made side by side.", 1, 512)
_MAX_WAITING = flags.DEFINE_integer(
    "max_waiting", 1024, "Texts that may wait for a place; more are refused (429).", 1
)
_MAX_PROMPT_BYTES = flags.DEFINE_integer(
    "max_prompt_bytes", 1_000_000, "Bytes of a request's prompts.", 1
)
_MAX_NEW_BYTES = flags.DEFINE_integer("max_new_bytes", 1_000_000, "Bytes made for a text.", 1)
_MAX_SECONDS = _flags.define_number("max_seconds", 600.0, "Seconds that a request may take.", 0.01)
_CACHE_MB = flags.DEFINE_integer(
    "prompt_cache_mb", 64, "Memory for the states of prompts that may come again, per model.", 0
)
_WATCH = _flags.define_number(
    "watch", None, "Look every so many seconds for a better checkpoint, and take it.", 0.1
)


def main(argv: Sequence[str]) -> None:
    """Serves as the arguments say."""
    given = _models(argv)
    keys = _keys(_API_KEY_FILE.value)
    _require_extra()
    # Before JAX is loaded, which takes a while.
    ends_by = signals.Signals()
    listening = sockets.listen(_HOST.value, _PORT.value)
    import jax

    from charlstm.pages import play
    from charlstm.runtime import meshes, xla
    from charlstm.serving import served, server
    from charlstm.serving.protocol import Limits
    from charlstm.serving.service import Service

    # The engines' threads would else wait up to 5 ms for the interpreter while requests are read.
    sys.setswitchinterval(0.0002)
    xla.keep_compiled_programs()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    meshes.make_sampling_mesh(64)  # a device for each core
    options = served.Options(_dtype.COMPUTE_DTYPE.value, _MAX_BATCH.value, _CACHE_MB.value * 2**20)
    models = served.load(given, options)
    limits = Limits(
        _MAX_PROMPT_BYTES.value, _MAX_NEW_BYTES.value, _MAX_WAITING.value, _MAX_SECONDS.value
    )
    service = Service(models, limits, keys, play.render_served())
    if not keys and _HOST.value not in ("127.0.0.1", "localhost", "::1"):
        who = "everybody who reaches this machine may use this server"
        logging.warning("--host=%s: %s; --api_key_file asks for keys", _HOST.value, who)

    def tell() -> None:
        for name, model in models.items():
            logging.info("%s: %s, %s", name, model.in_words(), paths.shown(model.folder))
        print(f"serving at {sockets.address_of(listening)}", flush=True)

    server.serve(service, listening, ends_by, _MAX_SECONDS.value, _WATCH.value, tell)


def _models(argv: Sequence[str]) -> list[str]:
    """Returns the paths of the models.

    Raises:
      UserError: there is none, or they are given in two ways.
    """
    if not argv[1:] and not _checkpoint.CHECKPOINT.value:
        raise UserError("no model is named: charlstm serve RUN, or charlstm serve shakespeare")
    if not argv[1:]:
        return [_checkpoint.required()]
    if _checkpoint.CHECKPOINT.value:
        raise UserError(
            f"give the models without --checkpoint: charlstm serve {' '.join(argv[1:])}"
        )
    return [_flags.expanded(path) for path in argv[1:]]


def _keys(path: str | None) -> frozenset[str]:
    """Returns the keys of a file.

    Raises:
      UserError: it cannot be read, or has none.
    """
    if path is None:
        return frozenset()
    try:
        lines = Path(path).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"--api_key_file={path}: {reason}") from error
    keys = frozenset(line.strip() for line in lines if line.strip())
    if not keys:
        raise UserError(f"--api_key_file={path} has no key: write one a line")
    if not all(key.isascii() and key.isprintable() and " " not in key for key in keys):
        raise UserError(
            f"--api_key_file={path}: a key may have letters, digits and signs of ASCII, and no "
            "blanks: HTTP carries no others"
        )
    return keys


def _require_extra() -> None:
    try:
        import prometheus_client  # noqa: F401
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"charlstm serve needs {error.name}: pip install 'charlstm[serve]'"
        ) from error
