"""What is read of a compiled program: written down by hand, and of a program of this machine."""

import jax
import jax.numpy as jnp
import pytest

from charlstm.compilation.counting import Kernels, collectives
from charlstm.compilation.program_text import Instruction, Program

# A dispatch: a loop over updates, of which the time loop runs four turns. XLA notes the number of
# turns for a GPU; for a TPU it is the constant in the loop's condition.
TEXT = """HloModule jit_run, entry_computation_layout={(s32[])->f32[8]}

%fused_product (p.1: bf16[8,4]) -> f32[8,4] {
  %p.1 = bf16[8,4]{1,0} parameter(0)
  ROOT %convert.1 = f32[8,4]{1,0} convert(%p.1)
}

%fused_gather (p.2: bf16[8,4]) -> bf16[8,8] {
  %p.2 = bf16[8,4]{1,0} parameter(0)
  ROOT %all-gather.9 = bf16[8,8]{1,0:T(8,128)(2,1)} all-gather(%p.2), channel_id=9, replica_groups=GATHERED, dimensions={1}
}

%forward_condition (c.1: (s32[], f32[8,4])) -> pred[] {
  %c.1 = (s32[]{:T(128)}, f32[8,4]{1,0}) parameter(0)
  %bound = s32[]{:T(128)} constant(4)
  %counter = s32[]{:T(128)} get-tuple-element(%c.1), index=0
  ROOT %less = pred[] compare(%counter, %bound), direction=LT
}

%forward_body (b.1: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %b.1 = (s32[], f32[8,4]{1,0}) parameter(0)
  %gte.1 = f32[8,4]{1,0} get-tuple-element(%b.1), index=1
  %fusion.1 = f32[8,4]{1,0} fusion(%gte.1), kind=kLoop, calls=%fused_product
  %fusion.2 = bf16[8,8]{1,0} fusion(%gte.1), kind=kCustom, calls=%fused_gather
  %fusion.3 = bf16[8,8]{1,0} fusion(%gte.1), kind=kCustom, calls=%fused_gather
  ROOT %tuple.1 = (s32[], f32[8,4]{1,0}) tuple(%gte.1, %fusion.1)
}

%backward_body (b.2: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %b.2 = (s32[], f32[8,4]{1,0}) parameter(0)
  %gte.2 = f32[8,4]{1,0} get-tuple-element(%b.2), index=1
  %reduced = ((f32[8,8]{1,0}), f32[8,4]{1,0}) reduce-scatter-start(%gte.2), channel_id=1, replica_groups=SCATTERED, dimensions={1}
  %done = f32[8,4]{1,0} reduce-scatter-done(%reduced)
  %copy.1 = f32[8,4]{1,0} copy(%done)
  ROOT %tuple.2 = (s32[], f32[8,4]{1,0}) tuple(%gte.2, %copy.1)
}

%update (u: (s32[], f32[8,4])) -> (s32[], f32[8,4]) {
  %u = (s32[], f32[8,4]{1,0}) parameter(0)
  %while.1 = (s32[], f32[8,4]{1,0}) while(%u), condition=%forward_condition, body=%forward_body, metadata={op_name="jit(run)/while/body/jvp()/while"}
  %while.2 = (s32[], f32[8,4]{1,0}) while(%while.1), condition=%any, body=%backward_body, metadata={op_name="jit(run)/while/body/transpose(jvp())/while"}, backend_config={"known_trip_count":{"n":"4"}}
  %gte.3 = f32[8,4]{1,0} get-tuple-element(%while.2), index=1
  %all-reduce.1 = (f32[8,4]{1,0}, /*index=1*/bf16[2]{0}) all-reduce(%gte.3, %gte.3), channel_id=2, replica_groups=REDUCED, to_apply=%sum
  ROOT %tuple.3 = (s32[], f32[8,4]{1,0}) tuple(%gte.3, %gte.3)
}

%whole_condition (c.2: (s32[], f32[8,4])) -> pred[] {
  %c.2 = (s32[], f32[8,4]{1,0}) parameter(0)
  %at = s32[] get-tuple-element(%c.2), index=0
  %end = s32[] get-tuple-element(%c.2), index=0
  ROOT %less.1 = pred[] compare(%at, %end), direction=LT
}

ENTRY %main (count: s32[]) -> f32[8,4] {
  %count = s32[] parameter(0)
  %fusion.9 = f32[8,4]{1,0} fusion(%count), kind=kLoop, calls=%fused_product
  %all-reduce.9 = f32[] all-reduce(%count), replica_groups=REDUCED, to_apply=%sum
  %tuple.9 = (s32[], f32[8,4]{1,0}) tuple(%count, %fusion.9)
  %while.9 = (s32[], f32[8,4]{1,0}) while(%tuple.9), condition=%whole_condition, body=%update, metadata={op_name="jit(run)/while"}
  ROOT %gte.9 = f32[8,4]{1,0} get-tuple-element(%while.9), index=1
}
"""  # noqa: E501

