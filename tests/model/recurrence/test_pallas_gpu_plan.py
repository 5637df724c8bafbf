"""A layer is cut so that all blocks of a kernel are surely resident at once."""

import re

import pytest

from charlstm.errors import UserError
from charlstm.model.recurrence.pallas_gpu_plan import (
    LARGEST_HIDDEN_SIZE,
    NUM_BLOCKS,
    NUM_GPCS,
    SMEM_BYTES,
    Plan,
    Plans,
    resident_blocks,
)

SIZES = [(streams, size) for size in range(64, 1601, 64) for streams in range(64, 1025, 64)]


def pairs_of_multiprocessors(pairs, gpcs):
    """Yields every way in which pairs can lie in at most so many GPCs."""

    def shared_out(pairs, gpcs, most):
        if pairs == 0:
            yield []
        elif gpcs:
            for first in range(min(pairs, most), 0, -1):
                for rest in shared_out(pairs - first, gpcs - 1, first):
                    yield [first, *rest]

    return shared_out(pairs, gpcs, pairs)


@pytest.mark.parametrize("cluster", [1, 2, 4, 8])
def test_as_many_blocks_are_resident_as_is_said_however_multiprocessors_lie_in_gpcs(cluster):
    fewest = min(
        sum(2 * pairs // cluster * cluster for pairs in chip)
        for chip in pairs_of_multiprocessors(NUM_BLOCKS // 2, NUM_GPCS)
    )
    assert 0 <= fewest - resident_blocks(cluster) < cluster


def test_all_blocks_of_a_plan_are_surely_resident_and_fit_into_shared_memory():
    found = [plans for sizes in SIZES if (plans := Plans.find(*sizes))]
    assert len(found) > 150
    for plan in (plan for plans in found for plan in plans):
        assert plan.blocks <= resident_blocks(plan.cluster)
        assert plan.smem_bytes <= SMEM_BYTES
        # A stage is filled again only when the next one is in use.
        assert plan.stages >= 2 or plan.tiles == 1


def test_larger_clusters_are_taken_only_when_they_are_asked_for():
    asked = Plan.find(64, 1024, backward=True, cluster=8)
    assert (asked.cluster, asked.blocks) == (8, 128)
    assert asked.blocks > resident_blocks(8)
    assert Plans.find(256, 1024).backward.cluster == 2
    assert Plans.find(256, 1024, (2, 8)).backward.cluster == 8


@pytest.mark.parametrize(
    ("streams", "hidden_size", "forward", "backward"),
    [
        # units, warpgroups, groups, cluster, tile, stages
        (64, 512, (8, 1, 1, 2, 128, 4), (8, 1, 1, 8, 128, 2)),
        (64, 1024, (8, 1, 1, 2, 128, 8), (16, 1, 1, 8, 128, 4)),
        (256, 1024, (16, 2, 2, 2, 128, 3), (16, 2, 2, 2, 64, 5)),
        (1024, 256, (32, 1, 16, 2, 128, 2), (32, 2, 8, 8, 128, 1)),
    ],
)
def test_a_layer_is_cut_so_that_blocks_read_least(streams, hidden_size, forward, backward):
    plans = Plans.choose(streams, hidden_size)
    assert plans.forward == (False, hidden_size, *forward)
    assert plans.backward == (True, hidden_size, *backward)


def test_with_64_streams_every_multiple_of_64_up_to_the_largest_fits():
    sizes = range(64, LARGEST_HIDDEN_SIZE + 1, 64)
    assert [size for size in sizes if Plans.find(64, size) is None] == []
    assert Plans.find(64, LARGEST_HIDDEN_SIZE + 64) is None


@pytest.mark.parametrize("hidden_size", [32, 1000, 1664, 2048, 4096])
def test_a_hidden_size_that_does_not_fit_is_refused_with_one_that_does(hidden_size):
    with pytest.raises(UserError) as refusal:
        Plans.choose(64, hidden_size)
    assert f"cannot cut model.hidden_size={hidden_size}: choose a mul" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("streams", "hidden_size", "fitting"),
    [(100, 1024, 64), (192, 1024, 128), (1024, 1024, 512), (16, 256, 64), (2**24, 64, 8448)],
)
def test_streams_that_no_plan_takes_are_refused_with_the_most_below_that_fit(
    streams, hidden_size, fitting
):
    with pytest.raises(UserError) as refusal:
        Plans.choose(streams, hidden_size)
    assert f"cannot cut {streams} with model.hidden_size={hidden_size}" in str(refusal.value)
    (named,) = re.findall(r"set data.num_streams to (\d+) for each device", str(refusal.value))
    assert int(named) == fitting
    assert Plans.find(fitting, hidden_size) is not None
