"""Processes that see no common folder write a checkpoint together."""

import subprocess
import sys

import numpy as np
from processes import free_port, run_together

SAVES = """
import asyncio, sys
from pathlib import Path

import jax
import jax.numpy as jnp

address, process, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
jax.config.update("jax_num_cpu_devices", 2)
jax.distributed.initialize(address, 2, process, cluster_detection_method="deactivate")

from orbax.checkpoint._src.path import async_path

from charlstm.checkpoint.items import Items

mkdir = async_path.mkdir


async def slow(*arguments, **options):
    await asyncio.sleep(process)  # process 1 is behind
    await mkdir(*arguments, **options)


async_path.mkdir = slow
mesh = jax.make_mesh((4,), ("data",))
split, whole = (jax.NamedSharding(mesh, jax.P(*axes)) for axes in (["data"], []))
weight = jax.jit(lambda: jnp.arange(32.0).reshape(8, 4), out_shardings=split)()
bias = jax.jit(lambda: jnp.ones(5, jnp.bfloat16), out_shardings=whole)()
items = Items(is_shared=False)
for step in ("1", "2"):
    items.save(folder / step, {"params": {"weight": weight}, "progress": {"bias": bias}})
    items.wait()
items.close()
"""

READS = """
import sys
import jax, jax.numpy as jnp, numpy as np, orbax.checkpoint as ocp

device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
wanted = {"weight": jax.ShapeDtypeStruct((8, 4), jnp.float32, sharding=device)}
with ocp.StandardCheckpointer() as checkpointer:
    print(np.asarray(checkpointer.restore(f"{sys.argv[1]}/params", wanted)["weight"]).tolist())
"""


def test_shards_from_folders_of_their_own_are_one_checkpoint(environment, tmp_path):
    """Their union is read like any other; no file but Orbax's own notes is written twice."""
    address = f"127.0.0.1:{free_port()}"
    folders = [tmp_path / str(process) for process in range(2)]
    for folder in folders:
        folder.mkdir()
    command = [sys.executable, "-c", SAVES, address]
    both = run_together(
        [[*command, process, folder] for process, folder in enumerate(folders)],
        [environment] * 2,
        120,
    )
    assert [code for code, _, _ in both] == [0, 0], both
    files = [
        {path.relative_to(folder / "2") for path in (folder / "2").rglob("*") if path.is_file()}
        for folder in folders
    ]
    twice = {path.name for path in files[0] & files[1]}
    assert twice <= {
        ".zarray",
        "_METADATA",
        "_sharding",
        "_CHECKPOINT_METADATA",
        "commit_success.txt",
    }
    union = tmp_path / "union"
    for folder, names in zip(folders, files, strict=True):
        for name in names:
            (union / name).parent.mkdir(parents=True, exist_ok=True)
            (union / name).write_bytes((folder / "2" / name).read_bytes())
    read = subprocess.run(
        [sys.executable, "-c", READS, str(union)], env=environment, capture_output=True, text=True
    )
    assert read.stdout.splitlines()[-1] == str(np.arange(32.0).reshape(8, 4).tolist()), read.stderr
