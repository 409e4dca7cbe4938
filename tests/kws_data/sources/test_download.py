import errno
import hashlib
import multiprocessing
import re
import shutil
import socket
import struct
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tqdm import tqdm

from kws_data.errors import KwsError
from kws_data.sources import download
from kws_data.sources.archives import ARCHIVES, Archive, named
from kws_data.sources.download import fetch
from tests.kws_data.sources.test_extract import CLIPS, LITTER, files_below, tar_gz, zipped

TAR = tar_gz(CLIPS)


def described(content: bytes = TAR, file_name: str = "small.tar.gz", **facts) -> Archive:
    facts = {"md5": hashlib.md5(content).hexdigest(), "bytes": len(content)} | facts
    return Archive("small", file_name, **facts)


def fetched(url: str, cache: Path, archive: Archive | None = None) -> dict[str, bytes]:
    """The files of the data set that was fetched, by default of `TAR`."""
    return files_below(fetch(archive or described(), cache=cache, url=url, progress=False))


class Server:
    """Serves `content` for any path, losing the connection half-way in the first `drops` answers."""

    def __init__(self, content: bytes):
        self.content = content
        self.drops = 0
        self.ranges = True
        self.headers: dict[str, str] = {}
        self.status = 200
        self.until = lambda: True  # answers wait for this
        self.asked: list[str | None] = []  # the Range header of each request
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                outer.answer(self)

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}/data"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked.append(request.headers.get("Range"))
        deadline = time.monotonic() + 30
        while not self.until() and time.monotonic() < deadline:
            time.sleep(0.01)
        start = int(re.fullmatch(r"bytes=(\d+)-", self.asked[-1])[1]) if self.asked[-1] and self.ranges else 0
        if self.status != 200:
            request.send_error(self.status)
            return
        if start >= len(self.content) > 0:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.content[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.content) - 1}/{len(self.content)}")
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.end_headers()
        if self.drops > 0:
            self.drops -= 1
            request.wfile.write(body[: len(body) // 2])  # the promised Content-Length is not met
        else:
            request.wfile.write(body)

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "_PAUSE_S", 0)
    servers = []

    def start(content: bytes = TAR) -> Server:
        servers.append(Server(content))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def server(serve) -> Server:
    return serve()


def refused(*args, **options) -> str:
    """The one line of the KwsError that fetch raises."""
    with pytest.raises(KwsError) as caught:
        fetch(*args, **options, progress=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left_in(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock"}


# What comes out


@pytest.mark.parametrize("prefix", ["", "./"])
def test_an_archive_is_downloaded_once_and_extracted_without_litter(serve, tmp_path, prefix):
    content = tar_gz({**CLIPS, **LITTER}, prefix)
    server = serve(content)
    folder = fetch(described(content), cache=tmp_path, url=server.url + "/", progress=False)
    assert folder == tmp_path / "datasets" / "small"
    assert files_below(folder) == CLIPS
    assert list((tmp_path / "archives").glob("small*")) == []
    assert fetch(described(content), cache=tmp_path, url=server.url, progress=False) == folder
    assert server.asked == [None]


def test_a_zip_with_a_root_folder_is_downloaded_and_extracted(serve, tmp_path):
    content = zipped(CLIPS, prefix="top/")
    archive = described(content, "small.zip", root="top", md5=None)
    assert fetched(serve(content).url, tmp_path, archive) == CLIPS


def test_a_missing_root_is_refused(serve, tmp_path):
    content = zipped(CLIPS)
    assert "'top'" in refused(described(content, root="top"), cache=tmp_path, url=serve(content).url)
    assert left_in(tmp_path) == set()


def test_environment_gives_mirror_and_folder(server, tmp_path, monkeypatch):
    monkeypatch.setenv("KWS_DATA", str(tmp_path))
    monkeypatch.setenv("KWS_DATA_URL", server.url)
    assert fetch(described(), progress=False) == tmp_path / "datasets" / "small"
    assert left_in(tmp_path / "archives") == set()


def test_progress_is_shown_on_stderr(server, tmp_path, capsys):
    fetch(described(), cache=tmp_path, url=server.url)
    shown = capsys.readouterr()
    assert [verb in shown.err for verb in ("download small: 100%", "verify small: 100%", "extract small: ")] == [
        True
    ] * 3
    assert shown.out == ""


def test_a_server_that_labels_the_file_as_encoded_does_not_change_it(server, tmp_path):
    server.headers = {"Content-Encoding": "gzip"}
    assert fetched(server.url, tmp_path) == CLIPS


def test_published_archives():
    assert set(ARCHIVES) == {"v0.01", "v0.02", "mini", "test_set_v0.01", "test_set_v0.02"}
    assert [ARCHIVES[name].clips for name in ("v0.01", "v0.02", "mini")] == [64_727, 105_829, 8_000]
    for archive in ARCHIVES.values():
        assert archive.test_set is None or archive.test_set in ARCHIVES
        assert "CC" in archive.licence or "Creative Commons" in archive.licence
        assert "Warden" in archive.citation
    with pytest.raises(KwsError, match=r"v0\.03.*v0\.01"):
        named("v0.03")


# Interruptions


@pytest.mark.parametrize("drops", [1, 3])
def test_a_lost_connection_is_resumed_where_it_broke(server, tmp_path, drops):
    server.drops = drops
    assert fetched(server.url, tmp_path) == CLIPS
    starts = [int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0 for asked in server.asked]
    assert len(starts) == drops + 1
    assert starts == sorted(set(starts))  # each request further on


def test_a_server_without_ranges_is_asked_from_the_start(server, tmp_path):
    server.drops, server.ranges = 2, False
    assert fetched(server.url, tmp_path) == CLIPS


@pytest.mark.parametrize("md5", [None, "as published"])
def test_a_short_read_is_never_taken_for_the_file_and_the_next_call_goes_on(server, tmp_path, md5):
    archive = described() if md5 else described(md5=None, bytes=None)
    server.drops = download._TRIES
    message = refused(archive, cache=tmp_path, url=server.url)
    assert server.url in message
    assert not (tmp_path / "datasets" / "small").exists()
    assert left_in(tmp_path) == {"archives/small.tar.gz.partial"}
    asked = len(server.asked)
    assert fetched(server.url, tmp_path, archive) == CLIPS
    assert server.asked[asked] is not None  # a Range


def test_a_reset_connection_is_resumed(server, tmp_path):
    whole, resets = server.answer, iter([True])

    def answer_with_reset(request):
        if next(resets, False):
            server.drops = 1
            whole(request)
            request.wfile.flush()
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
        else:
            whole(request)

    server.answer = answer_with_reset
    assert fetched(server.url, tmp_path) == CLIPS


@pytest.mark.parametrize("stage", ["download", "verify", "extract"])
def test_ctrl_c_leaves_a_clean_state_at_any_stage(server, tmp_path, monkeypatch, stage):

    class Interrupting(tqdm):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.interrupts = options["desc"].startswith(stage)
            self.calls = 0

        def update(self, n=1):
            self.calls += 1
            if self.interrupts and self.calls == 2:
                raise KeyboardInterrupt
            return super().update(n)

    monkeypatch.setattr(download, "tqdm", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        fetch(described(), cache=tmp_path, url=server.url, progress=False)
    monkeypatch.setattr(download, "tqdm", tqdm)
    assert left_in(tmp_path) == {"archives/small.tar.gz.partial"}
    assert fetched(server.url, tmp_path) == CLIPS
    assert len(server.asked) == (2 if stage == "download" else 1)  # a complete file is not asked for again
    assert left_in(tmp_path) == {f"datasets/small/{name}" for name in CLIPS}


def test_what_a_killed_extraction_left_is_removed(server, tmp_path):
    leftover = tmp_path / "datasets" / ".small.0123456789abcdef.tmp"
    leftover.mkdir(parents=True)
    fetch(described(), cache=tmp_path, url=server.url, progress=False)
    assert not leftover.exists()


@pytest.mark.parametrize("stale", [b"other bytes", bytes(1_000_000)], ids=["shorter", "longer"])
def test_a_partial_file_of_something_else_costs_one_more_download(server, tmp_path, stale):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "small.tar.gz.partial").write_bytes(stale)
    assert fetched(server.url, tmp_path) == CLIPS
    assert len(server.asked) == 2


def test_a_complete_partial_file_of_unknown_size_is_recognised(server, tmp_path):
    (tmp_path / "archives").mkdir()
    (tmp_path / "archives" / "small.tar.gz.partial").write_bytes(TAR)
    archive = described(md5=None, bytes=None)
    assert fetched(server.url, tmp_path, archive) == CLIPS
    assert server.asked == [f"bytes={len(TAR)}-"]


def fetch_in_process(archive: Archive, cache: Path, url: str, number: int) -> None:
    (cache / f"ready{number}").touch()
    folder = fetch(archive, cache=cache, url=url, progress=False)
    (cache / f"clips{number}").write_text(str(len(files_below(folder))))


@pytest.mark.slow
def test_two_processes_share_one_download(server, tmp_path):
    server.until = lambda: len(list(tmp_path.glob("ready*"))) == 2
    spawn = multiprocessing.get_context("spawn")
    arguments = (described(), tmp_path, server.url)
    processes = [spawn.Process(target=fetch_in_process, args=(*arguments, number)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [(tmp_path / f"clips{number}").read_text() for number in range(2)] == [str(len(CLIPS))] * 2
    assert server.asked == [None]


# What is refused


def test_a_wrong_checksum_names_both_sums_and_removes_the_file(server, tmp_path):
    wanted = hashlib.md5(b"published").hexdigest()
    message = refused(described(md5=wanted), cache=tmp_path, url=server.url)
    assert wanted in message
    assert hashlib.md5(TAR).hexdigest() in message
    assert str(tmp_path / "archives" / "small.tar.gz") in message
    assert left_in(tmp_path) == set()


def test_a_wrong_size_is_refused_where_no_checksum_is_known(server, tmp_path):
    message = refused(described(md5=None, bytes=123_456), cache=tmp_path, url=server.url)
    assert "123,456" in message
    assert f"{len(TAR):,}" in message
    assert left_in(tmp_path) == set()


@pytest.mark.parametrize("status", [403, 404, 500])
def test_an_http_error_names_status_and_address(serve, tmp_path, status):
    server = serve(b"")
    server.status = status
    message = refused(described(b"x"), cache=tmp_path, url=server.url)
    assert str(status) in message
    assert f"{server.url}/small.tar.gz" in message
    assert left_in(tmp_path) == set()


def test_offline_tells_what_to_put_where_and_that_is_then_used(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as closed:  # bound and not listening: connections are refused
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        by_hand = tmp_path / "archives" / "small.tar.gz"
        message = refused(described(), cache=tmp_path, url=url)
        assert f"{url}/small.tar.gz" in message
        assert str(by_hand) in message
        assert "refused" in message
        by_hand.write_bytes(TAR)
        assert fetched(url, tmp_path) == CLIPS
        assert by_hand.read_bytes() == TAR


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/x", "nowhere", "http:/x", "http://[", "http://a b"])
def test_an_address_that_is_none_is_one_line(tmp_path, url):
    assert url in refused(described(b"x"), cache=tmp_path, url=url)


def test_a_hand_placed_archive_is_verified_and_never_deleted(tmp_path):
    by_hand = tmp_path / "archives" / "small.tar.gz"
    by_hand.parent.mkdir()
    by_hand.write_bytes(TAR[:-100])
    assert str(by_hand) in refused(described(), cache=tmp_path)
    assert str(by_hand) in refused(described(md5=None, bytes=None), cache=tmp_path)
    assert by_hand.read_bytes() == TAR[:-100]
    assert left_in(tmp_path) == {"archives/small.tar.gz"}


@pytest.mark.parametrize(
    "content",
    [tar_gz(CLIPS)[:100_000], zipped({"../evil": b"x"}), b"<html>Please log in</html>", b""],
    ids=["cut", "unsafe", "html", "nothing"],
)
def test_a_damaged_or_unsafe_archive_of_unknown_checksum_is_refused_and_removed(serve, tmp_path, content):
    archive = described(content, md5=None, bytes=None)
    assert "small.tar.gz" in refused(archive, cache=tmp_path, url=serve(content).url)
    assert left_in(tmp_path) == set()
    assert not (tmp_path / "datasets" / "small").exists()


@pytest.mark.parametrize("stage", ["download", "extract"])
def test_a_full_disk_is_one_line_and_the_next_call_goes_on(server, tmp_path, monkeypatch, stage):

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(*((download.tqdm, "update") if stage == "download" else (shutil, "copyfileobj")), full)
        message = refused(described(), cache=tmp_path, url=server.url)
    assert "No space left" in message
    assert "KWS_DATA" in message
    assert str(tmp_path) in message
    assert left_in(tmp_path) == {"archives/small.tar.gz.partial"}
    assert fetched(server.url, tmp_path) == CLIPS


def test_a_cache_that_can_not_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    assert "KWS_DATA" in refused(described(b"x"), cache=tmp_path / "file")
