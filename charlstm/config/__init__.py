"""The whole configuration: frozen, typed, validated; overridden from strings; JSON both ways.

A configuration is a tree of two levels, sections of fields, and a field is addressed as
`section.field`, e.g. `model.hidden_size`. Every way of making one (Python, `--config.…` flags,
JSON) ends in the same checks, and each failure is a `UserError` that names the field.
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
