"""The GPU kernels: their arithmetic without a GPU, and what NVIDIA's compiler makes of them."""

import collections
import math
import re
import threading

import jax
import jax.numpy as jnp
import lstm_reference as reference
import numpy as np
import pytest
import tiled_lstm as tiled
from compilers import GPU, machine, needs, report_on

from charlstm.model.recurrence import pallas_gpu
from charlstm.model.recurrence.pallas_gpu_plan import Plan, Plans

needs_new_jax = pytest.mark.skipif(
    jax.__version_info__ < pallas_gpu.OLDEST_JAX, reason="the kernels are written for jax 0.11"
)


def distance(found, wanted):
    """Returns |found - wanted| / |wanted|, in Euclidean norms; NaN if something was not found."""
    found, wanted = np.asarray(found, np.float64), np.asarray(wanted, np.float64)
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


@pytest.mark.parametrize(("streams", "hidden_size"), [(64, 64), (128, 128), (64, 256), (256, 192)])
def test_blocks_tiles_and_roundings_are_near_float64(streams, hidden_size):
    """The plans' own arithmetic in NumPy: clusters of 2 forward, of 4 and 8 backward."""
    params, carry, inputs, targets = reference.random_case(
        1, num_layers=1, hidden_size=hidden_size, window=5, streams=streams
    )
    layer, head = params["layers"]["0"], params["head"]
    layer["weight_hh"] *= 2.5 / hidden_size**0.5
    head["kernel"] /= hidden_size**0.5
    _, gradients, after = reference.loss_and_gradients(params, carry, inputs, targets)

    plans = Plans.choose(streams, hidden_size)
    share = tiled.rounded(layer["weight_ih"] + layer["bias"])[inputs]
    h, c = carry["h"][0], carry["c"][0]
    outputs, h_after, c_after, factors = tiled.forward(
        plans.forward, share, layer["weight_hh"], h, c
    )
    logits = outputs @ head["kernel"] + head["bias"]
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    d_logits = (probabilities - np.eye(logits.shape[-1])[targets]) / targets.size
    d_outputs = tiled.rounded(d_logits @ head["kernel"].T)
    zero = np.zeros_like(h)
    dz, *_ = tiled.backward(plans.backward, layer["weight_hh"], factors, d_outputs, zero, zero)

    before = np.concatenate([tiled.rounded(h)[None], outputs[:-1]])
    one_hot = np.eye(len(layer["weight_ih"]))[inputs]
    wanted = gradients["layers"]["0"]
    assert distance(h_after, after["h"][0]) < 5e-3
    assert distance(c_after, after["c"][0]) < 5e-3
    assert distance(np.einsum("tbh,tbg->hg", before, dz), wanted["weight_hh"]) < 1e-2
    assert distance(np.einsum("tbv,tbg->vg", one_hot, dz), wanted["weight_ih"]) < 1e-2
    assert distance(dz.sum((0, 1)), wanted["bias"]) < 1e-2


class Exchange:
    """Stands for the exchange between the blocks of one cluster, which the interpreter has not.

    It has no counters, and no block can read another's shared memory. Its blocks are threads.
    """

    def __init__(self, blocks):
        self._meeting = collections.defaultdict(lambda: threading.Barrier(blocks, timeout=120))
        self._sums = {}

    def install(self, monkeypatch):
        from charlstm.model.recurrence import pallas_gpu_backward, pallas_gpu_block

        place = pallas_gpu_block.Place
        monkeypatch.setattr(pallas_gpu_block.pl, "get_global", lambda *_: NoCounters())
        monkeypatch.setattr(place, "announce", lambda self: None)
        monkeypatch.setattr(place, "wait", lambda place, times: self._wait(place.chain))
        monkeypatch.setattr(pallas_gpu_backward, "meet", lambda barrier: None)
        monkeypatch.setattr(pallas_gpu_backward, "load_from_peer", self._load_from_peer)

    def _wait(self, chain):
        def wait(chain):
            self._meeting[int(chain)].wait()
            return np.int32(0)

        jax.experimental.io_callback(wait, jax.ShapeDtypeStruct((), jnp.int32), chain)

    def _load_from_peer(self, ref, peer):
        def exchange(sums, chain, mine, theirs, *index):
            meeting = self._meeting[int(chain)]
            self._sums[int(chain), int(mine)] = np.array(sums)
            meeting.wait()
            found = self._sums[int(chain), int(theirs)][tuple(map(int, index))]
            meeting.wait()
            return found

        index = [jnp.int32(place) for place in ref.transforms[0].indices[:3]]
        chain, mine = index[0], jax.lax.axis_index("peer")
        result = jax.ShapeDtypeStruct((64, 8), jnp.float32)
        return jax.experimental.io_callback(
            exchange, result, ref.ref[...], chain, mine, jnp.int32(peer), *index
        )


