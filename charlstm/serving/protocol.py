"""What a client may ask for: requests of the OpenAI completions protocol, checked.

A token is a byte. A prompt is text, which is read as UTF-8, or a list of byte values.
"""

import dataclasses
import json
import re
from typing import Any

from charlstm.errors import UserError
from charlstm.sampling.settings import Settings
from charlstm.serving.batches import MOST_CELLS

MOST_CHOICES = 128
MOST_LOGPROBS = 20
MOST_STOPS = 16
_CELL = re.compile(r"(\d{1,4}):(\d{1,6})")
# Fields of the protocol that would change the text, and the values at which they do not.
_NEUTRAL = {
    "suffix": (None, ""),
    "best_of": (None, 1),
    "logit_bias": (None, {}),
    "presence_penalty": (None, 0),
    "frequency_penalty": (None, 0),
}


class Refusal(Exception):
    """A request that is not answered, and why.

    Args:
      message: what is wrong, and what to do.
      status: of HTTP.
      kind: of the error, in the protocol's words.
      code: of the error, if it has one.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        kind: str = "invalid_request_error",
        code: str | None = None,
    ):
        super().__init__(message)
        self.status = status
        self.content = {"error": {"message": message, "type": kind, "param": None, "code": code}}


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
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"the request is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise Refusal('the request must be a JSON object, such as {"prompt": "ROMEO:"}')
    for name, neutral in _NEUTRAL.items():
        if values.get(name) not in neutral:
            raise Refusal(f"{name} is not supported: leave it out")
    fields = _Fields(values)
    options = values.get("stream_options") or {}
    if not isinstance(options, dict):
        raise Refusal("stream_options must be an object")
    try:
        settings = Settings(
            fields.number("temperature", 1.0, 0, 1e6),
            fields.whole("top_k", 0, -1, 2**30) % (2**30 + 1) if values.get("top_k") != -1 else 0,
            fields.number("top_p", 1.0, 0, 1),
        )
    except UserError as error:
        raise Refusal(str(error)) from error
    prompts = _prompts(values.get("prompt"))
    if sum(map(len, prompts)) > limits.prompt_bytes:
        raise Refusal(
            f"the prompt has {sum(map(len, prompts)):,} bytes, and this server reads up to "
            f"{limits.prompt_bytes:,}: shorten it",
            code="context_length_exceeded",
        )
    seed = fields.whole("seed", None, -(2**63), 2**64)
    request = Request(
        model=fields.text("model"),
        prompts=prompts,
        max_tokens=fields.whole("max_tokens", 16, 0, limits.new_bytes),
        settings=settings,
        n=fields.whole("n", 1, 1, MOST_CHOICES),
        stops=_stops(values.get("stop")),
        seed=None if seed is None else seed % 2**32,
        echo=fields.flag("echo"),
        logprobs=fields.whole("logprobs", None, 0, MOST_LOGPROBS),
        stream=fields.flag("stream"),
        include_usage=options.get("include_usage") is True,
        cells=_cells(values.get("cells")),
    )
    if len(prompts) * request.n > limits.waiting:
        raise Refusal(
            f"{len(prompts)} prompts with n={request.n} are more texts than this server lets wait, "
            f"{limits.waiting}: ask for fewer at a time"
        )
    return request


class _Fields:
    """The fields of a request; one that is missing or null has its default."""

    def __init__(self, values: dict[str, Any]):
        self._values = values

    def whole(self, name: str, default: Any, least: int, most: int) -> Any:
        value = self._values.get(name)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise Refusal(f"{name}={_shown(value)} must be a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float, least: float, most: float) -> float:
        value = self._values.get(name)
        if value is None:
            return default
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not least <= value <= most:
            raise Refusal(f"{name}={_shown(value)} must be a number from {least:g} to {most:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        value = self._values.get(name)
        if value not in (None, True, False) or isinstance(value, int | float) != isinstance(
            value, bool
        ):
            raise Refusal(f"{name}={_shown(value)} must be true or false")
        return bool(value)

    def text(self, name: str) -> str | None:
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise Refusal(f"{name}={_shown(value)} must be a text")
        return value


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
        return _encoded(value, "prompt")
    if isinstance(value, list) and _is_bytes(value):
        try:
            return bytes(value)
        except ValueError as error:
            raise Refusal("a token of a prompt is a byte: a whole number from 0 to 255") from error
    raise Refusal("prompt must be a text, a list of byte values, or a list of these")


def _is_bytes(values: list[Any]) -> bool:
    return all(type(value) is int for value in values)


def _encoded(text: str, name: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Refusal(f"{name} has half of a surrogate pair, which is no character") from error


def _stops(value: Any) -> tuple[bytes, ...]:
    stops = [value] if isinstance(value, str) else value or []
    if not isinstance(stops, list) or len(stops) > MOST_STOPS:
        raise Refusal(f"stop must be a text or a list of up to {MOST_STOPS} texts")
    if not all(isinstance(stop, str) and stop for stop in stops):
        raise Refusal("every stop must be a text of at least one character")
    return tuple(_encoded(stop, "stop") for stop in stops)


def _cells(value: Any) -> tuple[tuple[int, int], ...]:
    cells = value or []
    if not isinstance(cells, list) or len(cells) > MOST_CELLS:
        raise Refusal(f'cells must be a list of up to {MOST_CELLS}, such as ["0:17"]')
    matches = [_CELL.fullmatch(cell) if isinstance(cell, str) else None for cell in cells]
    found = tuple((int(match[1]), int(match[2])) for match in matches if match)
    if len(found) < len(cells):
        raise Refusal('a cell is written "LAYER:CELL", both counted from 0')
    return found


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
