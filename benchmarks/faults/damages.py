"""Files of a run that are damaged: one bit flipped, cut short, emptied, or deleted."""

import json
import random
import shutil
from pathlib import Path

import charlstm
from benchmarks.faults.ends import Expected, Keeping, checkpoint, require, require_one_line
from benchmarks.faults.runs import Bench
from charlstm.checkpoint import reading
from charlstm.checkpoint.metadata import read_metadata
from charlstm.report import page
from charlstm.report.runs import readers
from charlstm.training.metrics_file import FILE as METRICS_FILE
from charlstm.training.metrics_file import SAMPLES_FOLDER

# The runs that are damaged have made so many updates, and have these checkpoints.
STOPPED_AT = 27
CHECKPOINTS = (12, 16, 24, 26, STOPPED_AT)
FILES = (METRICS_FILE, "config.json", "about.json")
COMMANDS = ("train", "train", "train", "sample", "evaluate", "inspect", "report")


def damaged_file(bench: Bench, rng: random.Random, folder: Path) -> int:
    """Damages a file and reads all models in this process; returns 1."""
    expected = bench.expected()
    _copy(expected, folder)
    path = _damage(rng, folder)
    for step in CHECKPOINTS:
        saved, was = checkpoint(folder, step), checkpoint(expected.folder, step)
        is_damaged = saved in path.parents
        try:
            is_noticed = reading.check(saved) != read_metadata(was)
        except charlstm.UserError:
            is_noticed = True
        # What changes in metadata may be a blank between two values.
        is_blank = is_damaged and path.parent.name == "metadata"
        require(is_noticed == is_damaged or is_blank, f"only {path} is called damaged", saved)
        try:
            expected.require_same_model(charlstm.load(saved), step)
        except charlstm.UserError as error:
            require(is_damaged, f"{saved} is read", error)
    chosen, best = int(reading.resolve(folder).name), expected.best_of(CHECKPOINTS)
    expected.require_same_model(charlstm.load(folder), chosen)
    may_differ = checkpoint(folder, best) in path.parents
    require(chosen == best or may_differ, f"{best} is the best checkpoint", chosen)
    try:
        page.render([reader.read() for reader in readers([str(folder)])], folder / "report.html")
    except charlstm.UserError as error:
        require(path.name == "config.json", "a page", error)
    return 1


def damaged_run(bench: Bench, rng: random.Random, folder: Path) -> int:
    """Damages a file of a run, then starts a command; returns 1."""
    expected = bench.expected()
    _copy(expected, folder)
    path = _damage(rng, folder)
    name = rng.choice(COMMANDS)
    if name == "train":
        _resume(bench, expected, Keeping.draw(rng), folder, path)
        return 1
    done = bench.call(reading_command(bench, name, folder, folder))
    if done.returncode:
        require_one_line(done.returncode, done.stderr, str(folder))
        return 1
    require("Traceback" not in done.stderr, f"{name} without a traceback", done.stderr[-3000:])
    if name == "report":
        return 1
    chosen, best = int(reading.resolve(folder).name), expected.best_of(CHECKPOINTS)
    is_told = "passing over the checkpoint" in done.stderr
    require(is_told or chosen == best, f"{name} says that it passes over {best}", done.stderr)
    if name != "inspect":
        whole = bench.call(
            reading_command(bench, name, checkpoint(expected.folder, chosen), folder)
        )
        found, wanted = (_result(name, output) for output in (done.stdout, whole.stdout))
        require(found == wanted, f"what {name} gives for update {chosen}: {wanted}", found)
    return 1


def _resume(bench: Bench, expected: Expected, keeping: Keeping, folder: Path, path: Path) -> None:
    """Goes on with a damaged run, and makes sure that it ends as it should."""
    with bench.training(folder, *keeping.flags) as (process,):
        code, said = process.end(), process.said
    if code:
        require_one_line(code, said, str(folder))
        return
    require("Traceback" not in said, "no traceback", said[-3000:])
    newest = checkpoint(folder, STOPPED_AT)
    is_told = f"passing over the checkpoint {newest}" in said
    goes_on = f"going on from update {STOPPED_AT} " in said
    if newest in path.parents and path.parent.name != "metadata":
        require(is_told, f"a line that {newest} is passed over", said[-3000:])
    require(is_told or goes_on, f"it goes on from update {STOPPED_AT}", said[-3000:])
    lines_after = STOPPED_AT if path.name == METRICS_FILE else 0
    expected.require_same_end(
        folder,
        keeping=keeping,
        lines_after=lines_after,
        is_best_whole=checkpoint(folder, expected.best) not in path.parents,
    )


def _copy(expected: Expected, folder: Path) -> None:
    """Makes a run folder as a run leaves it that ends after some updates."""
    folder.mkdir()
    for step in CHECKPOINTS:
        shutil.copytree(checkpoint(expected.folder, step), checkpoint(folder, step))
    for name in FILES:
        shutil.copy(expected.folder / name, folder)
    lines = (folder / METRICS_FILE).read_bytes().splitlines(keepends=True)
    kept = [line for line in lines if json.loads(line)["step"] <= STOPPED_AT]
    (folder / METRICS_FILE).write_bytes(b"".join(kept))
    (folder / SAMPLES_FOLDER).mkdir()
    for name in expected.samples:
        if int(Path(name).stem) <= STOPPED_AT:
            shutil.copy(expected.folder / SAMPLES_FOLDER / name, folder / SAMPLES_FOLDER)


def _damage(rng: random.Random, folder: Path) -> Path:
    """Damages one file of a run folder; returns its path."""
    step = STOPPED_AT if rng.random() < 0.5 else rng.choice(CHECKPOINTS)
    # Orbax gives files names by chance; their sizes are the same in every campaign.
    found = [path for path in checkpoint(folder, step).rglob("*") if path.is_file()]
    found = [path for path in found if path.stat().st_size]
    found.sort(key=lambda path: (path.stat().st_size, path))
    path = rng.choice(found) if rng.random() < 0.85 else folder / rng.choice(FILES)
    content = bytearray(path.read_bytes())
    how = rng.choice(("flipped", "flipped", "cut", "emptied", "deleted"))
    if how == "flipped":
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
    elif how == "deleted":
        path.unlink()
    else:
        path.write_bytes(content[: rng.randrange(len(content)) if how == "cut" else 0])
    return path


def reading_command(bench: Bench, name: str, path: Path, folder: Path) -> list[str]:
    """Returns a command that reads the model, or the run, at a path."""
    page_flag = f"--output={folder / 'page.html'}"
    if name == "report":
        return bench.command(name, str(path), page_flag)
    more = {
        "sample": ["--num_bytes=20", "--raw"],
        "evaluate": [f"--corpus={bench.text}", "--json"],
        "inspect": [f"--corpus={bench.text}", "--max_bytes=1000", page_flag],
    }
    return bench.command(name, f"--checkpoint={path}", *more[name])


def _result(name: str, output: str) -> str:
    return output if name == "sample" else str(json.loads(output)["bits_per_byte"])
