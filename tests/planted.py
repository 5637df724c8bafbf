"""A run folder whose model has one cell that does a known thing, and no training behind it."""

import jax
import jax.numpy as jnp
import numpy as np

from charlstm.checkpoint.metadata import Metadata
from charlstm.checkpoint.writing import Checkpoints
from charlstm.config import Config, DataConfig, ModelConfig
from charlstm.data.corpus import Alphabet
from charlstm.model.parameters import init_params

LAYER, CELL = 0, 5
HIDDEN_SIZE, NUM_LAYERS = 16, 2


def plant_bracket_cell(params):
    """Cell 5 of layer 0 becomes 1 at ( or [, 0 at ) or ], and is left alone by all other bytes."""
    layer = params["layers"][str(LAYER)]
    weight_ih = np.array(layer["weight_ih"])
    columns = [gate * HIDDEN_SIZE + CELL for gate in range(4)]
    shut, wide = -30.0, 30.0
    weight_ih[:, columns] = shut, wide, 0.0, 0.0
    for byte in b"([":
        weight_ih[byte, columns] = wide, shut, wide, 0.0
    for byte in b")]":
        weight_ih[byte, columns] = shut, shut, 0.0, 0.0
    weight_hh, bias = np.array(layer["weight_hh"]), np.array(layer["bias"])
    weight_hh[:, columns] = 0
    bias[columns] = 0
    planted = {"weight_ih": weight_ih, "weight_hh": weight_hh, "bias": bias}
    planted = {name: jnp.asarray(value) for name, value in planted.items()}
    return params | {"layers": params["layers"] | {str(LAYER): planted}}


def make_params(seed=0):
    model = ModelConfig(num_layers=NUM_LAYERS, hidden_size=HIDDEN_SIZE, forget_bias=1.0)
    return plant_bracket_cell(init_params(jax.random.key(seed), model, 256))


def make_run(folder):
    """Writes a checkpoint with the planted cell; all 256 bytes are its alphabet."""
    config = Config(
        model=ModelConfig(num_layers=NUM_LAYERS, hidden_size=HIDDEN_SIZE),
        data=DataConfig(num_streams=2, window_length=4),
    )
    checkpoints = Checkpoints(folder, keep_last=1, keep_every=0)
    metadata = Metadata(
        config=config,
        alphabet=Alphabet.of("bytes", np.zeros(1, np.uint8)),
        corpus={"name": "nothing", "sha256": "0" * 64, "num_bytes": 1},
        clock={"seconds": 0.0, "skipped": 0},
        metrics={},
        versions={"charlstm": "0", "elsewhere": "<b>1</b>"},
    )
    checkpoints.save(7, {"params": make_params()}, metadata)
    checkpoints.close()
    return folder
