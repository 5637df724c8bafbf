"""Disturbs runs at random, and compares how they end with undisturbed ones.

  python -m benchmarks.faults --minutes=10 --seed=1
  python -m benchmarks.faults --amounts=kill=100,signal=60,damage=500
  python -m benchmarks.faults --only=kill            # one kind of fault
  python -m benchmarks.faults --only=kill:1234567    # one trial again, by its seed

The exit code is 1 if anything failed; then the line that says so has the trial's seed.
"""

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags, logging

from benchmarks import common
from benchmarks.faults.campaign import KINDS, MEANINGS, Campaign, Trial
from benchmarks.faults.runs import Bench
from benchmarks.reporting import Column
from charlstm.training.run_info import versions

_MINUTES = flags.DEFINE_float("minutes", 10.0, "No trial is begun that would end later.", 0.0)
_SEED = flags.DEFINE_integer("seed", 0, "Of the campaign; each trial has a seed of its own.")
_AMOUNTS = flags.DEFINE_list(
    "amounts", [], "KIND=NUMBER of faults that are tried, however long it takes; see --only."
)
_JOBS = flags.DEFINE_integer("jobs", 1, "With --amounts: kinds that are tried at a time.", 1)
_ONLY = flags.DEFINE_string("only", None, f"KIND or KIND:SEED; kinds are {', '.join(KINDS)}.")
_FOLDER = flags.DEFINE_string(
    "folder", None, "Where the runs are; by default a temporary folder, kept if anything failed."
)


def _are_amounts(amounts: Sequence[str]) -> bool:
    pairs = [amount.partition("=") for amount in amounts]
    return all(kind in KINDS and number.isdecimal() for kind, _, number in pairs)


def _is_kind(only: str | None) -> bool:
    kind, has_seed, seed = (only or "kill").partition(":")
    return kind in KINDS and (not has_seed or seed.isdecimal())


flags.register_validator("amounts", _are_amounts, f"KIND=NUMBER, of {', '.join(KINDS)}")
flags.register_validator("only", _is_kind, f"KIND or KIND:SEED, of {', '.join(KINDS)}")

_COLUMNS = (
    Column("kind", "kind"),
    Column("meaning", "what happened to a run"),
    Column("tried", "trials"),
    Column("faults", "faults"),
    Column("survived", "survived"),
    Column("failed", "failed"),
)


def main(argv: Sequence[str]) -> None:
    """Runs the campaign."""
    del argv
    logging.set_verbosity(logging.ERROR)  # what is read in this process is damaged by intention
    report = common.new_report("faults", "Faults survived")
    report.learn({"versions": versions()})
    folder = Path(_FOLDER.value or tempfile.mkdtemp(prefix="charlstm-faults-"))
    campaign = Campaign(Bench(folder), common.say)
    kind, _, seed = (_ONLY.value or "").partition(":")
    if seed:
        campaign.run(Trial(kind, int(seed)))
    elif _AMOUNTS.value:
        amounts = {kind: int(n) for kind, n in (amount.split("=") for amount in _AMOUNTS.value)}
        campaign.run_amounts(amounts, _SEED.value, _JOBS.value)
    else:
        campaign.run_for(60 * _MINUTES.value, [kind] if kind else list(KINDS), _SEED.value)
    rows = report.table("Trials", _COLUMNS)
    for kind, tally in campaign.tallies.items():
        row = {"tried": tally.tried, "faults": tally.faults, "survived": tally.survived}
        failed = {"failed": len(tally.failed), "trials_that_failed": tally.failed}
        rows.append({"kind": kind, "meaning": MEANINGS[kind]} | row | failed)
    report.notes.append(
        "A trial is survived if the run ends as an undisturbed one, bit for bit, and everything "
        "that was said on the way is as [`docs/durability.md`](../../docs/durability.md) promises."
    )
    report.write()
    if not campaign.failed and not _FOLDER.value:
        shutil.rmtree(folder)
    sys.exit(bool(campaign.failed))


if __name__ == "__main__":
    app.run(main)
