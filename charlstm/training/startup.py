"""The summary that a run logs before its first update."""

from typing import TYPE_CHECKING

import jax
from absl import logging

from charlstm.model import parameters
from charlstm.runtime import coordination, meshes
from charlstm.training.hooks import Hook
from charlstm.training.train_state import TrainState

if TYPE_CHECKING:
    from charlstm.training.run import Run


def log_summary(run: "Run") -> None:
    """Logs, in a few lines, the model, the text and the devices."""
    config, network, mesh = run.config, run.program.network, run.mesh
    logging.info(
        "model: %d × LSTM(%d), %d symbols, %s parameters, %s, recurrence %s",
        config.model.num_layers,
        config.model.hidden_size,
        run.alphabet.size,
        f"{parameters.num_parameters(run.train_state.params):,}",
        network.compute.dtype.name,
        network.describe(),
    )
    logging.info(
        "data: %s, %s bytes to train on, %s for validation; %d streams × %d bytes an update",
        run.corpus.name,
        f"{len(run.corpus.split('train')):,}",
        f"{len(run.corpus.split('valid')):,}",
        config.data.num_streams,
        config.data.window_length,
    )
    if config.model.parameter_budget:
        logging.info(
            "hidden size: %d, the largest within model.parameter_budget=%s",
            config.model.hidden_size,
            f"{config.model.parameter_budget:,.0f}",
        )
    processes = "" if coordination.is_single_process() else f" in {jax.process_count()} processes"
    sizes = meshes.sizes_of(mesh)
    shape = "" if sizes[1] == 1 else f", data × model = {sizes[0]} × {sizes[1]}"
    logging.info("devices: %d × %s%s%s", mesh.size, run.program.target.chip, processes, shape)
    if network.recurrence.notice:
        logging.warning("%s", network.recurrence.notice)


class PrintShardings(Hook):
    """Logs how every array of the state lies over the devices, before the first update."""

    def start(self, run: "Run") -> None:
        """See `Hook`."""
        logging.info("%s", describe_shardings(run.train_state))


def describe_shardings(state: TrainState) -> str:
    """Returns a line for each array of the state: name, shape, dtype, and its partition spec."""
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
