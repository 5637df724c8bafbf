"""Saving while training goes on, and restoring."""

import atexit
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from benchmarks.contestants import Contestant
from benchmarks.contestants.charlstm_training import Training
from charlstm.training.checkpoint import FOLDER, Checkpoints, Metadata


def prepare(spec: dict[str, Any]) -> Contestant:
    """A turn makes an update, `count` updates, and `count` with a save at their beginning.

    Its figures are seconds: `plain`, `saving` (both of the updates), `call` (until `save` returns),
    `finish` (until the checkpoint is on disk), `restore`; and `checkpoint_bytes`.

    Args:
      spec: as for `Training`, and `folder`, below which checkpoints are written.
    """
    training = Training(spec)
    run = Path(tempfile.mkdtemp(dir=spec.get("folder")))
    atexit.register(shutil.rmtree, run, ignore_errors=True)
    checkpoints = Checkpoints(run, keep_last=1, keep_every=0)
    info = training.info()
    metadata = Metadata(
        config=training.config,
        alphabet=training.alphabet,
        corpus={"name": "benchmark", "sha256": "", "num_bytes": len(training.text)},
        clock={"seconds": 0.0, "skipped": 0},
        metrics={},
        versions=info["versions"],
    )

    def turn(count: int) -> dict[str, float]:
        training.advance(1)  # finds its pace
        begin = time.perf_counter()
        training.advance(count)
        plain = time.perf_counter() - begin

        begin = time.perf_counter()
        step = training.step
        checkpoints.save(training.state, step, metadata)
        call = time.perf_counter() - begin
        training.advance(count)
        saving = time.perf_counter() - begin
        checkpoints.wait()
        finish = time.perf_counter() - begin

        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), training.state
        )
        begin = time.perf_counter()
        jax.block_until_ready(checkpoints.restore(step, abstract))
        restore = time.perf_counter() - begin
        files = [path for path in (run / FOLDER / str(step)).rglob("*") if path.is_file()]
        return {
            "plain": plain,
            "saving": saving,
            "call": call,
            "finish": finish,
            "restore": restore,
            "checkpoint_bytes": sum(path.stat().st_size for path in files),
        }

    return Contestant(turn, info)
