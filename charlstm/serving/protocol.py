"""What a client may ask for: requests of the OpenAI completions protocol, checked.

A token is a byte. A prompt is text, which is read as UTF-8, or a list of byte values.
"""

import dataclasses
import re
from typing import Any

from charlstm.errors import UserError
from charlstm.sampling.settings import Settings
from charlstm.serving.batches import MOST_CELLS
from charlstm.serving.fields import Fields, Refusal, encoded, read_object

MOST_CHOICES = 128
MOST_LOGPROBS = 20
MOST_STOPS = 16
MOST_STOP_BYTES = 1000
# Log probabilities and states of cells in an answer that is sent at once, 20 bytes each.
MOST_NUMBERS = 2**21
_CELL = re.compile(r"(\d{1,4}):(\d{1,6})")
# Fields of the protocol, and of other servers that speak it, that would change the text, and the
# values at which they do not.
_NEUTRAL = {
    "suffix": (None, ""),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
    "repetition_penalty": (None, 1),
    "min_p": (None, 0),
    "min_tokens": (None, 0),
}


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server lets a client ask for.

    Attributes:
      prompt_bytes: of all prompts of a request together.
      new_bytes: that a text may have.
      waiting: texts of all clients that may wait for a place.
      seconds: that a request may take.
    """

    prompt_bytes: int = 1_000_000
    new_bytes: int = 1_000_000
    waiting: int = 1024
    seconds: float = 600.0

    @property
    def body_bytes(self) -> int:
        """The largest request: a byte of a prompt takes up to six in JSON."""
        return 2**16 + 6 * self.prompt_bytes


@dataclasses.dataclass(frozen=True)
class Request:
    """A request for completions.

    Attributes:
      model: the name of the model; None for the only one.
      prompts: each of at least one byte, or empty, which stands for the default prompt.
      max_tokens: how many bytes to make.
      settings: how they are drawn.
      n: texts for each prompt.
      stops: byte strings that end a text.
      seed: of the random numbers; None takes one at random.
      echo: True if a text begins with its prompt.
      logprobs: how many of the likeliest bytes to tell at each place; None for no probabilities.
      stream: True if the text is sent as it is made.
      include_usage: True if a stream ends with the usage.
      cells: (layer, cell) whose states are to be told, counted from 0.
    """

    model: str | None
    prompts: list[bytes]
    max_tokens: int
    settings: Settings
    n: int
    stops: tuple[bytes, ...]
    seed: int | None
    echo: bool
    logprobs: int | None
    stream: bool
    include_usage: bool
    cells: tuple[tuple[int, int], ...]


def parse(body: bytes, limits: Limits) -> Request:
    """Reads a request.

    Raises:
      Refusal: it is no JSON object, a field is of the wrong type or out of range, or it asks for
        what this server does not do.
    """
    values = read_object(body, '{"prompt": "ROMEO:"}')
    fields = Fields(values)
    n = fields.whole("n", 1, 1, MOST_CHOICES)
    for name, neutral in (_NEUTRAL | {"best_of": (None, 1, n)}).items():
        if values.get(name) not in neutral:
            raise Refusal(f"{name} is not supported: leave it out")
    options = values.get("stream_options")
    if not isinstance(options, dict | None):
        raise Refusal("stream_options must be an object")
    try:
        settings = Settings(
            fields.number("temperature", 1.0, 0, 1e6),
            max(0, fields.whole("top_k", 0, -1, 2**30)),
            fields.number("top_p", 1.0, 0, 1),
        )
    except UserError as error:
        raise Refusal(str(error)) from error
    seed = fields.whole("seed", None, -(2**63), 2**64)
    request = Request(
        model=fields.text("model"),
        prompts=_prompts(values.get("prompt")),
        max_tokens=fields.whole("max_tokens", 16, 0, limits.new_bytes),
        settings=settings,
        n=n,
        stops=_stops(values.get("stop")),
        seed=None if seed is None else seed % 2**32,
        echo=fields.flag("echo"),
        logprobs=fields.whole("logprobs", None, 0, MOST_LOGPROBS),
        stream=fields.flag("stream"),
        include_usage=Fields(options or {}).flag("include_usage"),
        cells=_cells(values.get("cells")),
    )
    _require_fits(request, limits)
    return request


def _require_fits(request: Request, limits: Limits) -> None:
    """Raises `Refusal` if a request is larger than this server takes."""
    prompt_bytes = sum(map(len, request.prompts))
    num_texts = len(request.prompts) * request.n
    if prompt_bytes > limits.prompt_bytes:
        raise Refusal(
            f"the prompt has {prompt_bytes:,} bytes, and this server reads up to "
            f"{limits.prompt_bytes:,}: shorten it",
            code="context_length_exceeded",
        )
    if num_texts > limits.waiting:
        raise Refusal(
            f"{len(request.prompts)} prompts with n={request.n} are more texts than this server "
            f"lets wait, {limits.waiting}: ask for fewer at a time"
        )
    told = 0 if request.logprobs is None else 1 + request.logprobs
    echoed = prompt_bytes * request.n if request.echo else 0
    numbers = (told + len(request.cells)) * (echoed + num_texts * request.max_tokens)
    if numbers > MOST_NUMBERS and not request.stream:
        raise Refusal(
            f"logprobs and cells of so many bytes are {numbers:,} numbers, and this server sends "
            f"up to {MOST_NUMBERS:,} at once: ask for fewer, or set stream"
        )


def parse_prompt(body: bytes) -> bytes:
    """Reads a request for the tokens of a text; returns its bytes.

    Raises:
      Refusal: it is no JSON object, or `prompt` is no text.
    """
    prompt = Fields(read_object(body, '{"prompt": "ROMEO:"}')).text("prompt")
    if prompt is None:
        raise Refusal("prompt is missing: give a text")
    return encoded(prompt, "prompt")


def parse_tokens(body: bytes) -> bytes:
    """Reads a request for the text of tokens; returns their bytes.

    Raises:
      Refusal: it is no JSON object, or `tokens` are no byte values.
    """
    tokens = read_object(body, '{"tokens": [82, 79]}').get("tokens")
    if not isinstance(tokens, list):
        raise Refusal("tokens must be a list of byte values")
    return _prompt(tokens)


def _prompts(value: Any) -> list[bytes]:
    if value is None:
        return [b""]
    if isinstance(value, str) or (isinstance(value, list) and value and _is_bytes(value)):
        return [_prompt(value)]
    if isinstance(value, list) and value:
        return [_prompt(one) for one in value]
    raise Refusal("prompt must be a text, a list of byte values, or a list of these")


def _prompt(value: Any) -> bytes:
    if isinstance(value, str):
        return encoded(value, "prompt")
    if isinstance(value, list) and _is_bytes(value):
        try:
            return bytes(value)
        except ValueError as error:
            raise Refusal("a token of a prompt is a byte: a whole number from 0 to 255") from error
    raise Refusal("prompt must be a text, a list of byte values, or a list of these")


def _is_bytes(values: list[Any]) -> bool:
    return all(type(value) is int for value in values)


def _stops(value: Any) -> tuple[bytes, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise Refusal(f"stop must be a text or a list of up to {MOST_STOPS} texts")
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise Refusal("every stop must be a text of at least one character")
    found = tuple(encoded(stop, "stop") for stop in stops)
    if any(len(stop) > MOST_STOP_BYTES for stop in found):
        raise Refusal(f"a stop may have up to {MOST_STOP_BYTES} bytes: shorten it")
    return found


def _cells(value: Any) -> tuple[tuple[int, int], ...]:
    cells = [] if value is None else value
    if not isinstance(cells, list) or len(cells) > MOST_CELLS:
        raise Refusal(f'cells must be a list of up to {MOST_CELLS}, such as ["0:17"]')
    matches = [_CELL.fullmatch(cell) if isinstance(cell, str) else None for cell in cells]
    found = tuple((int(match[1]), int(match[2])) for match in matches if match)
    if len(found) < len(cells):
        raise Refusal('a cell is written "LAYER:CELL", both counted from 0')
    return found
