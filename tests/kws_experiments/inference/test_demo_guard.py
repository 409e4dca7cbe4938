"""The demo page's door: who may ask, how much may come in, and what is left of it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
import soundfile
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from kws_experiments.inference.demo_guard import MOST_BYTES, Guard
from tests.conftest import ROOT, SAMPLE_RATE, tone
from tests.kws_experiments.inference.test_demo import free_port

RUN = ROOT / "tests" / "data" / "run_of_0.1.0" / "run"
CLIP = RUN.parent / "clips" / "no" / "00000000_nohash_0.flac"


async def echo(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(len(await request.body())))


def guarded(host: str) -> TestClient:
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    return TestClient(Guard(app, host), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client() -> TestClient:
    return guarded("127.0.0.1")


@pytest.mark.parametrize(
    "host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "127.0.0.2", socket.gethostname()]
)
def test_it_answers_to_its_own_names(client: TestClient, host: str) -> None:
    for origin in (None, f"http://{host}", f"https://{host}"):
        assert client.get("/", headers={"host": host} | ({"origin": origin} if origin else {})).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.com", "evil.com:7860", "127.0.0.1.evil.com", "localhost.evil.com", "", "[::1", "localhost@evil.com",
             "2130706433", "0x7f.1", "192.168.1.5:7860"]
)  # fmt: skip
def test_a_name_that_only_points_here_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/", headers={"host": host}).status_code == 403


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.com",
        "null",
        "http://127.0.0.1:1",
        "http://127.0.0.1",
        "http://127.0.0.1:7860.evil.com",
        "",
        "http://[",
    ],
)
def test_other_sites_pages_are_refused(client: TestClient, origin: str) -> None:
    headers = {"host": "127.0.0.1:7860", "origin": origin}
    for response in (client.get("/", headers=headers), client.post("/gradio_api/upload", headers=headers)):
        assert response.status_code == 403


def test_a_page_for_others_answers_to_any_address_but_to_no_foreign_name() -> None:
    client = guarded("0.0.0.0")
    for host, status in (("192.168.1.5:7860", 200), ("localhost", 200), ("evil.com", 403)):
        assert client.get("/", headers={"host": host}).status_code == status
    assert guarded("kws.example").get("/", headers={"host": "kws.example:7860"}).status_code == 200


@pytest.mark.parametrize("path", ["proxy=http://x/", "process_recording", "vibe-edit", "monitoring/summary", "runs/"])
def test_what_the_page_does_not_use_is_closed(client: TestClient, path: str) -> None:
    for prefix in ("/", "/gradio_api/", "//gradio_api//", "/gradio_api//"):
        response = client.post(f"{prefix}{path}", headers={"host": "localhost"})
        assert response.status_code == 404


def test_a_request_is_bounded_by_what_it_says_and_by_what_comes(client: TestClient) -> None:
    headers = {"host": "localhost"}
    assert client.post("/x", headers=headers, content=b"x" * MOST_BYTES).text == str(MOST_BYTES)
    assert client.post("/x", headers=headers, content=b"x" * (MOST_BYTES + 200_000)).status_code == 413
    assert client.post("/x", headers=headers | {"content-length": "-1"}).status_code == 413
    pieces = (b"x" * 1_000_000 for _ in range(22))
    assert client.post("/x", headers=headers, content=pieces).status_code == 500  # nothing was read to its end


class Demo:
    """The page in a process of its own, with a folder for temporary files that is the test's."""

    def __init__(self, folder: Path) -> None:
        self.folder, port = folder, free_port()
        self.address = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "kws_experiments.cli.main", "demo", str(RUN), "--port", str(port)],
            env=os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(ROOT)},
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert self.process.stdout is not None
        assert any(self.address in line for line in self.process.stdout), "the page did not come up"

    def uploads(self) -> list[Path]:
        return [path for path in self.folder.glob("kws-demo-*/**/*") if path.is_file()]

    def upload(self, name: str, content: bytes) -> str:
        response = requests.post(f"{self.address}/gradio_api/upload", files={"files": (name, content)}, timeout=60)
        assert response.status_code == 200, response.text
        return response.json()[0]

    def ask(self, function: str, path: str) -> str:
        """What a function of the page says about a file on the server."""
        data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}]}
        call = f"{self.address}/gradio_api/call/{function}"
        event = requests.post(call, json=data, timeout=60).json()["event_id"]
        return requests.get(f"{call}/{event}", timeout=120).text


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    started = Demo(tmp_path_factory.mktemp("demo"))
    yield started
    started.process.kill()
    started.process.wait()


@pytest.mark.slow
def test_an_upload_is_deleted_when_it_was_used(demo: Demo, tmp_path: Path) -> None:
    for name, told in (("clip.flac", '"label": "no"'), ("none.wav", "'none.wav': cannot be decoded")):
        content = CLIP.read_bytes() if name == "clip.flac" else b"no audio"
        path = demo.upload(name, content)
        assert [str(each) for each in demo.uploads()] == [path]
        assert told in demo.ask("label", path)
        assert demo.uploads() == []


@pytest.mark.slow
def test_what_is_too_long_or_too_large_is_refused_and_no_folder_is_named(demo: Demo, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(SAMPLE_RATE * 61, "int16"), SAMPLE_RATE)
    said = demo.ask("label", demo.upload("long.flac", (tmp_path / "long.flac").read_bytes()))
    assert "'long.flac' is longer than 60 s" in said
    assert str(demo.folder) not in said
    large = requests.post(
        f"{demo.address}/gradio_api/upload", files={"files": ("a.wav", b"x" * 20_200_000)}, timeout=60
    )
    assert large.status_code == 413
    assert demo.uploads() == []


@pytest.mark.slow
def test_other_files_are_not_served_and_not_labelled(demo: Demo, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "mine.wav", tone(440), SAMPLE_RATE)
    for path in (str(tmp_path / "mine.wav"), "/etc/hostname", "README.md", str(RUN / "config.yaml"), str(demo.folder)):
        assert requests.get(f"{demo.address}/gradio_api/file={path}", timeout=60).status_code in (403, 404)
        for function in ("label", "listen"):
            assert "label" not in (said := demo.ask(function, path))
            assert "event: error" in said
            assert str(tmp_path) not in said
    page = requests.get(demo.address, timeout=60).text + requests.get(f"{demo.address}/config", timeout=60).text
    assert str(RUN) not in page
    assert str(demo.folder) not in page


@pytest.mark.slow
def test_other_names_and_origins_are_refused_by_the_page_itself(demo: Demo) -> None:
    for headers in ({"Host": "evil.com"}, {"Origin": "http://evil.com"}):
        for path in ("/", "/config", "/gradio_api/upload", "/gradio_api/queue/join"):
            assert requests.post(demo.address + path, headers=headers, timeout=60).status_code == 403
            assert requests.get(demo.address + path, headers=headers, timeout=60).status_code == 403


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_no_upload(tmp_path: Path, number: Any) -> None:
    demo = Demo(tmp_path)
    demo.upload("clip.flac", CLIP.read_bytes())
    assert demo.uploads()

    demo.process.send_signal(number)
    demo.process.wait(60)

    time.sleep(0.1)
    assert not list(tmp_path.glob("kws-demo-*"))
