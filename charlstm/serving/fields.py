"""The fields of a request in JSON, and the refusal of what is wrong with them."""

import json
from typing import Any

TOOK_TOO_LONG = "took_too_long"  # the code of what is not worth another try


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
        self.status, self.code = status, code
        self.content = {"error": {"message": message, "type": kind, "param": None, "code": code}}


def read_object(body: bytes, example: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      Refusal: it is none.
    """
    try:
        values = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(f"the request is not valid JSON: {error}") from error
    if not isinstance(values, dict):
        raise Refusal(f"the request must be a JSON object, such as {example}")
    return values


class Fields:
    """The fields of an object; one that is missing or null has its default.

    Every method raises `Refusal` for a value of another type, or out of range.
    """

    def __init__(self, values: dict[str, Any]):
        self._values = values

    def whole(self, name: str, default: Any, least: int, most: int) -> Any:
        """Returns a whole number."""
        value = self._values.get(name)
        if value is None:
            return default
        if type(value) is not int or not least <= value <= most:
            raise Refusal(f"{name}={shown(value)} must be a whole number from {least} to {most}")
        return value

    def number(self, name: str, default: float, least: float, most: float) -> float:
        """Returns a number."""
        value = self._values.get(name)
        if value is None:
            return default
        if type(value) not in (int, float) or not least <= value <= most:
            raise Refusal(f"{name}={shown(value)} must be a number from {least:g} to {most:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """Returns True or False, which is the default."""
        value = self._values.get(name)
        if not isinstance(value, bool | None):
            raise Refusal(f"{name}={shown(value)} must be true or false")
        return bool(value)

    def text(self, name: str) -> str | None:
        """Returns a text; None if there is none."""
        value = self._values.get(name)
        if value is not None and not isinstance(value, str):
            raise Refusal(f"{name}={shown(value)} must be a text")
        return value


def encoded(text: str, name: str) -> bytes:
    """Returns a text in UTF-8; raises `Refusal` if it has none."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise Refusal(f"{name} has half of a surrogate pair, which is no character") from error


def shown(value: Any) -> str:
    """Returns a value of a request for a message, shortened."""
    if isinstance(value, list | dict):  # it may be deep
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
