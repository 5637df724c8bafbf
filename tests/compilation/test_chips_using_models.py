"""Sampling and evaluation, compiled for TPUs and NVIDIA GPUs that are not there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compilers import BYTES, GPU, TPU, machine, needs, small

from charlstm.compilation.counting import Kernels
from charlstm.compilation.program_text import Program
from charlstm.evaluation import dynamic, evaluator
from charlstm.model.language_model import LanguageModel
from charlstm.runtime import meshes
from charlstm.runtime.targets import Target
from charlstm.sampling import texts
from charlstm.sampling.clamping import Clamp
from charlstm.sampling.settings import Settings
from charlstm.sampling.texts import Draws, Given

DRAWING = {
    "plain": Settings(0.8),
    "filters": Settings(0.8, top_k=40, top_p=0.9),
    "greedy": Settings(0.0),
    "clamped": Settings(0.8, clamps=(Clamp(0, 3, 1.0),)),
}
READING = {
    "plain": {},
    "layer norm": {"model.layer_norm": True},
    "residual": {"model.connections": "residual", "model.num_layers": 3},
}


class Chip:
    """One chip that is compiled for, with a small model of which only the shapes are known."""

    def __init__(self, topology, fields=None):
        self.mesh = meshes.make_mesh(1, devices=machine(topology).devices[:1])
        config = small({"model.compute_dtype": "bfloat16"} | (fields or {}))
        target = Target.of_mesh(self.mesh)
        with jax.set_mesh(self.mesh):
            shapes = jax.eval_shape(lambda: LanguageModel.initialize(config, BYTES, target))
        self.model = self.placed(shapes)

    def placed(self, shapes, spec=None):
        """Returns shapes, those of an unknown place as whole on the chip."""

        def on_chip(leaf):
            found = spec or (jax.P() if leaf.sharding is None else leaf.sharding.spec)
            sharding = jax.NamedSharding(self.mesh, found)
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

        return jax.tree.map(on_chip, shapes)

    def shapes_of(self, function, *arguments):
        with jax.set_mesh(self.mesh):
            return self.placed(jax.eval_shape(function, *arguments))

    def array(self, shape, dtype=np.uint8, spec=None):
        return self.placed(jax.ShapeDtypeStruct(shape, dtype), spec)

    def compile(self, function, *arguments, **static):
        with jax.set_mesh(self.mesh):
            return function.lower(*arguments, **static).compile()


def bytes_of(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def require(compiled, donated):
    """Requires that the state is overwritten in place and that products are in bfloat16."""
    assert compiled.memory_analysis().alias_size_in_bytes >= donated
    text = Program(compiled.as_text())
    assert "f32 x f32" not in text.product_dtypes()
    return text


def drawing(chip, settings, batch=4, record=False):
    """Compiles the loop that reads a prompt and draws symbols; returns its text."""
    loaded = texts.Loaded(chip.model.replace(params={}), chip.shapes_of(texts._lay_out, chip.model))
    before = chip.shapes_of(lambda: texts.fresh(loaded_like(loaded), batch))
    given = Given(chip.array((32, batch)), *[chip.array((batch,), np.int32)] * 2)
    draws = chip.shapes_of(lambda: Draws.alike(batch, settings, 0))
    cells = chip.array((8, batch), np.int32) if record else None
    compiled = chip.compile(
        texts.advance,
        *(loaded, before, given, draws, chip.array((), np.int32), cells),
        filters=settings.filters,
        clamps=settings.clamps,
    )
    return require(compiled, bytes_of((before.state, before.logits)))


def loaded_like(loaded):
    """Returns zeros of the shapes of what is loaded."""
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), loaded)


def scoring(chip, is_fresh, rows=8, length=32):
    """Compiles the scoring of a text."""
    carry = chip.shapes_of(lambda model: model.zero_carry(rows, meshes.DATA_AXIS), chip.model)
    split = jax.P(None, None, meshes.DATA_AXIS)
    windows = chip.array((evaluator.CHUNK, length + 1, rows), np.uint8, split)
    scored = chip.array((evaluator.CHUNK, length, rows), np.bool_, split)
    compiled = chip.compile(
        evaluator._score_chunk,
        *(chip.model, carry, windows, scored),
        is_fresh=is_fresh,
        temperatures=(1.0,),
    )
    return require(compiled, bytes_of(carry) if not is_fresh else 0)


def learning(chip, n=20):
    """Compiles dynamic evaluation, which is in float32."""
    network = chip.model.network.in_dtype(jnp.float32)
    params = chip.model.params
    carry = chip.shapes_of(lambda model: model.zero_carry(1), chip.model)
    learn = jax.jit(
        lambda *arguments: dynamic._learn(network, *arguments, temperatures=(1.0,)),
        donate_argnums=(0, 1),
    )
    compiled = chip.compile(
        learn,
        *(params, carry, dynamic._Scales(params, params, params)),
        chip.array((dynamic.CHUNK, n + 1, 1)),
        chip.array((dynamic.CHUNK, n, 1), np.bool_),
    )
    assert compiled.memory_analysis().alias_size_in_bytes >= bytes_of((params, carry))


class UsingAModel:
    """Tests for every chip; a class for each names it."""

    topology = ""

    @pytest.mark.parametrize("settings", DRAWING.values(), ids=DRAWING)
    def test_drawing(self, settings):
        drawing(Chip(self.topology), settings)

    @pytest.mark.parametrize("fields", READING.values(), ids=READING)
    def test_reading_a_prompt(self, fields):
        drawing(Chip(self.topology, fields), Settings(0.8), record=True)

    @pytest.mark.parametrize("is_fresh", [False, True])
    def test_scoring_a_text(self, is_fresh):
        scoring(Chip(self.topology), is_fresh)

    def test_learning_from_the_text_that_is_scored(self):
        learning(Chip(self.topology))


class TestGpu(UsingAModel):
    pytestmark = needs(GPU, "gpu_compile")
    topology = "h100:1"

    def test_a_symbol_takes_few_kernels(self):
        steps = drawing(Chip(self.topology), Settings(0.8)).update()
        # Of each layer a product, its factors and the gates; of the head one; to draw, eight.
        assert Kernels.of(steps).total <= 15


class TestTpu(UsingAModel):
    pytestmark = needs(TPU, "tpu_compile")
    topology = "v5e:1x1"
