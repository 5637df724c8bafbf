"""Defines the configuration of an experiment: frozen, typed and validated.

A configuration has two levels: sections, and the fields in them. A field's address is
`section.field`, such as `model.hidden_size`. Configurations are made in Python, from `--config.…`
flags or from JSON. Each way runs the same checks, and each failure is a `UserError` that names the
field. docs/configuration.md describes every field.
"""

from charlstm.config.experiment import Config, field_types
from charlstm.config.loading import load_config, named_configs
from charlstm.config.sections import (
    DataConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainingConfig,
)

__all__ = [
    "Config",
    "DataConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "TrainingConfig",
    "field_types",
    "load_config",
    "named_configs",
]
