"""What a run says of itself before its first update."""

import jax
import jax.numpy as jnp
from absl import logging

from charlstm import coordination, distributed
from charlstm.config import Config
from charlstm.data.corpus import Alphabet, Corpus
from charlstm.model import language_model
from charlstm.training.program import dtype_of, training_recurrence_of
from charlstm.training.state import TrainState


def introduce(
    config: Config,
    corpus: Corpus,
    alphabet: Alphabet,
    state: TrainState,
    mesh: jax.sharding.Mesh,
) -> None:
    """Says in a few lines what is about to be trained on what."""
    model, devices = config.model, mesh.devices.flat
    logging.info(
        "model: %d × LSTM(%d), %d symbols, %s parameters, %s, recurrence %s",
        model.num_layers,
        model.hidden_size,
        alphabet.size,
        f"{language_model.num_parameters(state.params):,}",
        jnp.dtype(dtype_of(model)).name,
        training_recurrence_of(config),
    )
    logging.info(
        "data: %s, %s bytes to train on, %s for validation; %d streams × %d bytes an update",
        corpus.name,
        f"{len(corpus.split('train')):,}",
        f"{len(corpus.split('valid')):,}",
        config.data.num_streams,
        config.data.window_length,
    )
    if model.parameter_budget:
        logging.info(
            "hidden size: %d, the largest within model.parameter_budget=%s",
            model.hidden_size,
            f"{model.parameter_budget:,.0f}",
        )
    processes = "" if coordination.is_alone() else f" in {jax.process_count()} processes"
    sizes = mesh.shape[distributed.DATA_AXIS], mesh.shape[distributed.MODEL_AXIS]
    shape = "" if sizes[1] == 1 else f", data × model = {sizes[0]} × {sizes[1]}"
    logging.info("devices: %d × %s%s%s", mesh.size, devices[0].device_kind, processes, shape)


def describe_shardings(state: TrainState) -> str:
    """One line for each array of the state: name, shape, dtype, and what it is split over."""
    rows = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        part = leaf.sharding.shard_shape(leaf.shape)
        rows.append((name, f"{leaf.dtype.name}{list(leaf.shape)}", str(leaf.sharding.spec), part))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"  {name:<{widths[0]}}  {shape:<{widths[1]}}  {spec:<{widths[2]}}  "
        f"{'whole' if shape.endswith(str(list(part))) else f'{list(part)} a device'}"
        for name, shape, spec, part in rows
    ]
    return "\n".join(["shardings:", *lines])
