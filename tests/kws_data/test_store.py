from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import psutil
import pytest
import soundfile

from kws_data import store as store_module
from kws_data.audio import AudioFile, read_pcm, to_int16
from kws_data.catalog import scan, usable
from kws_data.clip_format import AudioRules
from kws_data.errors import KwsError
from kws_data.storage import parallel
from kws_data.storage import seal as seal_module
from kws_data.store import ClipStore, fingerprint, open_store
from tests.conftest import ROOT, MakeFolder

BUILD = """
import sys, time
from pathlib import Path
from kws_data import store
from kws_data.catalog import scan, usable

class Slow(store._Packer):
    def __call__(self, places):
        with open(sys.argv[2], "a") as log:
            log.write("built\\n")
        time.sleep(1)  # so that the builders overlap
        return super().__call__(places)

store._Packer = Slow
root = Path(sys.argv[1])
catalog = usable(scan(root))
print("ready", flush=True)
sys.stdin.readline()
opened = store.open_store(root, catalog, 16000)
print(opened.folder, int(opened.pcm.astype("int64").sum()), flush=True)
"""


def anonymous_bytes() -> int:
    """Memory of this process that no file stands behind; mapped pages don't count."""
    status = Path("/proc/self/status")
    if not status.is_file():
        return psutil.Process().memory_full_info().uss
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) * 1024


def opened(root: Path, sample_rate: int = 16000) -> ClipStore:
    return open_store(root, usable(scan(root)), sample_rate)


def clip_of(store: ClipStore, path: str) -> np.ndarray:
    row = store.clips.set_index("path").loc[path]
    return store.pcm[row["offset"] : row["offset"] + row["length"]]