class NoCounters:
    @property
    def at(self):
        return self

    def __getitem__(self, index):
        return self


@pytest.fixture
def interpreted(monkeypatch):
    """Runs kernels of clusters of so many blocks in Pallas' interpreter, one cluster at a time."""
    from jax.experimental.pallas import mosaic_gpu as plgpu

    def run(blocks, function, *arguments):
        Exchange(blocks).install(monkeypatch)
        with plgpu.force_gpu_interpret_mode(plgpu.InterpretGPUParams(inline_mgpu="ignore")):
            return jax.block_until_ready(function(*arguments))

    return run


def problem(streams, hidden_size, window):
    """Random arguments of a layer, and gradients with respect to its results."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    state = streams, hidden_size
    share = tiled.rounded(normal(window, streams, 4 * hidden_size))
    weight = normal(hidden_size, 4 * hidden_size) / hidden_size**0.5
    arguments = share, weight, np.tanh(normal(*state)), normal(*state)
    return arguments, (tiled.rounded(normal(window, *state)), normal(*state), normal(*state))


def bfloat16(array):
    return jnp.asarray(array, jnp.bfloat16)


# Two roundings of the same number to bfloat16 differ now and then, by a unit in the last place.
ROUNDED_ALIKE = 1e-3


@needs_new_jax
@pytest.mark.parametrize(
    "plan",
    [
        # hidden size, units, warpgroups, groups, cluster, tile, stages
        Plan(False, 64, 64, 2, 1, 1, 64, 2),
        Plan(False, 192, 96, 1, 1, 2, 64, 2),
    ],
    ids=["two warpgroups", "two blocks that exchange, and fewer stages than tiles"],
)
def test_the_kernels_compute_what_their_tiles_do_in_numpy(interpreted, monkeypatch, plan):
    """All of a layer: results, and gradients with respect to all arguments."""
    plans = Plans(plan, plan._replace(backward=True))
    monkeypatch.setattr(Plans, "choose", lambda *arguments: plans)
    arguments, cotangents = problem(64 * plan.chains, plan.hidden_size, 3)
    share, weight, h, c = arguments

    def layer(share, weight, h, c, d_outputs, dh, dc):
        run = lambda *given: pallas_gpu.pallas_gpu_layer((0, 0), *given)  # noqa: E731
        results, pull = jax.vjp(run, share, weight, h, c)
        return results, pull((d_outputs, dh, dc))

    results, gradients = interpreted(
        plan.cluster, layer, bfloat16(share), weight, h, c, bfloat16(cotangents[0]), *cotangents[1:]
    )
    outputs, h_after, c_after, factors = tiled.forward(plan, share, weight, h, c)
    dz, dh, dc = tiled.backward(plans.backward, weight, factors, *cotangents)
    d_weight = np.einsum("tbh,tbg->hg", np.concatenate([tiled.rounded(h)[None], outputs[:-1]]), dz)
    for found, wanted in zip(results, (outputs, h_after, c_after), strict=True):
        assert distance(found, wanted) < ROUNDED_ALIKE
    for found, wanted in zip(gradients, (dz, d_weight, dh, dc), strict=True):
        assert distance(found, wanted) < ROUNDED_ALIKE


@needs_new_jax
@pytest.mark.parametrize("cluster", [1, 2])
def test_every_group_block_and_warpgroup_has_its_own_streams_and_units(interpreted, cluster):
    """In a window of one time step no block needs what another group or cluster has computed."""
    from charlstm.model.recurrence.pallas_gpu_backward import backward_window
    from charlstm.model.recurrence.pallas_gpu_forward import forward_window

    threads = 2 // cluster  # the interpreter runs so many at a time as the machine has cores
    plan = Plan(False, 64, 16, threads, 2, cluster, 64, 2)
    arguments, cotangents = problem(64 * plan.chains, 64, 1)
    share, weight, h, c = arguments
    found = interpreted(cluster, forward_window, plan, bfloat16(share), weight, h, c)
    wanted = tiled.forward(plan, share, weight, h, c)
    for a, b in zip(found[:3], wanted[:3], strict=True):
        assert distance(a, b) < ROUNDED_ALIKE
    if cluster == 1:
        dz, _, dc = interpreted(
            1,
            backward_window,
            plan._replace(backward=True),
            weight,
            found[3],
            bfloat16(cotangents[0]),
            *cotangents[1:],
        )
        dz_wanted, _, dc_wanted = tiled.backward(
            plan._replace(backward=True), weight, wanted[3], *cotangents
        )
        assert distance(dz, dz_wanted) < ROUNDED_ALIKE
        assert distance(dc, dc_wanted) < ROUNDED_ALIKE


def compile_with_gradient(streams, hidden_size, clusters=(0, 0)):
    """Compiles a layer with its gradient for an H100."""
    sharding = jax.sharding.SingleDeviceSharding(machine("h100:1").devices[0])

    def shape(*sizes, dtype=jnp.float32):
        return jax.ShapeDtypeStruct(sizes, dtype, sharding=sharding)

    def layer(share, weight, h, c, d_outputs, dh, dc):
        run = lambda *given: pallas_gpu.pallas_gpu_layer(clusters, *given)  # noqa: E731
        results, pull = jax.vjp(run, share, weight, h, c)
        return results, pull((d_outputs, dh, dc))

    state = shape(streams, hidden_size)
    jax.jit(layer).lower(
        shape(4, streams, 4 * hidden_size, dtype=jnp.bfloat16),
        shape(hidden_size, 4 * hidden_size),
        state,
        state,
        shape(4, streams, hidden_size, dtype=jnp.bfloat16),
        state,
        state,
    ).compile()


def launched(said):
    """Yields what kernels are launched with: (cluster, blocks, threads, bytes of shared memory)."""
    call = r"call .*@mosaic_gpu_(?:launch_kernel|build_kernel_spec)\(ptr [^,]*((?:, i32 \d+){10})"
    for numbers in re.findall(call, said):
        numbers = [int(number) for number in re.findall(r"i32 (\d+)", numbers)]
        grid, cluster, block = (math.prod(numbers[axis : axis + 3]) for axis in (0, 3, 6))
        yield cluster, grid, block, numbers[9]


@needs_new_jax
class TestCompiled:
    pytestmark = needs(GPU, "gpu_compile")

    @pytest.mark.parametrize(
        ("streams", "hidden_size"),
        [
            (64, 256),
            (1024, 256),
            (64, 512),
            (256, 512),
            (1024, 512),
            (64, 1024),
            (512, 1024),
            (640, 384),
            *(
                pytest.param(*sizes, marks=pytest.mark.by_hand)
                for sizes in ((256, 256), (128, 1024), (256, 1024), (1536, 128), (64, 1600))
            ),
        ],
    )
    def test_a_layer_compiles_without_spills_and_is_launched_as_planned(
        self, streams, hidden_size, monkeypatch, capfd
    ):
        monkeypatch.setenv("MOSAIC_GPU_DUMP_PTXAS", "1")
        monkeypatch.setenv("MOSAIC_GPU_DUMP_HOST_LLVM", "1")
        compile_with_gradient(streams, hidden_size)
        said = capfd.readouterr().out
        spilled = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
        assert spilled == [("0", "0")] * 2
        registers = [int(count) for count in re.findall(r"Used (\d+) registers", said)]
        assert len(registers) == 2 and max(registers) <= 255
        wanted = [
            (plan.cluster, plan.blocks, 128 * plan.threads, plan.smem_bytes)
            for plan in Plans.choose(streams, hidden_size)
        ]
        for (*found, smem_bytes), (*planned, most) in zip(
            sorted(launched(said)), sorted(wanted), strict=True
        ):
            assert found == planned
            assert 0 <= most - smem_bytes < 1024

    def test_training_adds_gradients_up_once_and_says_what_a_kernel_takes(self):
        fields = {"model.recurrence": "pallas_gpu", "data.num_streams": 256}
        report = report_on("h100:4", fields, find_largest=True)
        assert {each.kind for each in report.collectives} == {"all-reduce"}
        assert not any(each.in_time_loop for each in report.collectives)
        gradients = report.memory.parameters
        assert sum(each.bytes for each in report.collectives) == pytest.approx(gradients, rel=0.01)
        # Larger batches are refused, and are no reason to end.
        assert report.largest_num_streams >= 256
        assert report.product_dtypes == {"bf16 x bf16"}
        time_steps, streams, needed, limit = report.on_chip
        assert (time_steps, streams, needed // 1024, limit // 1024) == (16, 64, 33, 227)
