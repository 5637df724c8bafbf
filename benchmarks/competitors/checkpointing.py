"""Saves checkpoints while training goes on, and restores them."""

import atexit
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.competitors import Competitor
from benchmarks.competitors.charlstm_training import Training
from charlstm.checkpoint.metadata import Metadata
from charlstm.checkpoint.reading import FOLDER
from charlstm.checkpoint.writing import Checkpoints


def prepare(spec: dict[str, Any]) -> Competitor:
    """Prepares runs of `count` updates without a save and `count` that begin with one.

    One update to warm up comes before them. The figures of a run are seconds, and
    `checkpoint_bytes`: `plain` and `saving` are the time of the updates, `call` the time until
    `save` returns, `finish` the time until the checkpoint is on disk, and `restore` that of
    verifying and restoring it.

    Args:
      spec: as for `Training`, and `folder`, below which checkpoints are written.
    """
    training = Training(spec)
    folder = Path(tempfile.mkdtemp(dir=spec.get("folder")))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    checkpoints = Checkpoints(folder, keep_last=1, keep_every=0)
    info = training.info()
    metadata = Metadata(
        config=training.config,
        alphabet=training.alphabet,
        corpus={"name": "benchmark", "sha256": "", "num_bytes": len(training.text)},
        clock={"seconds": 0.0, "skipped": 0},
        metrics={},
        versions=info["versions"],
    )

    def run(count: int) -> dict[str, float]:
        training.advance(1)  # to warm up
        begin = time.perf_counter()
        training.advance(count)
        plain = time.perf_counter() - begin

        begin = time.perf_counter()
        step = training.step
        checkpoints.save(step, training.state.to_items(), metadata)
        call = time.perf_counter() - begin
        training.advance(count)
        saving = time.perf_counter() - begin
        checkpoints.wait()
        finish = time.perf_counter() - begin

        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), training.state
        )
        begin = time.perf_counter()
        newest = checkpoints.newest()  # compares its digests
        assert newest == step
        jax.block_until_ready(checkpoints.restore(newest, abstract.to_items()))
        restore = time.perf_counter() - begin
        files = [path for path in (folder / FOLDER / str(step)).rglob("*") if path.is_file()]
        return {
            "plain": plain,
            "saving": saving,
            "call": call,
            "finish": finish,
            "restore": restore,
            "checkpoint_bytes": sum(path.stat().st_size for path in files),
        }

    return Competitor(run, info)
