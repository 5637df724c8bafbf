"""Measures training and sampling on the devices of this process, in about the time that is given.

The rate of large products comes first, then each model's training and its sampling. The time that
is left is shared out evenly among all that is still to do. A task is begun while there is time for
its compilation and a few short windows, and in any case until one of its kind was measured.

A CPU is often shared, and what it can do changes within seconds: there, products are measured again
between the windows of training. An accelerator's memory is left to the training alone.
"""

import functools
import statistics
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NamedTuple

import jax
from absl import logging

from charlstm.benchmark import training
from charlstm.benchmark.machine import about
from charlstm.benchmark.products import ACCELERATOR_SIZES, CPU_SIZES, Products, with_jax
from charlstm.benchmark.sampling import Sampling
from charlstm.benchmark.shapes import ACCELERATOR_SHAPES, CPU_SHAPES, Shape, text_of
from charlstm.benchmark.training import Training
from charlstm.benchmark.windows import WINDOWS, Windows, Work, count_for, seconds_of
from charlstm.config import Config
from charlstm.errors import UserError, in_one_line
from charlstm.model.compute import Compute
from charlstm.runtime import meshes, xla
from charlstm.runtime.targets import Target

OK = "ok"
NUMBERS_OF_TEXTS = (1, 64)  # that are sampled side by side
SHORTEST_WINDOW, LONGEST_WINDOW = 0.25, 1.0  # seconds
_WARM_UP = 2  # windows, about

Row = dict[str, Any]


class ProductRate(NamedTuple):
    """Holds the FLOP/s of large products: on all cores of a CPU, else on one device.

    Attributes:
      dtype: that they multiply.
      rates: of each window.
      again: measures it once more; None on accelerators.
      status: `ok`, or why there are no rates.
    """

    dtype: str
    rates: list[float]
    again: Callable[[], float] | None
    status: str = OK

    def to_json(self) -> Row:
        """Returns dtype, status, median, lowest and highest."""
        return {
            "compute_dtype": self.dtype,
            "product_status": self.status,
            "product_flops_per_second": _median(self.rates),
            "product_flops_per_second_range": [min(self.rates), max(self.rates)]
            if self.rates
            else None,
        }


class Prepared(NamedTuple):
    """Holds work that is compiled.

    Attributes:
      work: to be measured.
      figures: makes figures of its times.
      between: measures what they are compared with.
    """

    work: Work
    figures: Callable[[Windows], Row]
    between: Callable[[], float] | None = None


class Task(NamedTuple):
    """Describes what makes one row.

    Attributes:
      kind: training or sampling.
      name: in messages.
      row: what the row begins with.
      prepare: compiles the work.
    """

    kind: str
    name: str
    row: Row
    prepare: Callable[[], Prepared]


def set_up(configs: Collection[Config]) -> None:
    """Sets XLA's flags and splits the CPU into devices, for all that is measured.

    To be called before the first array. The configurations differ in their sizes only.
    """
    xla.set_command_buffers(next(iter(configs)).model.command_buffers)
    # Nothing is written to disk, and the seconds of a compilation are those of a real one.
    jax.config.update("jax_enable_compilation_cache", False)
    counts = [training.cpu_devices_for(config) for config in configs]
    counts += [meshes.cpu_devices_for(1, texts) for texts in NUMBERS_OF_TEXTS]
    meshes.set_cpu_devices(max(counts))


def standard_shapes() -> tuple[Shape, ...]:
    """Returns the shapes that are measured on the devices of this process."""
    return CPU_SHAPES if _is_cpu() else ACCELERATOR_SHAPES


def measure(configs: Mapping[Shape, Config], until: float) -> dict[str, Any]:
    """Measures shapes, and sampling from their models, until about a time.

    Args:
      configs: the configuration of each shape. They differ in their sizes only.
      until: a time by `time.monotonic`.

    Returns:
      JSON values: the machine, the rate of products, and a list of rows for each kind of task.
      A row has a `status`, which is `ok` or the reason why there are no figures. `not_reached`
      names the tasks that there was no time for.
    """
    # `auto` depends on the hidden size: the products are those of the widest network.
    models = [config.model for config in configs.values()]
    widest = max(models, key=lambda model: model.hidden_size)
    dtype = Compute.of(widest, Target.of_this_machine()).dtype.name
    logging.info("large products, %s", dtype)
    products = _product_rate(dtype)
    tasks = list(_tasks(configs, products))
    found = {
        **about(),
        **products.to_json(),
        "training": [],
        "sampling": [],
        "not_reached": [],
    }
    slowest: dict[str, float] = {}  # preparation by kind, in seconds
    for place, task in enumerate(tasks):
        left = until - time.monotonic()
        least = slowest.get(task.kind, -float("inf")) + (WINDOWS + _WARM_UP) * SHORTEST_WINDOW
        if left < least:
            found["not_reached"].append(task.name)
            continue
        logging.info("%s", task.name)
        row = _row(task, left / (len(tasks) - place))
        if row["status"] == OK:
            slowest[task.kind] = max(slowest.get(task.kind, 0.0), row["prepare_seconds"])
        found[task.kind].append(row)
        jax.clear_caches()
    return found


