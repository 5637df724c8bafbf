"""The values of fields that cannot be combined, in two tables with one message each."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from charlstm.errors import UserError

if TYPE_CHECKING:
    from charlstm.config.experiment import Config

# For each time loop, the values that it needs of other fields. The scan needs none.
NEEDED_BY_RECURRENCE: dict[str, dict[str, Any]] = {
    "scan_columns": {"layer_norm": False, "residuals": "gates"},
    "pallas_tpu": {"layer_norm": False, "residuals": "gates"},
    "pallas_gpu": {"layer_norm": False, "residuals": "gates"},
    "split": {"layer_norm": False, "residuals": "gates"},
    "wavefront": {"layer_norm": False, "residuals": "gates", "connections": "plain"},
    "cudnn": {
        "layer_norm": False,
        "residuals": "gates",
        "connections": "plain",
        "dropout": 0.0,
        "compute_dtype": "float32",
    },
}
WHY_NEEDED = {
    "layer_norm": "only the scan normalizes layers",
    "residuals": "only the scan can keep less",
    "connections": "it runs several layers at once, and nothing can come between them",
    "dropout": "it runs several layers at once, and nothing can come between them",
    "compute_dtype": "it computes in float32 only",
}


class Rule(NamedTuple):
    """One combination that is impossible.

    Attributes:
      forbids: returns True for a configuration that has it.
      message: names the fields and the cure; `{model.hidden_size}` stands for a field's value.
    """

    forbids: Callable[["Config"], bool]
    message: str


RULES = (
    Rule(
        lambda c: bool(c.model.hidden_size % c.mesh.model and not c.model.parameter_budget),
        "mesh.model={mesh.model} must divide model.hidden_size={model.hidden_size}: each device "
        "holds as many hidden units",
    ),
    Rule(
        lambda c: c.mesh.model > 1 and c.model.recurrence not in ("auto", "split"),
        "model.recurrence={model.recurrence} runs on whole layers and mesh.model={mesh.model} "
        "splits them: leave model.recurrence at auto",
    ),
    Rule(
        lambda c: c.model.connections != "plain" and c.model.num_layers == 1,
        "model.connections={model.connections} needs layers to connect, and model.num_layers=1: "
        "set model.connections=plain",
    ),
    Rule(
        lambda c: c.model.dropout > 0 and c.model.num_layers == 1,
        "model.dropout={model.dropout} must be 0 for a single layer: it acts between layers "
        "(model.num_layers=2 or more)",
    ),
    Rule(
        lambda c: c.model.recurrence == "cudnn" and c.model.num_layers == 1,
        "model.recurrence=cudnn runs the layers above the first, and model.num_layers=1 has none: "
        "set model.recurrence=scan",
    ),
    Rule(
        lambda c: c.model.recurrence == "pallas_gpu" and c.model.compute_dtype == "float32",
        "model.recurrence=pallas_gpu computes in bfloat16, not float32: set "
        "model.compute_dtype=bfloat16, or model.recurrence=scan",
    ),
    Rule(
        lambda c: c.optimizer.weight_decay > 0 and c.optimizer.name not in ("adamw", "sgd"),
        "optimizer.weight_decay={optimizer.weight_decay} must be 0 for "
        "optimizer.name={optimizer.name}: adamw and sgd have weight decay",
    ),
    Rule(
        lambda c: c.optimizer.averaging == "triggered" and not c.training.evaluate_every,
        "optimizer.averaging=triggered waits for the validation to stall, and "
        "training.evaluate_every=0 validates only at the end: set it to a number of updates",
    ),
    Rule(
        lambda c: c.training.temporal_activation_regularization > 0 and c.data.window_length == 1,
        "training.temporal_activation_regularization compares time steps, and "
        "data.window_length=1 has one: set it to 0, or choose longer windows",
    ),
    Rule(
        lambda c: (
            c.optimizer.schedule in ("cosine", "linear")
            and c.optimizer.warmup_updates >= c.training.num_updates
        ),
        "optimizer.warmup_updates={optimizer.warmup_updates} leaves nothing of "
        "training.num_updates={training.num_updates} for the {optimizer.schedule} schedule: make "
        "it smaller",
    ),
)


def require_possible(config: "Config") -> None:
    """Raises `UserError` for a configuration whose fields cannot be combined."""
    for rule in RULES:
        if rule.forbids(config):
            sections = {name: getattr(config, name) for name in config.to_json()}
            raise UserError(rule.message.format(**sections))
    is_split = config.mesh.model > 1
    name = "split" if is_split else config.model.recurrence
    asked = f"mesh.model={config.mesh.model}" if is_split else f"model.recurrence={name}"
    instead = "mesh.model=1" if is_split else "model.recurrence=auto"
    for field, value in NEEDED_BY_RECURRENCE.get(name, {}).items():
        found = getattr(config.model, field)
        if found != value:
            found, value = (str(v).lower() if isinstance(v, bool) else v for v in (found, value))
            raise UserError(
                f"{asked} does not go with model.{field}={found}: {WHY_NEEDED[field]}; set "
                f"model.{field}={value}, or {instead}"
            )
