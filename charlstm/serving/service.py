"""Holds what all requests share: the models, the limits, the keys, and the counts."""

import hmac
from collections.abc import Mapping

from charlstm.serving.engine import Engine
from charlstm.serving.fields import Refusal, shown
from charlstm.serving.metrics import Metrics
from charlstm.serving.protocol import Limits, Request
from charlstm.serving.served import Served
from charlstm.serving.work import Work


class Service:
    """Holds what all requests share.

    Args:
      models: by name.
      limits: of what a client may ask for.
      keys: of which a client must have one, in ASCII; none lets everybody in.
      page: the HTML at `/`.
    """

    def __init__(
        self, models: Mapping[str, Served], limits: Limits, keys: frozenset[str], page: str
    ):
        self.models, self.limits, self.page = models, limits, page
        self._keys = [key.encode() for key in keys]
        self.metrics = Metrics(lambda: {name: model.engine for name, model in models.items()})
        self.is_ending = False

    @property
    def is_ready(self) -> bool:
        """True if every model is compiled and no end is near."""
        engines = [model.engine for model in self.models.values()]
        return not self.is_ending and all(e.is_ready and not e.has_failed for e in engines)

    @property
    def failed(self) -> list[str]:
        """The names of the models that can make no more texts."""
        return [name for name, model in self.models.items() if model.engine.has_failed]

    def require_key(self, authorization: str) -> None:
        """Raises `Refusal` if a key is needed and the header has none of them."""
        kind, _, given = authorization.partition(" ")
        known = [hmac.compare_digest(key, given.strip().encode()) for key in self._keys]
        if self._keys and not (kind.lower() == "bearer" and any(known)):
            raise Refusal(
                "no valid API key was given: send it as `Authorization: Bearer KEY`",
                401,
                code="invalid_api_key",
            )

    def model(self, name: str | None) -> Served:
        """Returns a model; None stands for the only one.

        Raises:
          Refusal: there is no such model.
        """
        if name is None and len(self.models) == 1:
            return next(iter(self.models.values()))
        if name is None or name not in self.models:
            asked = "a model must be named" if name is None else f"there is no model {shown(name)}"
            raise Refusal(
                f"{asked}; the models are {', '.join(self.models)}", 404, code="model_not_found"
            )
        return self.models[name]

    def begin(self, request: Request) -> tuple[str, Work]:
        """Hands the texts of a request to their model's engine; returns the model's name and them.

        Raises:
          Refusal: the model does not know a byte of a prompt, has no such cell, or is too busy.
        """
        served = self.model(request.model)
        while True:
            engine = served.engine
            self._require_room(engine, len(request.prompts) * request.n)
            work = Work(engine, request, self.limits)
            if engine.submit(work.texts):
                return served.name, work
            # A better checkpoint has just taken its place, or it has failed.

    def _require_room(self, engine: Engine, count: int) -> None:
        if engine.has_failed:
            raise Refusal("the model has failed: the server's log says why", 500, "server_error")
        if self.is_ending or not engine.is_ready:
            state = "ending" if self.is_ending else "still starting"
            raise Refusal(f"the server is {state}: try again", 503, "server_error")
        waiting = engine.num_waiting
        if waiting + count > self.limits.waiting:
            raise Refusal(
                f"{waiting} texts are waiting already: try again later",
                429,
                "rate_limit_error",
                "too_many_waiting",
            )
