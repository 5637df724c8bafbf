"""One experiment's configuration: its sections together, and what they demand of each other."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Self

from charlstm.config.checking import parsed, unknown_field
from charlstm.config.sections import (
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)
from charlstm.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One experiment, whole."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        budget = self.model.parameter_budget
        if self.model.hidden_size % self.mesh.model and not budget:
            raise UserError(
                f"mesh.model={self.mesh.model} must divide model.hidden_size="
                f"{self.model.hidden_size}: each device holds as many hidden units"
            )
        if self.mesh.model > 1 and self.model.recurrence not in ("auto", "split"):
            raise UserError(
                f"model.recurrence={self.model.recurrence} runs on whole layers and mesh.model="
                f"{self.mesh.model} splits them: leave model.recurrence at auto"
            )
        if self.mesh.model > 1 and self.model.residuals != "gates":
            raise UserError(
                f"model.residuals={self.model.residuals} keeps less of whole layers and mesh.model="
                f"{self.mesh.model} splits them: set model.residuals=gates"
            )
        if self.mesh.model > 1 and self.model.layer_norm:
            raise UserError(
                f"model.layer_norm=true normalises over whole layers and mesh.model="
                f"{self.mesh.model} splits them: set mesh.model=1 (mesh.shard=parameters saves "
                "memory too) or model.layer_norm=false"
            )
        if self.optimizer.averaging == "triggered" and not self.training.evaluate_every:
            raise UserError(
                "optimizer.averaging=triggered waits for the validation to stall, and "
                "training.evaluate_every=0 never validates: set it to a number of updates"
            )
        if self.training.temporal_activation_regularization and self.data.window_length == 1:
            raise UserError(
                "training.temporal_activation_regularization compares time steps, and "
                "data.window_length=1 has one: set it to 0, or choose longer windows"
            )
        warmup, updates = self.optimizer.warmup_updates, self.training.num_updates
        decays = self.optimizer.schedule in ("cosine", "linear")
        if decays and warmup >= updates:
            raise UserError(
                f"optimizer.warmup_updates={warmup} leaves nothing of training.num_updates="
                f"{updates} for the {self.optimizer.schedule} schedule: make it smaller"
            )

    def to_json(self) -> dict[str, dict[str, Any]]:
        """The configuration as plain JSON values, section by section."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, sections: Mapping[str, Mapping[str, Any]]) -> Self:
        """The configuration from `to_json`'s form; fields left out keep their defaults."""
        if not isinstance(sections, Mapping):
            raise UserError('a configuration is a JSON object of sections, such as {"model": {}}')
        values: dict[str, Any] = {}
        for section, fields in sections.items():
            if not isinstance(fields, Mapping):
                raise UserError(f"configuration section {section!r} must be an object of fields")
            values |= {f"{section}.{name}": value for name, value in fields.items()}
        return cls().replace(values)

    def replace(self, values: Mapping[str, Any]) -> Self:
        """A copy with the fields at these addresses set, `{"model.hidden_size": 512}`.

        Strings are read as the field's type, as from a command line.

        Raises:
          UserError: no such field (the near ones are listed), or a value that does not fit.
        """
        by_section: dict[str, dict[str, Any]] = {}
        known = field_types()
        for address, value in values.items():
            if address not in known:
                raise UserError(unknown_field(address, list(known)))
            if isinstance(value, str):
                value = parsed(address, value, known[address])
            section, name = address.split(".")
            by_section.setdefault(section, {})[name] = value
        return dataclasses.replace(
            self,
            **{
                section: dataclasses.replace(getattr(self, section), **fields)
                for section, fields in by_section.items()
            },
        )

    def flat(self) -> dict[str, Any]:
        """Every field by its address, in order."""
        sections = self.to_json().items()
        return {
            f"{section}.{name}": v for section, fields in sections for name, v in fields.items()
        }


def field_types() -> dict[str, Any]:
    """The address of every field with its annotation, in order."""
    return {
        f"{section.name}.{name}": kind
        for section in dataclasses.fields(Config)
        for name, kind in typing.get_type_hints(section.type).items()
    }
