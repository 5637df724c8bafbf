"""Builds the CUDA programs and the library with nvcc, and the emulation with g++.

  python -m benchmarks.kernels.cuda.build --build=DIR      # all; prints registers and spills

It needs no GPU. What is newer than its sources is not built again.
"""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app

from benchmarks.kernels.checking import build_folder, one_line
from charlstm.errors import UserError

HERE = Path(__file__).parent
NVCC = ("nvcc", "-std=c++17", "-gencode=arch=compute_90a,code=sm_90a", "-O3", "-Xptxas", "-v")
GXX = ("g++", "-std=c++17", "-O2", "-w")


@dataclasses.dataclass(frozen=True)
class Product:
    """Describes a program or library and how it is built.

    Attributes:
      source: its file.
      options: of the compiler.
      compiler: the command.
    """

    source: str
    options: tuple[str, ...] = ()
    compiler: tuple[str, ...] = NVCC

    def command(self, target: Path) -> list[str]:
        """Returns the command that builds it."""
        options = list(self.options)
        if "-shared" in options:
            import jax.ffi

            options.append(f"-I{jax.ffi.include_dir()}")
        return [*self.compiler, *options, "-o", str(target), str(HERE / self.source)]


LIBRARY = "liblstm.so"
PRODUCTS = {
    "lstm_test": Product("lstm_test.cu"),
    "lstm_profile": Product("lstm_test.cu", ("-DPROFILE",)),
    "lstm_fast": Product("lstm_test.cu", ("-DFAST_TANH",)),
    "bench_barrier": Product("bench_barrier.cu"),
    "residency": Product("residency.cu"),
    LIBRARY: Product("ffi.cu", ("-w", "-Xcompiler", "-fPIC", "-shared")),
    "emulate": Product("emulate.cpp", compiler=GXX),
}


@dataclasses.dataclass(frozen=True)
class Resources:
    """Holds the resources of a kernel, as ptxas reports them.

    Attributes:
      kernel: its name, with the template's arguments.
      registers: of a thread.
      spill_bytes: stores and loads of registers that were too few.
    """

    kernel: str
    registers: int
    spill_bytes: int

    def __str__(self) -> str:
        spills = f", {self.spill_bytes} bytes of spills" if self.spill_bytes else ""
        return f"{self.kernel}: {self.registers} registers{spills}"


def build(folder: Path, names: Sequence[str]) -> None:
    """Builds programs, all at once.

    Args:
      folder: where they go, and NAME.log for each; made if it is not there.
      names: of `PRODUCTS`.

    Raises:
      UserError: a compiler is missing or refuses a source.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = [path for path in HERE.iterdir() if path.suffix in (".cu", ".cuh", ".cpp", ".h")]
    newest = max(path.stat().st_mtime for path in sources)
    missing = [
        name
        for name in names
        if not (folder / name).exists() or (folder / name).stat().st_mtime < newest
    ]
    processes = {}
    for name in missing:
        command = PRODUCTS[name].command(folder / name)
        with (folder / f"{name}.log").open("wb") as output:
            try:
                processes[name] = subprocess.Popen(command, stdout=output, stderr=output)
            except FileNotFoundError:
                raise UserError(
                    f"{PRODUCTS[name].source} is built with {command[0]}, which is not on the "
                    f"PATH: install it (nvcc comes with CUDA; 13.0 was tried)"
                ) from None
    failed = [name for name, process in processes.items() if process.wait() != 0]
    if failed:
        log = folder / f"{failed[0]}.log"
        lines = [line for line in log.read_text().splitlines() if "error" in line] or ["no message"]
        raise UserError(f"{PRODUCTS[failed[0]].source} does not compile: {lines[0]}: see {log}")


def resources(log: str) -> list[Resources]:
    """Reads the kernels of a time loop out of what ptxas prints with -v."""
    pattern = (
        r"Compiling entry function '_Z\d+(\w+_kernel)I((?:Li\d+E)+)E.*?"
        r"(\d+) bytes spill stores, (\d+) bytes spill loads.*?Used (\d+) registers"
    )
    found = []
    for name, mangled, stores, loads, registers in re.findall(pattern, log, re.DOTALL):
        arguments = ", ".join(re.findall(r"\d+", mangled))
        found.append(Resources(f"{name}<{arguments}>", int(registers), int(stores) + int(loads)))
    return found


def main(argv: Sequence[str]) -> None:
    """Builds everything; the exit code is 1 if a kernel spills registers, 2 if it is not built."""
    del argv
    with build_folder() as folder, one_line():
        build(folder, list(PRODUCTS))
        spilling = False
        for name in ("lstm_test", "lstm_profile", "lstm_fast"):
            for kernel in resources((folder / f"{name}.log").read_text()):
                print(f"{name}: {kernel}")
                spilling |= kernel.spill_bytes > 0
    sys.exit(spilling)


if __name__ == "__main__":
    app.run(main)