@pytest.mark.parametrize("workers", [False, True])
def test_real_clips_are_bit_equal_to_the_files(
    real_data: Path, workers: bool, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    if workers:
        monkeypatch.setattr(parallel, "SMALL_JOB", 0)
    catalog = usable(scan(real_data)).iloc[::4]
    store = open_store(real_data, catalog, 16000)
    assert store.clips["path"].tolist() == catalog["path"].tolist()
    assert store.clips["error"].eq("").all()
    for row in store.clips.itertuples():
        samples, rate = soundfile.read(real_data / row.path, dtype="int16")
        np.testing.assert_array_equal(store.pcm[row.offset : row.offset + row.length], samples)
        assert rate == 16000
    assert store.folder.is_relative_to(cache)


def test_mixed_formats_and_rates_are_packed_as_decoded(make_folder: MakeFolder) -> None:
    root = make_folder(speakers=2)
    noise = np.random.default_rng(0).normal(0, 0.1, (44101, 2))
    for name, rate in (("a.flac", 44100), ("b.mp3", 48000), ("c.ogg", 22050), ("d.wav", 8000), ("e.wav", 11025)):
        soundfile.write(root / "yes" / name, noise, rate)
    store = opened(root)
    assert len(store.clips) == 3 * 2 + 2 + 5
    for path in store.clips["path"]:
        np.testing.assert_array_equal(clip_of(store, path), read_pcm(root / path, 16000))
    places = store.clips.sort_values("offset")
    assert (places["offset"] + places["length"]).to_numpy()[:-1].max() <= len(store.pcm)
    assert ((places["offset"] + places["length"]).to_numpy()[:-1] <= places["offset"].to_numpy()[1:]).all()


def test_equal_content_has_an_equal_hash_and_other_content_another(tmp_path: Path) -> None:
    (tmp_path / "yes").mkdir()
    samples = to_int16(np.random.default_rng(0).normal(0, 0.1, 8000))
    soundfile.write(tmp_path / "yes" / "a.wav", samples, 16000)
    soundfile.write(tmp_path / "yes" / "b.flac", samples, 16000, subtype="PCM_16")
    soundfile.write(tmp_path / "yes" / "c.wav", samples[:-1], 16000)
    one_off = samples.copy()
    one_off[4000] += 1
    soundfile.write(tmp_path / "yes" / "d.wav", one_off, 16000)
    a, b, c, d = opened(tmp_path).clips["content"]
    assert a == b
    assert len({a, c, d}) == 3


def test_files_that_cannot_be_decoded_are_listed(make_folder: MakeFolder) -> None:
    root = make_folder(speakers=2)
    soundfile.write(root / "yes" / "a.flac", np.random.default_rng(0).normal(0, 0.1, 16000), 16000)
    (root / "yes" / "a.flac").write_bytes((root / "yes" / "a.flac").read_bytes()[:9000])
    store = opened(root)
    bad = store.clips[store.clips["error"] != ""]
    assert bad["path"].tolist() == ["yes/a.flac"]
    assert bad["length"].tolist() == [0]
    np.testing.assert_array_equal(
        clip_of(store, "yes/00000000_nohash_0.wav"), read_pcm(root / "yes/00000000_nohash_0.wav", 16000)
    )


def test_files_longer_or_shorter_than_their_headers_said_leave_their_neighbours_alone(make_folder: MakeFolder) -> None:
    root = make_folder(speakers=3)
    catalog = usable(scan(root))
    catalog["num_samples"] = [[500, 16000, 10**15, 1][number % 4] for number in range(len(catalog))]
    store = open_store(root, catalog, 16000)
    for path in store.clips["path"]:
        np.testing.assert_array_equal(clip_of(store, path), read_pcm(root / path, 16000))


def test_an_empty_catalog_makes_an_empty_store(tmp_path: Path) -> None:
    assert len(opened(tmp_path).clips) == 0


def test_a_store_is_built_once_and_anew_when_a_file_changes(make_folder: MakeFolder, builds: list[Path]) -> None:
    root = make_folder(speakers=2)
    first = opened(root).folder
    assert opened(root).folder == first
    assert len(builds) == 1
    path = root / "yes" / "00000000_nohash_0.wav"
    soundfile.write(path, np.full(500, 0.25), 16000)
    changed = opened(root)
    assert changed.folder != first
    assert clip_of(changed, "yes/00000000_nohash_0.wav").tolist() == [8192] * 500
    assert len(opened(root, 8000).pcm) < len(changed.pcm)
    assert len(builds) == 3


def test_a_fingerprint_names_the_files_and_the_rate(make_folder: MakeFolder) -> None:
    root = make_folder(speakers=2)
    catalog = usable(scan(root))
    names = {
        fingerprint(root, catalog, 16000), fingerprint(root, catalog, 8000), fingerprint(root / "x", catalog, 16000),
        fingerprint(root, catalog.iloc[1:], 16000), fingerprint(root, catalog.assign(mtime_ns=1), 16000),
        fingerprint(root, catalog.assign(bytes=1), 16000), fingerprint(root, catalog, 16000, AudioRules(levels="clip")),
    }  # fmt: skip
    assert len(names) == 7
    assert fingerprint(root, catalog.copy(), 16000) == fingerprint(root, catalog, 16000)


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The stores that were built."""
    built: list[Path] = []
    build = store_module._build

    def counted(folder: Path, *rest: Any) -> None:
        built.append(folder)
        build(folder, *rest)

    monkeypatch.setattr(store_module, "_build", counted)
    return built


def exchanged(real_data: Path, folder: Path) -> tuple[list[Path], list[Path]]:
    """Two words of real clips, all of one size and time."""
    words = []
    for word in ("yes", "no"):
        (folder / word).mkdir(parents=True)
        whole = [path for path in sorted((real_data / word).iterdir()) if path.stat().st_size == 32044][:5]
        words.append([Path(shutil.copy(path, folder / word)) for path in whole])
        for path in words[-1]:
            os.utime(path, (315532800, 315532800))
    return words[0], words[1]


@pytest.mark.parametrize("rename", [False, True])
def test_other_audio_of_the_same_size_and_time_is_noticed(
    real_data: Path, tmp_path: Path, builds: list[Path], rename: bool, caplog: pytest.LogCaptureFixture
) -> None:
    yes, no = exchanged(real_data, tmp_path / "clips")
    first = opened(tmp_path / "clips")
    for a, b in zip(yes, no, strict=True):
        if rename:
            a.rename(tmp_path / "kept"), b.rename(a), (tmp_path / "kept").rename(b)
        else:
            contents = b.read_bytes(), a.read_bytes()
            for path, content in zip((a, b), contents, strict=True):
                path.write_bytes(content)
                os.utime(path, (315532800, 315532800))
    second = opened(tmp_path / "clips")
    assert second.folder == first.folder
    for path in second.clips["path"]:
        np.testing.assert_array_equal(clip_of(second, path), read_pcm(tmp_path / "clips" / path, 16000))
    assert "10 files" in caplog.text
    assert opened(tmp_path / "clips").folder == first.folder
    assert len(builds) == 2


def test_a_copied_folder_finds_its_store(real_data: Path, tmp_path: Path, builds: list[Path]) -> None:
    exchanged(real_data, tmp_path / "clips")
    first = opened(tmp_path / "clips")
    shutil.copytree(tmp_path / "clips", tmp_path / "copy")
    shutil.rmtree(tmp_path / "clips")
    (tmp_path / "copy").rename(tmp_path / "clips")
    decoded: list[Path] = []
    with mock.patch.object(
        store_module, "AudioFile", lambda path, *rest: decoded.append(path) or AudioFile(path, *rest)
    ):
        assert opened(tmp_path / "clips").folder == first.folder
        assert len(decoded) == 10
        opened(tmp_path / "clips")
        (tmp_path / "clips" / "yes").chmod(0o700)
        opened(tmp_path / "clips")
    assert len(decoded) == 10
    assert len(builds) == 1


def test_renewing_decodes_everything(make_folder: MakeFolder, builds: list[Path]) -> None:
    root = make_folder(speakers=2)
    first = opened(root)
    assert open_store(root, usable(scan(root)), 16000, renew=True).folder == first.folder
    assert len(builds) == 2


@pytest.mark.parametrize("file", ["pcm.i16", "clips.parquet", "seal.json"])
@pytest.mark.parametrize("damage", ["truncated", "emptied", "overwritten", "lost"])
def test_a_damaged_store_heals_itself_with_one_line(
    make_folder: MakeFolder, builds: list[Path], file: str, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_folder(speakers=2)
    path = opened(root).folder / file
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "overwritten":
        path.write_bytes(content[: len(content) // 2] + bytes(64) + content[len(content) // 2 + 64 :])
    else:
        path.unlink()
    caplog.clear()
    store = opened(root)
    for clip in store.clips["path"]:
        np.testing.assert_array_equal(clip_of(store, clip), read_pcm(root / clip, 16000))
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert "is damaged" in caplog.text
    opened(root)
    assert len(builds) == 2


def test_a_large_store_that_was_overwritten_is_noticed(
    make_folder: MakeFolder, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal_module, "_HASHED_BYTES", 1000)
    root = make_folder(speakers=2)
    with (opened(root).folder / "pcm.i16").open("r+b") as file:
        file.write(bytes(1000))
    opened(root)
    assert len(builds) == 2


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EACCES])
def test_a_full_or_closed_disk_is_reported_in_one_line(
    make_folder: MakeFolder, cache: Path, monkeypatch: pytest.MonkeyPatch, failure: int
) -> None:
    def fail(*_: object) -> None:
        raise OSError(failure, os.strerror(failure))

    root = make_folder(speakers=2)
    with monkeypatch.context() as context:
        context.setattr(store_module._Packer, "__call__", fail)
        with pytest.raises(KwsError, match=f"{os.strerror(failure)}.*KWS_DATA") as info:
            opened(root)
    assert "\n" not in str(info.value)
    assert not [path for path in (cache / "stores").iterdir() if path.is_dir()]  # nothing half-written is left
    assert len(opened(root).clips) == 8


def test_a_cache_that_is_not_a_folder_is_refused(
    make_folder: MakeFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder(speakers=2)
    catalog = usable(scan(root))
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KWS_DATA", str(tmp_path / "file"))
    with pytest.raises(KwsError, match="KWS_DATA"):
        open_store(root, catalog, 16000)


@pytest.mark.slow
def test_two_processes_that_start_at_once_build_one_store(make_folder: MakeFolder, tmp_path: Path, cache: Path) -> None:
    root = make_folder(speakers=5)
    command = [sys.executable, "-c", BUILD, str(root), str(tmp_path / "log")]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert outputs[0] == outputs[1]
    assert (tmp_path / "log").read_text() == "built\n"
    assert len([path for path in (cache / "stores").iterdir() if path.is_dir()]) == 1


def test_memory_does_not_grow_with_the_data_that_is_read(tmp_path: Path) -> None:
    (tmp_path / "yes").mkdir()
    generator = np.random.default_rng(0)
    for number in range(6):  # 6 x 20 MB of samples
        samples = generator.integers(-1000, 1000, 10_000_000).astype(np.int16)
        soundfile.write(tmp_path / "yes" / f"{number}.wav", samples, 16000)
        del samples
    opened(tmp_path)
    before = anonymous_bytes()
    store = opened(tmp_path)
    assert not store.pcm.flags.writeable
    total = sum(int(store.pcm[start : start + 16000].sum()) for start in range(0, len(store.pcm) - 16000, 16000))
    assert isinstance(total, int)
    assert anonymous_bytes() - before < 5_000_000


def test_the_table_keeps_its_types(make_folder: MakeFolder) -> None:
    table = opened(make_folder(speakers=2)).clips
    assert {"path", "offset", "length", "content", "full_scale", "muted", "error"} < set(table.columns)
    assert pd.api.types.is_integer_dtype(table["offset"])
    assert pd.api.types.is_integer_dtype(table["length"])


def test_a_store_that_is_replaced_while_it_is_opened_is_opened_again(
    make_folder: MakeFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_folder()
    first, real, moved = opened(root), store_module._is_current, []

    def current_then_gone(folder: Path, catalog: pd.DataFrame) -> bool:
        current = real(folder, catalog)
        if not moved:  # another process, that holds the lock, moves the old one aside
            moved.append(folder.rename(folder.with_name("aside")))
        return current

    monkeypatch.setattr(store_module, "_is_current", current_then_gone)
    np.testing.assert_array_equal(opened(root).pcm, first.pcm)
    assert moved
