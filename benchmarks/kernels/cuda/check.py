"""Checks and measures the CUDA kernels on a GPU, what matters most first.

  python -m benchmarks.kernels.cuda.check --seconds=60 --build=DIR

Builds them with nvcc in the folder of `--build`, or in a temporary one, before the time begins.
Each result is a line, printed at once. The exit code is 1 if something is wrong or was not reached.
"""

from collections.abc import Sequence

from absl import app

from benchmarks.kernels.checking import SECONDS, Checks, on_a_gpu
from benchmarks.kernels.cuda.build import LIBRARY, PRODUCTS, build

PROGRAM_LIMIT = 20.0  # seconds

# In order of worth: a program of `build` and its arguments (lstm_test: H, B, clusters forward and
# backward, T, repeats), or the sizes of a layer in JAX.
CASES = (
    "residency",
    "lstm_test query",
    "lstm_test 1024 64 0 0 8 2",  # the shortest: eight time steps
    "lstm_test 1024 64",
    "bench_barrier",
    "lstm_profile 1024 64 0 0 128 2",
    "lstm_test 1024 256",
    "1x1024-B64-T128",
    "lstm_profile 1024 256 0 0 128 2",
    "lstm_fast 1024 64 0 0 128 2",
    "lstm_test 1024 64 2 16",
    "lstm_test 1024 64 4 4",
    "lstm_test 1024 16",
    "lstm_test 1024 128",
    "lstm_test 1024 96",
    "lstm_test 512 64",
    "lstm_test 512 256",
    "lstm_test 1024 256 2 16",
    "1x1024-B256-T128",
)


def main(argv: Sequence[str]) -> None:
    """Builds, and runs the cases until the time is over."""
    del argv
    programs = {case.split()[0] for case in CASES} & set(PRODUCTS)
    with on_a_gpu() as folder:
        build(folder, [*sorted(programs), LIBRARY])
        checks = Checks(SECONDS.value)
        for case in CASES:
            program, *arguments = case.split()
            if program in PRODUCTS:
                checks.run(case, (folder / program, *arguments), PROGRAM_LIMIT)
            else:
                checks.layer("cuda", case, (0, 0), folder)
        checks.end()


if __name__ == "__main__":
    app.run(main)
