"""The time loop of a stack of layers, in several implementations of one signature.

Four things are chosen independently of one another: the cell (`charlstm.model.cell`), the time loop
and its layout (one module here each), what a window keeps for its gradient (`Scan.keep`), and how
layers are connected and dropped between (`charlstm.model.stack`). `charlstm.config.combinations`
lists what cannot be combined.
"""

from charlstm.config import ModelConfig
from charlstm.model.recurrence.base import OnChip, Recurrence
from charlstm.model.recurrence.columns import Columns
from charlstm.model.recurrence.cudnn import Cudnn
from charlstm.model.recurrence.pallas_gpu import PallasGpu
from charlstm.model.recurrence.pallas_tpu import PallasTpu
from charlstm.model.recurrence.scan import Scan
from charlstm.model.recurrence.tensor_parallel import TensorParallel
from charlstm.model.recurrence.wavefront import Wavefront
from charlstm.runtime.targets import Target

__all__ = [
    "Columns",
    "Cudnn",
    "OnChip",
    "PallasGpu",
    "PallasTpu",
    "Recurrence",
    "Scan",
    "TensorParallel",
    "Wavefront",
    "choose",
]

# A CPU is faster with streams as columns from this hidden size on, or with many streams from this
# one on; (hidden size, streams), as measured: benchmarks/README.md.
COLUMNS_FROM = ((384, 1), (256, 64))


def choose(
    model: ModelConfig, target: Target, *, num_streams: int = 1, model_devices: int = 1
) -> Recurrence:
    """Returns the recurrence that `model.recurrence` stands for.

    `auto` chooses: on a CPU by the hidden size and the number of streams, as measured; elsewhere,
    where nothing is measured yet, the scan. A normalizing cell, or `model.residuals=state`, takes
    the scan.

    Args:
      model: the network.
      target: what it is compiled for.
      num_streams: that run side by side, on all devices together.
      model_devices: that share each layer, `mesh.model`.
    """
    if model_devices > 1 or model.recurrence == "split":
        return TensorParallel()
    if model.recurrence == "wavefront":
        return Wavefront(model.wavefront_chunk)
    named: dict[str, Recurrence] = {
        "scan_columns": Columns(),
        "pallas_tpu": PallasTpu(),
        "pallas_gpu": PallasGpu(),
        "cudnn": Cudnn(),
    }
    if model.recurrence in named:
        return named[model.recurrence]
    is_wide = any(model.hidden_size >= h and num_streams >= b for h, b in COLUMNS_FROM)
    is_plain = not model.layer_norm and model.residuals == "gates"
    if model.recurrence == "auto" and target.is_cpu and is_wide and is_plain:
        return Columns()
    return Scan(model.residuals)
