"""The layout of parameters and optimizer state over the mesh.

Three layouts meet in an update. Parameters are *stored* in one, brought into a second to *compute*
gradients with, and the optimizer works on a third. Which arrays are split where is decided by
name and shape alone, so that a checkpoint can be restored into any mesh.

  mesh.shard    stored       optimizer, average
  nothing       whole        whole
  optimizer     whole        shares, over `data` (ZeRO's first stage)
  parameters    shares       shares (its third stage, fully sharded data parallel)

To compute, the parameters are whole, but for the matrices between hidden units: these are split
over `model` by rows in all three, and the recurrence takes them apart by hidden units.
"""

from typing import Any, Literal, TypeVar

import jax

from charlstm.runtime.meshes import DATA_AXIS, MODEL_AXIS, sizes_of
from charlstm.training.train_state import TrainState

Tree = TypeVar("Tree")


class Layout:
    """The layouts of one mesh.

    Args:
      mesh: the devices, in force as `jax.set_mesh`.
      shard: what is shared out over `data`.
    """

    def __init__(
        self, mesh: jax.sharding.Mesh, shard: Literal["nothing", "optimizer", "parameters"]
    ):
        self._data, self._model = sizes_of(mesh)
        self._shard = shard

    @property
    def splits_weights(self) -> bool:
        """True if stored parameters, or their average, may not be whole on every device."""
        return self._model > 1 or (self._shard != "nothing" and self._data > 1)

    def for_computing(self, params: Tree) -> Tree:
        """Lays parameters out as gradients are computed with them."""
        return self._lay_out(params, over_data=False)

    def for_optimizer(self, tree: Tree) -> Tree:
        """Lays out gradients, parameters or optimizer state as the optimizer works on them."""
        return self._lay_out(tree, over_data=self._shard != "nothing")

    def for_storing(self, params: Tree) -> Tree:
        """Lays parameters out as they are kept from update to update."""
        return self._lay_out(params, over_data=self._shard == "parameters")

    def store(self, state: TrainState) -> TrainState:
        """Lays the whole state out as it is kept from update to update."""
        return TrainState(
            step=state.step,
            params=self.for_storing(state.params),
            opt_state=self.for_optimizer(state.opt_state),
            carry=state.carry,
            key=state.key,
            # Changed element by element with the parameters, as the optimizer's state is.
            average=self.for_optimizer(state.average),
        )

    def gather(self, params: Tree) -> Tree:
        """Makes parameters whole on every device."""
        return jax.tree.map(lambda leaf: jax.reshard(leaf, jax.P()), params)

    def _lay_out(self, tree: Tree, *, over_data: bool) -> Tree:
        if self._data == self._model == 1 or (self._model == 1 and self._shard == "nothing"):
            return tree

        def lay_out(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
            return jax.reshard(leaf, self._spec(path, leaf.shape, over_data))

        return jax.tree_util.tree_map_with_path(lay_out, tree)

    def _spec(self, path: tuple[Any, ...], shape: tuple[int, ...], over_data: bool) -> jax.P:
        """Returns an array's spec by its place in the parameters, or in an optimizer's state."""
        dimensions: list[str | None] = [None] * len(shape)
        if self._model > 1 and _is_between_hidden_units(path):
            dimensions[0] = MODEL_AXIS
        if over_data and self._data > 1:
            # The last dimension is the largest: 4H.
            for axis in reversed(range(len(shape))):
                if dimensions[axis] is None and shape[axis] % self._data == 0:
                    dimensions[axis] = DATA_AXIS
                    break
        return jax.P(*dimensions)


def _is_between_hidden_units(path: tuple[Any, ...]) -> bool:
    """Returns True if the path ends like that of a matrix [H, 4H]."""
    names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
    if names[-3:-2] != ["layers"]:
        return False
    return names[-1] == "weight_hh" or (names[-1] == "weight_ih" and names[-2] != "0")
