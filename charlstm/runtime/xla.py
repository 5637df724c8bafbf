"""Settings of XLA, the compiler: compiled programs kept from run to run, and flags for GPUs.

Both must be made before the first array.
"""

import os

import jax
from absl import logging

from charlstm.runtime.files import cache_folder

# The training loop replayed as a CUDA graph instead of launched kernel by kernel.
COMMAND_BUFFERS = (
    "--xla_gpu_enable_command_buffer=+WHILE",
    "--xla_gpu_command_buffer_unroll_loops=true",
    "--xla_gpu_graph_min_graph_size=1",
)
# What `auto` stands for. They have been measured on no GPU (`python -m benchmarks.gpu
# --parts=tune-buffers` does it), and nothing is switched on that was not seen to help.
COMMAND_BUFFERS_HELP = False


def keep_compiled_programs() -> None:
    """Compiles a program once, not once a run, and keeps it in the cache folder.

    The folder is the user's alone: whoever can write there decides what code is run. JAX's own
    variables (`JAX_COMPILATION_CACHE_DIR`, `JAX_ENABLE_COMPILATION_CACHE`) take precedence.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    folder = cache_folder() / "compiled"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        logging.info("compiled programs are not kept: %s (%s)", folder, error.strerror)
        return
    if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
        logging.info("compiled programs are not kept: others may write to %s", folder)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))


def set_command_buffers(choice: str) -> None:
    """Sets the flags for a GPU's training loop.

    Args:
      choice: `model.command_buffers`: on, off, or auto, which is what was measured to help.
    """
    if uses_command_buffers(choice):
        given = os.environ.get("XLA_FLAGS", "").split()
        os.environ["XLA_FLAGS"] = " ".join([*given, *COMMAND_BUFFERS])


def uses_command_buffers(choice: str) -> bool:
    """Returns True if `model.command_buffers` asks for them; auto is what was measured to help."""
    return choice == "on" or (choice == "auto" and COMMAND_BUFFERS_HELP)


def flags_in_force() -> str:
    """Returns the flags that XLA was given, for the record."""
    return os.environ.get("XLA_FLAGS", "")
