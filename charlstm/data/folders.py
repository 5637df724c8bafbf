"""Chooses the files of a folder, of a glob pattern or of an archive that are read as text.

Of a folder these are left out, and counted by kind:

  hidden       files and folders whose names begin with a dot
  run folder   folders that runs of charlstm write to; of the folder itself, what its run wrote
  cache        folders with a CACHEDIR.TAG, __pycache__, the cache folder of charlstm
  link         links to folders; a link to a file is read like that file
  no file      sockets, devices, links to nothing
  binary       files with a NUL byte in their first 8 kB; texts in UTF-16 have some too
  packed       what `packed.py` cannot unpack

The same holds for an archive, but all links in it are left out. A glob pattern names its files:
only what is no file, is in a run folder below the pattern's first wildcard, or in a folder to which
`**` comes by a link, is left out.
"""

import functools
import glob
import os
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath

from charlstm.runtime.files import cache_folder

FILE, FOLDER = "file", "folder"
HIDDEN, OF_RUNS, CACHE, BINARY, PACKED = "hidden", "run folder", "cache", "binary", "packed"
LINK, NO_FILE = "link", "no file"

# What runs write that is not hidden. A run that ended early has left some of it.
_RUN_MARKS = frozenset({"about.json", "checkpoints", "metrics.jsonl", ".lock"})
_RUN_FILES = frozenset(
    {"about.json", "checkpoints", "config.json", "metrics.jsonl", "metrics.jsonl.damaged"}
    | {"profile", "report.html", "samples", "tensorboard", "wandb", "wandb_id"}
)

# Takes a folder, as `""` or `"a/b/"`, and returns what each of its entries is, by name: `FILE`,
# `FOLDER`, or the kind under which it is left out.
Tree = Callable[[str], Mapping[str, str]]


class Tally:
    """Counts the files that are read, and by kind what is left out."""

    def __init__(self) -> None:
        self.num_read = 0
        self.left_out: Counter[str] = Counter()

    def __str__(self) -> str:
        files = "1 file" if self.num_read == 1 else f"{self.num_read:,} files"
        return f"read {files}{self.describe_left_out()}"

    def describe_left_out(self) -> str:
        """Returns what was left out in parentheses after a space; nothing if that was nothing."""
        kinds = ", ".join(f"{count:,} × {kind}" for kind, count in sorted(self.left_out.items()))
        return f" (left out {kinds})" if kinds else ""


def files_of(tree: Tree, tally: Tally) -> list[str]:
    """Returns the paths of the files of a tree that are read, in order; raises as the tree does."""
    chosen: list[str] = []
    waiting = [("", tree(""))]
    while waiting:
        folder, entries = waiting.pop()
        is_run = _is_run(entries)  # of the tree's own folder: no other run folder is entered
        for name, kind in entries.items():
            path = folder + name
            if name.startswith("."):
                kind = HIDDEN
            elif is_run and name in _RUN_FILES:
                kind = OF_RUNS
            elif kind == FOLDER:
                below = tree(f"{path}/")
                if _is_run(below):
                    kind = OF_RUNS
                elif name == "__pycache__" or "CACHEDIR.TAG" in below:
                    kind = CACHE
                else:
                    waiting.append((f"{path}/", below))
                    continue
            if kind == FILE:
                chosen.append(path)
            else:
                tally.left_out[kind] += 1
    return sorted(chosen)


def files_below(folder: Path, tally: Tally) -> list[Path]:
    """Returns the files of a folder that are read, in order of their paths below it.

    Raises:
      OSError: a folder cannot be read.
    """
    return [folder / name for name in files_of(_on_disk(folder), tally)]


def split_pattern(pattern: str) -> tuple[Path, str]:
    """Splits a path into the folder that its first parts name, and the rest.

    Parts that exist as they are written are taken literally, whatever signs they have.
    """
    base, parts = Path(), list(Path(pattern).parts)
    while parts and (base / parts[0]).exists():
        base /= parts.pop(0)
    return base, os.path.join("", *parts)


def files_matching(base: Path, pattern: str, tally: Tally) -> list[Path]:
    """Returns the files below `base` that a pattern names, in sorted order; `**` spans folders."""
    tree = _on_disk(base)
    is_run = functools.cache(lambda folder: _is_run(tree(folder)))
    files: list[Path] = []
    for name in sorted(glob.glob(pattern, root_dir=base, recursive=True)):
        first, *_ = PurePath(name).parts
        folders = [f"{folder}/" for folder in list(PurePath(name).parents)[:-1]]
        if any(map(is_run, folders)) or (first in _RUN_FILES and is_run("")):
            tally.left_out[OF_RUNS] += 1
        elif "**" in pattern and any((base / folder).is_symlink() for folder in folders):
            tally.left_out[LINK] += 1  # it may lead round in a circle
        elif (base / name).is_file():
            files.append(base / name)
        else:
            tally.left_out[NO_FILE] += 1
    return files


def tree_of(kinds: Mapping[str, str]) -> Tree:
    """Returns the tree of an archive from what its members are, by path, such as `a/b.txt`."""
    folders: dict[str, dict[str, str]] = {"": {}}
    for path, kind in kinds.items():
        *parents, name = path.split("/")
        folder = ""
        for parent in parents:
            folders[folder][parent] = FOLDER
            folder += f"{parent}/"
            folders.setdefault(folder, {})
        folders[folder].setdefault(name, kind)
        if kind == FOLDER:
            folders.setdefault(f"{path}/", {})
    return lambda folder: folders[folder]


def _is_run(entries: Mapping[str, str]) -> bool:
    return "config.json" in entries and not _RUN_MARKS.isdisjoint(entries)


def _on_disk(root: Path) -> Tree:
    own_cache = os.path.realpath(cache_folder())

    def kind(path: str) -> str:
        if os.path.isdir(path):
            if os.path.islink(path):
                return LINK
            return CACHE if os.path.realpath(path) == own_cache else FOLDER
        return FILE if os.path.isfile(path) else NO_FILE

    def entries(folder: str) -> dict[str, str]:
        return {entry.name: kind(entry.path) for entry in os.scandir(root / folder)}

    return entries
