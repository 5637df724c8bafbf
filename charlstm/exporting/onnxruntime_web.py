"""ONNX Runtime for browsers: one pinned package of npm, and what a page needs of it.

The package is fetched once by npm, kept in the cache folder, and compared with its digest whenever
it is read. None of its code is run here.
"""

import base64
import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from charlstm.errors import UserError
from charlstm.pages.play import Runtime
from charlstm.runtime.files import cache_folder, replace_file

NAME, VERSION = "onnxruntime-web", "1.30.0"
# As npm has it: `npm view onnxruntime-web@VERSION dist.integrity`.
INTEGRITY = "sha512-" + (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
_MODULE = "package/dist/ort.wasm.bundle.min.mjs"
_WASM = "package/dist/ort-wasm-simd-threaded.wasm"
_EXPORTS = re.compile(r"export\{([^{}]*)\};\s*(//# sourceMappingURL=\S*\s*)?$")

# What the package says of itself, with the text of the licence that it names.
LICENCE = f"""ONNX Runtime Web {VERSION}

MIT License

Copyright (c) Microsoft Corporation

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial
portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES
OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT OF OR IN
CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

It contains other software; the file ThirdPartyNotices.txt of its sources has their licences:
https://github.com/microsoft/onnxruntime/blob/v{VERSION}/ThirdPartyNotices.txt
"""


def load(package: str | Path | None = None) -> Runtime:
    """Returns the runtime of the pinned package.

    Args:
      package: the package's file, if one has it; else the one in the cache folder, or npm's.

    Raises:
      UserError: there is no such file, it is another package, or npm cannot fetch it.
    """
    content = _fetched() if package is None else _given(Path(package))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        module, wasm = (_member(archive, name) for name in (_MODULE, _WASM))
    return Runtime(VERSION, _as_script(module.decode()), wasm, LICENCE)


def cached_package() -> Path:
    """Returns the path of the package in the cache folder; it need not be there yet."""
    return cache_folder() / NAME / f"{NAME}-{VERSION}.tgz"


def _given(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"--onnxruntime_web={path}: {error.strerror}") from error
    if not _is_pinned(content):
        raise UserError(
            f"--onnxruntime_web={path} is not {NAME} {VERSION} as npm has it (its sha512 differs): "
            f"`npm pack {NAME}@{VERSION}` fetches the file"
        )
    return content


def _fetched() -> bytes:
    path = cached_package()
    if path.is_file():
        content = path.read_bytes()
        if _is_pinned(content):
            return content
    content = _from_npm()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({error.strerror}): free space, or set XDG_CACHE_HOME to another "
            "folder"
        ) from error
    return content


def _from_npm() -> bytes:
    wanted = f"{NAME}@{VERSION}"
    cure = (
        f"run `npm pack {wanted}` where there is a network, and give the file that it writes, "
        "--onnxruntime_web=FILE.tgz"
    )
    npm = shutil.which("npm")
    if npm is None:
        raise UserError(
            f"--format=web needs the package {wanted} of npm, and there is no npm here: install "
            f"Node.js, or {cure}"
        )
    with tempfile.TemporaryDirectory(prefix="charlstm-") as folder:
        result = subprocess.run(
            [npm, "pack", wanted, "--pack-destination", folder, "--ignore-scripts"],
            cwd=folder,  # where no .npmrc and no package of the user's is
            env=os.environ | {"NO_UPDATE_NOTIFIER": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        files = list(Path(folder).glob("*.tgz"))
        if result.returncode != 0 or len(files) != 1:
            raise UserError(f"npm cannot fetch {wanted} ({_reason(result.stdout)}): {cure}")
        content = files[0].read_bytes()
    if not _is_pinned(content):
        raise UserError(f"what npm fetched is not the pinned {wanted} (its sha512 differs): {cure}")
    return content


def _reason(output: str) -> str:
    """Returns in a few words why npm failed, from its output."""
    errors = re.findall(r"^npm (?:ERR!|error) (.+)$", output, re.MULTILINE)
    told = [line for line in errors if not line.startswith(("code ", "errno ", "syscall ", "A "))]
    return (told or errors or ["it gave no reason"])[0].rstrip(".")[:200]


def _is_pinned(content: bytes) -> bool:
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    return f"sha512-{digest}" == INTEGRITY


def _member(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None  # the package is pinned
    return file.read()


def _as_script(module: str) -> str:
    """Returns a module as a script that sets `ort`.

    A module of a file of its own cannot be imported by a page that is opened from a disk. In one
    that is written into the page, `import.meta.url` is the page's address, in which this one looks
    for its own.
    """
    found = _EXPORTS.search(module)
    assert found is not None  # the package is pinned
    pairs = (item.split(" as ") for item in found[1].split(","))
    names = ",".join(f"{name}:{local}" for local, name in pairs)
    body = module[: found.start()].replace("import.meta.url", '"https://onnxruntime.invalid/"')
    body = body.replace("\r", "").replace("</script", "<\\/script")
    return f"(() => {{\n'use strict';\n{body}\nglobalThis.ort={{{names}}};\n}})();"
