"""Does the work of one part in this process, as `schedule.py` asks for it.

A part's module has `measure(work)`. It measures what `work` says is missing, each in the context
`work.result`, which writes the result at once, or why there is none.
"""

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self, TypeVar

import jax

from benchmarks.gpu.parts import Variants
from benchmarks.gpu.results import OK, SKIPPED, Results
from benchmarks.timed_training import Failed
from charlstm.errors import UserError
from charlstm.runtime import xla

T = TypeVar("T")


@dataclasses.dataclass
class Work:
    """Holds what a part's process is told.

    Attributes:
      part: the part's name.
      module: what does the work, below `benchmarks.gpu`.
      seconds: the process is ended after so many.
      folder: where results go.
      tiny: True for a rehearsal.
      variants: all that the part measures.
      missing: the names of those that have no result yet.
      about: device and versions.
    """

    part: str
    module: str
    seconds: float
    folder: str
    tiny: bool
    variants: Variants
    missing: list[str]
    about: dict[str, Any]
    began: float = dataclasses.field(default_factory=time.monotonic)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads what `to_json` wrote; the time begins now."""
        return cls(**json.loads(text))

    def to_json(self) -> str:
        """Writes what the process is told."""
        values = dataclasses.asdict(self)
        del values["began"]
        return json.dumps(values)

    @functools.cached_property
    def results(self) -> Results:
        """Returns where the results go."""
        return Results(Path(self.folder), self.about)

    @property
    def seconds_left(self) -> float:
        """Returns the seconds until the process is ended."""
        return self.began + self.seconds - time.monotonic()

    def turns(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the name and the variant of what is missing, as long as there is time."""
        return self.in_time((name, self.variants[name]) for name in self.missing)

    def in_time(self, items: Iterable[T]) -> Iterator[T]:
        """Yields items until the time that is left is less than what the slowest of them took."""
        slowest = 0.0
        for item in items:
            if self.seconds_left < slowest:
                return
            begin = time.monotonic()
            yield item
            slowest = max(slowest, time.monotonic() - begin)

    @contextlib.contextmanager
    def result(self, name: str) -> Iterator[dict[str, Any]]:
        """Takes the figures of a variant and writes them, or the reason why there are none."""
        figures: dict[str, Any] = {}
        status = OK
        try:
            yield figures
        except UserError as error:
            status = f"{SKIPPED}: {error}"
        except Failed as error:
            status = f"failed: {error}"
        except Exception as error:  # the other variants go on
            traceback.print_exc()
            text = " ".join(str(error).split())
            status = f"failed: {type(error).__name__}: {text}"[:300]
        self.results.add(self.part, name, status, figures)


def main() -> None:
    """Does what the first argument says."""
    work = Work.from_json(sys.argv[1])
    xla.keep_compiled_programs()  # many variants start from the same state
    if folder := jax.config.values["jax_compilation_cache_dir"]:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder  # for competitors, too
    importlib.import_module(work.module, package="benchmarks.gpu").measure(work)


if __name__ == "__main__":
    main()
