"""The flag of the commands that let the dtype of products be chosen."""

from typing import TYPE_CHECKING, TypeVar

from absl import flags

if TYPE_CHECKING:
    from charlstm.model.language_model import LanguageModel

AnyModel = TypeVar("AnyModel", bound="LanguageModel")

COMPUTE_DTYPE = flags.DEFINE_enum(
    "compute_dtype",
    "auto",
    ["auto", "float32", "bfloat16"],
    "Dtype of products; auto: as the model was configured, by default what is faster here.",
)


def in_chosen_dtype(model: AnyModel) -> AnyModel:
    """Returns the model with the products that `--compute_dtype` asks for."""
    chosen = COMPUTE_DTYPE.value
    return model if chosen == "auto" else model.in_dtype(chosen)
