"""Lists the parts in order of worth: what each measures, and its share of the budget."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks.correctness import all_recurrences, residuals_of
from charlstm.benchmark.shapes import Shape
from charlstm.errors import UserError

# What a part measures, by name, with what its process needs to know of each.
Variants = dict[str, dict[str, Any]]
Loops = tuple[tuple[str, int], ...]


@dataclasses.dataclass(frozen=True)
class Settings:
    """Holds the sizes that are measured.

    Attributes:
      model: layers x hidden size.
      batches: numbers of streams.
      window: the window length.
      tiny: True for a rehearsal.
    """

    model: str
    batches: tuple[int, ...]
    window: int
    tiny: bool = False

    @property
    def dtype(self) -> str:
        """Returns the compute dtype."""
        return "float32" if self.tiny else "bfloat16"

    @property
    def middle(self) -> dict[str, Any]:
        """Returns the shape with the batch in the middle of the list."""
        return self.shape(self.batches[len(self.batches) // 2])

    def shape(self, batch: int) -> dict[str, Any]:
        """Returns the shape with a batch."""
        return Shape.parse(f"{self.model}-B{batch}-T{self.window}").to_json()

    def training(self, batch: int, **fields: Any) -> dict[str, Any]:
        """Returns what charlstm trains with a batch, for `Training`."""
        fields = {"model.compute_dtype": self.dtype, **fields}
        # As many in every variant: a process cannot change the number of its CPU devices.
        return {"shape": self.shape(batch), "fields": fields, "cpu_devices": 1, "memory": True}


class Part(NamedTuple):
    """Describes a part.

    Attributes:
      name: as `--parts` takes it.
      seconds: its share of the budget.
      about: what it measures.
      module: has `measure(work)`, which runs in a process of its own; one that begins with a dot
        is below `benchmarks.gpu`.
      variants: what it measures with given settings.
      takes_the_rest: True if all that is left of the budget is of use; the share is the least.
      only_if_named: True if it runs only when `--parts` names it.
    """

    name: str
    seconds: int
    about: str
    module: str
    variants: Callable[[Settings], Variants]
    takes_the_rest: bool = False
    only_if_named: bool = False


# If its kernels fail or hang, nothing else in the process goes on: it comes last, or alone.
_KERNELS = "pallas_gpu"


def _train(settings: Settings) -> Variants:
    return {"charlstm": {"shape": settings.middle, "seconds": 1 if settings.tiny else 20}}


def _correctness(settings: Settings) -> Variants:
    shape = Shape.parse("2x16-B4-T8" if settings.tiny else "2x256-B128-T16").to_json()
    dtypes = ("float32",) if settings.tiny else ("float32", "bfloat16")
    return {
        f"{recurrence} {residuals} {dtype}": {
            "shape": shape,
            "recurrence": recurrence,
            "residuals": residuals,
            "dtype": dtype,
        }
        for recurrence in sorted(all_recurrences(), key=lambda name: name == _KERNELS)
        for residuals in residuals_of(recurrence)
        for dtype in dtypes
    }


# PyTorch's best forms: the precision, and whether the update is replayed as a CUDA graph.
_TORCH_FORMS = (
    ("float16", True),
    ("bfloat16", True),
    ("float16-parameters", True),
    ("bfloat16-parameters", True),
    ("bfloat16", False),
    ("tf32", False),
)


def _peers(settings: Settings) -> Variants:
    variants: Variants = {}
    for batch in settings.batches:
        spec = settings.training(batch)
        variants[f"B{batch} charlstm"] = {"group": batch, "module": ".charlstm_training"}
        variants[f"B{batch} charlstm"]["spec"] = spec
        for precision, graph in (("float32", False),) if settings.tiny else _TORCH_FORMS:
            form = {"inputs": "one-hot", "precision": precision, "graph": graph}
            variants[f"B{batch} PyTorch {precision}{' graph' if graph else ''}"] = {
                "group": batch,
                "module": ".torch_training",
                "spec": {"shape": spec["shape"], **form},
            }
    return variants


# Recurrence, and time steps in one turn of XLA's loop (0: it does not use that loop).
_LOOPS = (
    ("scan", 8),
    ("wavefront", 8),
    ("scan", 16),
    ("scan", 1),
    ("wavefront", 1),
    ("wavefront", 16),
)


def _tune(settings: Settings, command_buffers: str = "off", loops: Loops = _LOOPS) -> Variants:
    return {
        f"B{batch} {recurrence}{f' unroll {unroll}' if unroll else ''}": {
            **settings.training(batch, **{"model.recurrence": recurrence}),
            "unroll": unroll,
            "profile": place == 0,
            "command_buffers": command_buffers,
        }
        for place, (recurrence, unroll) in enumerate(loops[:2] if settings.tiny else loops)
        for batch in settings.batches
    }


def _tune_with_buffers(settings: Settings) -> Variants:
    return _tune(settings, "on")


def _tune_kernels(settings: Settings) -> Variants:
    return _tune(settings, loops=((_KERNELS, 0),))


def _memory(settings: Settings) -> Variants:
    # The peak is that of the whole process so far, so the largest batch comes last.
    return {f"B{batch}": settings.training(batch) for batch in sorted(settings.batches)}


def _sampling(settings: Settings) -> Variants:
    variants: Variants = {}
    for batch in (1, 4) if settings.tiny else (1, 64):
        spec = {"shape": settings.shape(batch), "dtype": settings.dtype, "one_device": True}
        for name, module in (("charlstm", "charlstm_sampling"), ("PyTorch", "torch_sampling")):
            variants[f"B{batch} {name}"] = {"group": batch, "module": f".{module}", "spec": spec}
        variants[f"B{batch} copy"] = {"group": batch, "module": ".probes"}
        variants[f"B{batch} copy"]["spec"] = {"probe": "copy", "tiny": settings.tiny}
    return variants


def _checkpoint(settings: Settings) -> Variants:
    batch = settings.middle["num_streams"]
    return {f"B{batch}": settings.training(batch)}


def _recipe(name: str, planned: float | None = None) -> Callable[[Settings], Variants]:
    """Returns what trains a recipe, planned for so many seconds or for those that it gets."""
    return lambda settings: {name: {"planned": planned}}


# A share has room for starting the libraries, compiling and measuring on an H200.
PARTS = (
    Part("train", 75, "charlstm train, ended by SIGTERM; charlstm sample", ".training", _train),
    Part("correctness", 45, "every recurrence against float64", ".accuracy", _correctness),
    Part("peers", 140, "training against PyTorch's cuDNN, in turn", ".peers", _peers),
    Part("tune", 80, "recurrences, steps in a turn of the loop; a profile", ".tuning", _tune),
    Part("tune-kernels", 60, "a kernel for all time steps", ".tuning", _tune_kernels),
    Part("tune-buffers", 60, "the same as XLA's command buffers", ".tuning", _tune_with_buffers),
    Part("memory", 40, "XLA's account of the memory and the device's", ".tuning", _memory),
    Part("sampling", 45, "sampling against PyTorch's step loop, in turn", ".peers", _sampling),
    Part("checkpoint", 40, "how long a save delays training", ".checkpointing", _checkpoint),
    Part("recipe", 150, "shakespeare in the rest", ".recipe", _recipe("shakespeare"), True),
    Part(
        "tinyshakespeare",
        240,
        "that recipe, planned for 180 s of training",
        ".recipe",
        _recipe("tinyshakespeare", 180.0),
        False,
        True,
    ),
    Part(
        "enwik8",
        240,
        "that recipe, planned for 1700 s; again goes on with it",
        ".recipe",
        _recipe("enwik8", 1700.0),
        True,
        True,
    ),
)


def named(names: list[str]) -> list[Part]:
    """Returns the parts of these names, in the order of the table; without names, the usual ones.

    Raises:
      UserError: there is no such part.
    """
    unknown = [name for name in names if name not in {part.name for part in PARTS}]
    if unknown:
        every = ", ".join(part.name for part in PARTS)
        raise UserError(f"--parts={unknown[0]} is no part: choose from {every}")
    if not names:
        return [part for part in PARTS if not part.only_if_named]
    return [part for part in PARTS if part.name in names]


def table() -> str:
    """Returns the parts as lines of text: name, share and what is measured."""
    return "\n".join(
        f"  {part.name:16}{part.seconds:4} s{'+' if part.takes_the_rest else ' '} {part.about}"
        for part in PARTS
    )
