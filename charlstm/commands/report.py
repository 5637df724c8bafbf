"""A page with a run's curves, samples and figures; several runs side by side.

  charlstm report runs/quickstart --output=report.html
  charlstm report runs/small runs/large
  charlstm report runs/quickstart --watch

The page is one file that needs nothing else. With --watch it is written again as the run goes on,
and an open page follows.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags, logging

from charlstm.commands import _flags, _shared
from charlstm.errors import UserError
from charlstm.storage import paths

_OUTPUT = _flags.define_path(
    "output", None, "The page to write; RUN/report.html if not given, of several runs report.html."
)
_WATCH = flags.DEFINE_boolean("watch", False, "Write it again as the run goes on, to its end.")
_EVERY = flags.DEFINE_integer("every", 10, "Seconds between two looks at the run, with --watch.", 1)


def main(argv: Sequence[str]) -> None:
    """Reports as the arguments say."""
    runs = [_flags.expanded(path) for path in argv[1:]]
    if not runs:
        raise UserError("no run is named: charlstm report RUN, such as runs/quickstart")
    folder = paths.local(runs[0], refreshed=False) if len(runs) == 1 else Path()
    output = _shared.page_to_write(_OUTPUT.value) if _OUTPUT.value else folder / "report.html"
    from charlstm.report import watch
    from charlstm.report.runs import readers

    if _WATCH.value:
        watch.watch(readers(runs), output, _EVERY.value)
    else:
        watch.write_report(readers(runs), output)
    logging.info("open %s in a browser", output)
