"""The flag of the commands that let the dtype of products be chosen."""

from absl import flags

COMPUTE_DTYPE = flags.DEFINE_enum(
    "compute_dtype",
    "auto",
    ["auto", "float32", "bfloat16"],
    "Dtype of products; auto: bfloat16 where it is faster, unless the run was trained in another.",
)