# The ways in which XLA writes the groups of a mesh of 2 x 3 devices (`data` x `model`).
OVER_DATA = [
    "{{0,3},{1,4},{2,5}}",
    "[3,2]<=[2,3]T(1,0)",
    "mesh['data'=2,'model'=3] {'data'}",
    "mesh['a'=3,'b'=2], device_ids=([2,3]T(1,0)) {'b'}",
]
OVER_MODEL = [
    "{{0,1,2},{3,4,5}}",
    "[2,3]<=[6]",
    "mesh['data'=2,'model'=3] {'model'}",
    "mesh['a'=1,'b'=2,'c'=3] {'c'}",
]
OVER_BOTH = ["{{0,1,2,3,4,5}}", "[1,6]<=[6]", "mesh['a'=2,'b'=3] {'a','b'}", "{}"]


def program(gathered=OVER_MODEL[0], scattered=OVER_MODEL[0], reduced=OVER_DATA[0]):
    text = TEXT.replace("GATHERED", gathered).replace("SCATTERED", scattered)
    return Program(text.replace("REDUCED", reduced))


@pytest.mark.parametrize("way", range(4))
def test_collectives_are_counted_by_kind_and_axis_for_one_update(way):
    read = program(OVER_MODEL[way], OVER_DATA[way], OVER_BOTH[way])
    found = {
        (c.kind, c.axis, c.in_time_loop): (c.count, c.bytes, c.group_size)
        for c in collectives(read.update(), (2, 3))
    }
    assert found == {
        # Parts of one gather lie in two fusions of the time loop.
        ("all-gather", "model", True): (4, 4 * 8 * 8 * 2, 3),
        ("reduce-scatter", "data", True): (4, 4 * 8 * 4 * 4, 2),
        ("all-reduce", "data and model", False): (1, 8 * 4 * 4 + 2 * 2, 6),
    }


def test_kernels_are_counted_by_pass_and_what_starts_none_is_not():
    kernels = Kernels.of(program().update())
    # Forward three fusions a turn; backward a reduction and a copy; outside an all-reduce.
    assert kernels == Kernels(forward=12, backward=8, total=21)


def test_a_type_with_layouts_and_comments_is_read():
    line = (
        "%x.1 = (f32[2,3]{1,0:T(8,128)(2,1)}, /*index=1*/(s32[], bf16[4]{0})) "
        "all-reduce(%a, %b), channel_id=1"
    )
    instruction = Instruction.parse(line)
    assert instruction.opcode == "all-reduce"
    assert instruction.result_bytes() == 2 * 3 * 4 + 4 + 4 * 2


def test_loops_of_a_real_program_are_found():
    def run(count, x):
        def update(_, x):
            return jax.lax.scan(lambda x, _: (jnp.tanh(x @ x), None), x, length=5)[0]

        return jax.lax.fori_loop(0, count, update, x)

    compiled = jax.jit(run).lower(3, jnp.eye(4)).compile()
    steps = Program(compiled.as_text()).update()
    assert any(step.in_loop and step.count == 5 for step in steps)


PRODUCTS = """HloModule products

ENTRY %main (a: bf16[8,4], b: f32[4,8]) -> f32[8,8] {
  %a = bf16[8,4]{1,0} parameter(0)
  %b = f32[4,8]{1,0} parameter(1)
  %dot.1 = f32[8,8]{1,0} dot(%a, %a), lhs_contracting_dims={1}, rhs_contracting_dims={1}
  %topk.1 = f32[8,8]{1,0} custom-call(%b, %b), custom_call_target="TopK"
  ROOT %gemm.1 = f32[8,8]{1,0} custom-call(%b, %b), custom_call_target="__cublas$lt$matmul"
}
"""


def test_the_dtypes_of_products_are_read_those_of_nvidias_library_too():
    assert Program(PRODUCTS).product_dtypes() == {"bf16 x bf16", "f32 x f32"}


# A TPU gathers while a loop runs: the start before it, the course in each turn, the end behind it.
OVERLAPPED = """HloModule overlapped

%start (a: f32[4]) -> f32[8] {
  %a = f32[4]{0} parameter(0)
  ROOT %all-gather.1 = f32[8]{0} all-gather(%a), channel_id=4, replica_groups=[1,2]<=[2], dimensions={0}
}

%course (b: f32[4]) -> f32[8] {
  %b = f32[4]{0} parameter(0)
  ROOT %all-gather.2 = f32[8]{0} all-gather(%b), channel_id=4, replica_groups=[1,2]<=[2], dimensions={0}
}

%body (c: f32[4]) -> f32[4] {
  %c = f32[4]{0} parameter(0)
  ROOT %fusion.2 = f32[4]{0} fusion(%c), kind=kCustom, calls=%course
}

ENTRY %main (d: f32[4]) -> f32[4] {
  %d = f32[4]{0} parameter(0)
  %fusion.1 = f32[8]{0} fusion(%d), kind=kCustom, calls=%start
  ROOT %loop = f32[4]{0} while(%d), condition=%any, body=%body, backend_config={"known_trip_count":{"n":"16"}}
}
"""  # noqa: E501


def test_a_collective_that_goes_on_during_a_loop_is_one_and_not_in_the_loop():
    (found,) = collectives(Program(OVERLAPPED).update(), (2, 1))
    assert (found.kind, found.axis, found.count, found.bytes) == ("all-gather", "data", 1, 32)
    assert not found.in_time_loop
