import contextlib
import io
import random
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kws_data.sources.extract import Damaged, extract

CLIPS = {f"{word}/{n}_nohash_0.wav": random.Random(n).randbytes(40_000) for word in ("yes", "no") for n in range(4)}
LITTER = {"._yes": b"x", "yes/._0_nohash_0.wav": b"x", "yes/.DS_Store": b"x"}


def tar_gz(members: dict[str, bytes], prefix: str = "") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(prefix + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def zipped(members: dict[str, bytes], prefix: str = "") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in members.items():
            archive.writestr(prefix + name, content)
    return packed.getvalue()


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def ignore(size: int) -> None:
    pass


def extracted(
    content: bytes, tmp_path: Path, *, root: str = "", advance: Callable[[int], object] = ignore
) -> dict[str, bytes]:
    path, folder = tmp_path / "archive", tmp_path / "folder"
    path.write_bytes(content)
    folder.mkdir()
    extract(path, folder, root=root, advance=advance)
    return files_below(folder)


@pytest.mark.parametrize("pack", [tar_gz, zipped])
@pytest.mark.parametrize("prefix", ["", "./"])
def test_the_clips_come_out_without_the_litter_of_macos(tmp_path, pack, prefix):
    content = pack({**CLIPS, **LITTER, "__MACOSX/yes/a": b"x"}, prefix)
    assert extracted(content, tmp_path) == CLIPS


@pytest.mark.parametrize("pack", [tar_gz, zipped])
@pytest.mark.parametrize("root", ["", "top"])
def test_backslashes_of_windows_separate_folders(tmp_path, pack, root):
    names = {"\\".join(filter(None, [root, *name.split("/")])): clip for name, clip in CLIPS.items()}
    assert extracted(pack(names), tmp_path, root=root) == CLIPS


def test_a_folder_that_ends_in_a_backslash_is_a_folder(tmp_path):
    assert extracted(zipped({"yes\\": b"", "yes\\0.wav": b"clip", "no\\": b""}), tmp_path) == {"yes/0.wav": b"clip"}
    assert (tmp_path / "folder" / "no").is_dir()


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_the_root_inside_the_archive_is_taken_off_and_what_is_beside_it_left_out(tmp_path, pack):
    content = pack({"top/" + name: clip for name, clip in {**CLIPS, **LITTER}.items()} | {"README": b"x"})
    assert extracted(content, tmp_path, root="top") == CLIPS


@pytest.mark.parametrize("pack", [tar_gz, zipped])
def test_a_missing_root_is_refused(tmp_path, pack):
    with pytest.raises(Damaged, match="'top'"):
        extracted(pack(CLIPS), tmp_path, root="top")


def test_progress_counts_the_bytes_of_the_archive(tmp_path):
    counts: list[int] = []
    content = tar_gz(CLIPS)
    extracted(content, tmp_path, advance=counts.append)
    assert sum(counts) == len(content)
    assert len(counts) > 1


def damaged(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :]


DAMAGED = {
    "cut": tar_gz(CLIPS)[:100_000],
    "cut end": tar_gz(CLIPS)[:-4],
    "gzip sum": damaged(tar_gz(CLIPS), -6),  # the checksum after the last member
    "tar byte": damaged(tar_gz(CLIPS), 150_000),
    "cut zip": zipped(CLIPS)[:100_000],
    "zip byte": damaged(zipped(CLIPS), 150_000),
    "html": b"<html>Please log in</html>",
    "nothing": b"",
    "no tar": tar_gz({}),
    "no zip": zipped({}),
    "clash": tar_gz({"yes": b"a file", "yes/0.wav": b"below it"}),
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_archive_is_refused(tmp_path, content):
    with pytest.raises(Damaged):
        extracted(content, tmp_path)


def encrypted_zip() -> bytes:
    content = bytearray(zipped({"yes/0.wav": b"clip"}))
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(header) + flags] |= 1
    return bytes(content)


def test_an_encrypted_archive_is_refused(tmp_path):
    with pytest.raises(Damaged, match="encrypted"):
        extracted(encrypted_zip(), tmp_path)


def tar_with(**fields) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        good = tarfile.TarInfo("yes/0.wav")
        tar.addfile(good, io.BytesIO())
        bad = tarfile.TarInfo()
        for name, value in fields.items():
            setattr(bad, name, value)
        tar.addfile(bad, io.BytesIO(bytes(bad.size)))
    return packed.getvalue()


def zip_with(name: str, mode: int = 0) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("yes/0.wav", b"")
        member = zipfile.ZipInfo(name)
        member.external_attr = mode << 16
        archive.writestr(member, b"../../evil")
    return packed.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        tar_with(name="../evil"),
        tar_with(name="yes/../../../evil"),
        tar_with(name="/tmp/evil"),
        tar_with(name="evil", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        tar_with(name="evil", type=tarfile.SYMTYPE, linkname="yes/0.wav"),
        tar_with(name="evil", type=tarfile.LNKTYPE, linkname="../evil"),
        tar_with(name="evil", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        tar_with(name="evil", type=tarfile.FIFOTYPE),
        zip_with("../evil"),
        zip_with("/tmp/evil"),
        zip_with("..\\evil"),
        zip_with("yes\\..\\..\\evil"),
        zip_with("yes/..\\../evil"),
        zip_with("C:\\evil"),
        zip_with("C:evil"),
        zip_with("\\evil"),
        zip_with("\\\\server\\share\\evil"),
        zip_with("//server/share/evil"),
        tar_with(name="..\\evil"),
        tar_with(name="C:\\evil"),
        zip_with("evil", mode=0o120777),
    ],
)
def test_an_unsafe_member_is_named_and_not_written(tmp_path, content):
    with pytest.raises(Damaged, match="evil"):
        extracted(content, tmp_path)
    assert {path.name for path in tmp_path.rglob("*") if not path.is_dir()} <= {"archive", "0.wav"}
    assert not Path("/tmp/evil").exists()


names = st.text(st.sampled_from("ab./\\~-\n é"), min_size=1, max_size=12)


@given(pack=st.sampled_from([tar_gz, zipped]), members=st.dictionaries(names, st.just(b"clip"), max_size=4))
def test_no_member_name_leads_outside_the_folder(pack, members):
    with tempfile.TemporaryDirectory() as made:
        path, folder = Path(made, "archive"), Path(made, "a", "b", "folder")
        folder.mkdir(parents=True)
        path.write_bytes(pack(members))
        with contextlib.suppress(Damaged):
            extract(path, folder, root="", advance=ignore)
        outside = [found for found in Path(made).rglob("*") if found.is_file() and not found.is_relative_to(folder)]
        assert outside == [path]
