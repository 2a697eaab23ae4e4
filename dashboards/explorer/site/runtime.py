"""The files of onnxruntime-web that the static page runs, from npm's registry or a folder."""

from __future__ import annotations

import base64
import gzip
import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

VERSION = "1.30.0"
INTEGRITY = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""SHA-512 of the package, as npm names it."""
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")


def copy_runtime(folder: Path, runtime: Path | None = None) -> None:
    """Put the runtime into a folder, its WebAssembly compressed.

    Args:
        folder: where.
        runtime: a folder that has the files; npm's package, of which the digest is compared, where None.

    Raises:
        ValueError: if npm is not installed, cannot be reached or gives another package, or a file is missing.
    """
    with tempfile.TemporaryDirectory() as temporary:
        found = runtime or _from_npm(Path(temporary))
        for name in RUNTIME:
            path = found / name
            if not path.is_file():
                raise ValueError(f"runtime: expected {name} of onnxruntime-web {VERSION} in {found}; it is not there")
            if path.suffix == ".wasm":
                (folder / f"{name}.gz").write_bytes(gzip.compress(path.read_bytes(), 9, mtime=0))
            else:
                shutil.copyfile(path, folder / name)


def _from_npm(folder: Path) -> Path:
    package = f"onnxruntime-web@{VERSION}"
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(f"runtime: npm fetches {package}, and is not installed; install Node.js, or name --runtime")
    done = subprocess.run([npm, "pack", "--silent", package], cwd=folder, capture_output=True, text=True, check=False)
    archive = next(folder.glob("*.tgz"), None)
    if done.returncode or archive is None:
        reason = " ".join(done.stderr.split())[:200]
        raise ValueError(f"runtime: npm could not fetch {package} ({reason}); or name a copy with --runtime")
    if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != INTEGRITY:
        raise ValueError(f"runtime: {package} is not the file that was expected; nothing was written")
    with tarfile.open(archive) as files:
        files.extractall(folder, [files.getmember(f"package/dist/{name}") for name in RUNTIME], filter="data")
    return folder / "package" / "dist"