def _is_cpu() -> bool:
    return jax.local_devices()[0].platform == "cpu"


def _devices(on_a_cpu: int, elsewhere: int | None = None) -> list[jax.Device]:
    """Returns the first devices of this process: so many of a CPU or elsewhere; None for all."""
    return jax.local_devices()[: on_a_cpu if _is_cpu() else elsewhere]


def _product_rate(dtype: str) -> ProductRate:
    try:
        products = Products(with_jax(dtype), CPU_SIZES if _is_cpu() else ACCELERATOR_SIZES)
        count = count_for(seconds_of(products.rate), SHORTEST_WINDOW)
        rates = [products.rate(count) for _ in range(WINDOWS)]
    except jax.errors.JaxRuntimeError as error:  # they need some GiB of an accelerator
        return ProductRate(dtype, [], None, in_one_line(error, 300))
    return ProductRate(dtype, rates, functools.partial(products.rate, count) if _is_cpu() else None)


def _tasks(configs: Mapping[Shape, Config], products: ProductRate) -> Iterator[Task]:
    """Yields the training of each shape, and the sampling of each model after its first one."""
    sampled = set()
    for shape, config in configs.items():
        prepare = functools.partial(_prepare_training, shape, config, products)
        yield Task("training", f"training {shape}", {"shape": str(shape)}, prepare)
        model = shape.model
        for texts in () if model in sampled else NUMBERS_OF_TEXTS:
            name = f"sampling {model}, batch {texts}"
            prepare = functools.partial(_prepare_sampling, shape, config, texts)
            yield Task("sampling", name, {"model": model, "batch": texts}, prepare)
        sampled.add(model)


def _row(task: Task, seconds: float) -> Row:
    """Returns the row of a task that has so many seconds."""
    begin = time.monotonic()
    try:
        prepared = task.prepare()
        spent = time.monotonic() - begin
        window = (seconds - spent) / (WINDOWS + _WARM_UP)
        window = min(max(window, SHORTEST_WINDOW), LONGEST_WINDOW)
        times = Windows.of(prepared.work, window, prepared.between)
        figures = prepared.figures(times)
    except (UserError, jax.errors.JaxRuntimeError) as error:
        return {**task.row, "status": in_one_line(error, 300)}
    return {**task.row, "status": OK, **figures, "prepare_seconds": spent}


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None


def _prepare_training(shape: Shape, config: Config, products: ProductRate) -> Prepared:
    devices = _devices(training.cpu_devices_for(config))
    peak_before = training.peak_bytes(devices[0])
    trained = Training(config, text_of(shape), devices=devices)
    memory = trained.require_memory()
    ceiling = trained.ceiling()
    trained.start()

    def figures(times: Windows) -> Row:
        rate = times.rate(shape.bytes_per_update)
        flops = rate * shape.training_flops_per_byte
        dtype = trained.network.compute.dtype.name
        is_same = dtype == products.dtype
        product_rate = _median(times.between or products.rates) if is_same else None
        of_all = product_rate and product_rate * (1 if _is_cpu() else len(devices))
        peak = training.peak_bytes(devices[0])
        return {
            "recurrence": trained.network.describe(),
            "compute_dtype": dtype,
            "devices": len(devices),
            "bytes_per_second": rate,
            "bytes_per_second_range": times.rates(shape.bytes_per_update),
            "ceiling_bytes_per_second": ceiling and ceiling.bytes_per_second,
            "ms_per_update": 1e3 / times.rate(),
            "flops_per_second": flops,
            "product_flops_per_second": product_rate,
            "share_of_product_rate": of_all and flops / of_all,
            "memory_bytes": memory.total,
            # The peak of the process so far is this training's only if it was never that high.
            "device_peak_bytes": None if peak == peak_before else peak,
            "compile_seconds": trained.compile_seconds,
        }

    return Prepared(trained.advance, figures, products.again)


def _prepare_sampling(shape: Shape, config: Config, texts: int) -> Prepared:
    devices = _devices(meshes.cpu_devices_for(1, texts), 1)
    # Sampling has a time loop of its own.
    model = config.replace({"model.recurrence": "auto"}).model
    mesh = meshes.make_mesh(texts, devices=devices)
    sampling = Sampling(model, shape.num_symbols, texts, mesh)

    def figures(times: Windows) -> Row:
        return {
            "devices": len(devices),
            "bytes_per_second": times.rate(texts),
            "bytes_per_second_range": times.rates(texts),
            "us_per_step": 1e6 / times.rate(),
        }

    return Prepared(sampling.advance, figures)
