"""Joins all sections to the configuration of one experiment, and checks them together."""

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Self

from charlstm.config.checking import parsed, unknown_field
from charlstm.config.combinations import require_possible
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
    """Holds the whole configuration of one experiment."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)

    def __post_init__(self) -> None:
        require_possible(self)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Returns the configuration as plain JSON values, section by section."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, sections: Mapping[str, Mapping[str, Any]]) -> Self:
        """Makes a configuration from the form of `to_json`; missing fields keep their defaults."""
        if not isinstance(sections, Mapping):
            raise UserError('a configuration is a JSON object of sections, such as {"model": {}}')
        values: dict[str, Any] = {}
        for section, fields in sections.items():
            if not isinstance(fields, Mapping):
                raise UserError(f"configuration section {section!r} must be an object of fields")
            values |= {f"{section}.{name}": value for name, value in fields.items()}
        return cls().replace(values)

    def replace(self, values: Mapping[str, Any]) -> Self:
        """Returns a copy with the fields at these addresses set, `{"model.hidden_size": 512}`.

        Strings are converted to the type of the field, as from a command line.

        Raises:
          UserError: there is no such field (similar ones are listed), or a value does not fit.
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
        """Returns the value of every field by its address, in order."""
        sections = self.to_json().items()
        return {
            f"{section}.{name}": v for section, fields in sections for name, v in fields.items()
        }


def field_types() -> dict[str, Any]:
    """Returns the annotation of every field by its address, in order."""
    return {
        f"{section.name}.{name}": kind
        for section in dataclasses.fields(Config)
        for name, kind in typing.get_type_hints(section.type).items()
    }
