import hashlib
import importlib.util
import io
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from charlstm.data.fetch import Archive, FetchError, fetched

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all that pip can find packages in."""
    folder = tmp_path / "packages"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def put_wheel(folder: Path) -> Archive:
    path = folder / "booktext-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("booktext/book.txt", "some text")
        information = (
            "Metadata-Version: 2.1\nName: booktext\nVersion: 1.0\nRequires-Dist: nowhere\n"
        )
        file.writestr("booktext-1.0.dist-info/METADATA", information)
        file.writestr("booktext-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    return Archive("booktext", "1.0", "wheel", hashlib.sha256(path.read_bytes()).hexdigest())


def put_sdist(folder: Path, setup: str = "") -> Archive:
    path = folder / "booktext-1.0.tar.gz"
    information = "Metadata-Version: 2.1\nName: booktext\nVersion: 1.0\n"
    files = {"setup.py": setup, "PKG-INFO": information, "book.txt": "some text"}
    with tarfile.open(path, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"booktext-1.0/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return Archive("booktext", "1.0", "sdist", hashlib.sha256(path.read_bytes()).hexdigest())


def test_wheel_is_fetched_without_what_it_depends_on(index: Path) -> None:
    archive = put_wheel(index)
    with fetched(archive) as path, zipfile.ZipFile(path) as members:
        assert members.read("booktext/book.txt") == b"some text"
    assert not path.exists()


def test_source_archive_is_fetched_and_none_of_its_code_runs(index: Path, tmp_path: Path) -> None:
    mark = tmp_path / "its code ran"
    archive = put_sdist(index, setup=f"open({str(mark)!r}, 'w')")
    with fetched(archive) as path, tarfile.open(path) as members:
        assert "booktext-1.0/book.txt" in members.getnames()
    assert not mark.exists()


@pytest.mark.parametrize("put", [put_wheel, put_sdist])
def test_archive_other_than_the_pinned_one_is_refused(index: Path, put) -> None:
    pinned = put(index)
    other = Archive(pinned.package, pinned.version, pinned.kind, sha256="0" * 64)
    with pytest.raises(FetchError, match="not the pinned 000000000000"), fetched(other):
        pass


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_version_that_no_index_has_is_reported(index: Path, kind) -> None:
    with pytest.raises(FetchError, match="found"), fetched(Archive("booktext", "2", kind, "")):
        pass


@pytest.mark.parametrize("retries", ["0", "1"])
@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_missing_connection_is_reported_as_such(
    monkeypatch: pytest.MonkeyPatch, kind, retries: str
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/")
    monkeypatch.setenv("PIP_RETRIES", retries)
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    with (
        pytest.raises(FetchError, match="no connection to the package index"),
        fetched(Archive("booktext", "1.0", kind, "")),
    ):
        pass


@pytest.mark.skipif(not importlib.util.find_spec("ensurepip"), reason="Python without ensurepip")
def test_environment_without_pip_can_fetch(index: Path, tmp_path: Path) -> None:
    archive = put_sdist(index)
    venv.create(tmp_path / "bare", with_pip=False, symlinks=True)
    program = (
        "from charlstm.data.fetch import Archive, fetched\n"
        f"with fetched({archive!r}) as path: print(path.name)"
    )
    python = tmp_path / "bare" / "bin" / "python"
    done = subprocess.run(
        [python, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert done.stdout == "booktext-1.0.tar.gz\n"


def test_pip_sees_no_modules_of_the_working_folder(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pip.py").write_text("raise SystemExit('the wrong pip')")
    archive = put_wheel(index)
    program = (
        f"import sys; sys.path.remove(''); sys.path.append({str(REPOSITORY)!r})\n"
        "from charlstm.data.fetch import Archive, fetched\n"
        f"with fetched({archive!r}) as path: print(path.name)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "booktext-1.0-py3-none-any.whl\n"
