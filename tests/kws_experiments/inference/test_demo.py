"""The demo page: its parts, and the page itself in a browser whose microphone plays a real clip."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from playwright.sync_api import expect

from kws_data.errors import KwsError
from kws_experiments.inference import demo_page
from kws_experiments.inference.demo_session import LiveSession, strip
from kws_experiments.streaming.listener import Detection, Listener
from kws_experiments.streaming.recognize import RecognizerSettings
from tests.browser import open_browser
from tests.conftest import ROOT, SAMPLE_RATE
from tests.kws_experiments.test_train import SMALL, only_run, train


class Recorder:
    """A listener that keeps its samples, and detects a word in every chunk."""

    sample_rate = SAMPLE_RATE

    def __init__(self) -> None:
        self.samples = np.zeros(0, np.float32)

    def feed(self, samples: np.ndarray) -> list[Detection]:
        self.samples = np.concatenate([self.samples, samples])
        return [Detection(round(1000 * len(self.samples) / SAMPLE_RATE), "yes", 0.9)]


@pytest.mark.parametrize("rate", [SAMPLE_RATE, 48000, 44100])
@pytest.mark.parametrize("kind", ["int16", "int32", "float32", "stereo"])
def test_samples_of_any_kind_reach_the_listener_at_its_rate(rate: int, kind: str) -> None:
    sine = 0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * rate) / rate)
    dtype = np.dtype("int16" if kind == "stereo" else kind)
    scale = 2.0 ** (8 * dtype.itemsize - 1) if dtype.kind == "i" else 1.0
    chunks = np.array_split((sine * scale).astype(dtype), 9)
    listener = Recorder()
    session = LiveSession(listener)  # type: ignore[arg-type]

    for chunk in chunks:
        shown = session.feed(rate, np.stack([chunk, chunk], axis=1) if kind == "stereo" else chunk)

    got = listener.samples
    assert 1.9 * SAMPLE_RATE < len(got) <= 2 * SAMPLE_RATE
    spectrum = np.abs(np.fft.rfft(got * np.hanning(len(got))))
    assert np.argmax(spectrum) * SAMPLE_RATE / len(got) == pytest.approx(440, abs=1)
    assert np.sqrt(np.mean(got[1000:-1000] ** 2)) == pytest.approx(0.5 / np.sqrt(2), rel=0.01)
    assert shown.count('class="kws-word"') == len(session.detections) == 9


def test_a_session_goes_on_with_another_sensitivity() -> None:
    class Windows:
        labels, sample_rate, clip_samples = ["yes"], SAMPLE_RATE, SAMPLE_RATE

    listener = Listener(Windows())  # type: ignore[arg-type]
    session, before = LiveSession(listener), listener.recognizer
    session.listen_with(RecognizerSettings())
    assert listener.recognizer is before  # nothing that was averaged is lost
    session.listen_with(RecognizerSettings(detection_threshold=0.2))
    assert listener.recognizer.settings.detection_threshold == 0.2


def test_a_strip_shows_recent_detections_and_escapes_them() -> None:
    detections = [Detection(1000, "old", 0.9), Detection(8000, "<b>", 0.8), Detection(10000, "no", 0.75)]

    shown = strip(detections, 5000, 15000)

    assert "old" not in shown
    assert "<b>" not in shown
    assert "Detected: &lt;b&gt; (8.0 s, 0.80), no (10.0 s, 0.75)" in shown
    assert re.findall(r"left: ([\d.]+)%", shown) == ["27.6", "46.0"]
    assert "nothing yet" in strip([], -20000, 100)


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(KwsError, match=r"holds no model\.keras: give the folder of a finished run"):
        demo_page.serve(tmp_path, host="127.0.0.1", port=7860)


def test_a_taken_port_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of Gradio's message what is about its own functions is left out."""
    gradio = pytest.importorskip("gradio")
    with gradio.Blocks() as page:
        pass
    monkeypatch.setattr(demo_page, "build", lambda run: page)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(KwsError) as info:
            demo_page.serve(tmp_path, host="127.0.0.1", port=port)
    assert re.fullmatch(
        rf"--port: nothing can be served at 127\.0\.0\.1:{port}: .*; give another --port", str(info.value)
    )
    assert "launch" not in str(info.value)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listen(page: Any, errors: list[str], tries: int) -> None:
    """Record until there are times: now and then Gradio's recorder sends nothing until the page is loaded again.

    Errors are checked before that, since a page that is left complains of its requests.
    """
    page.get_by_role("tab", name="Listen").click()
    page.get_by_role("button", name="Record").locator("visible=true").first.click()
    times = page.locator(".kws-times").locator("visible=true")
    try:
        expect(times).to_contain_text(re.compile(r"[2-9]\.\d s"), timeout=60_000)  # a busy machine falls behind
    except AssertionError:
        if tries == 1:
            raise
        assert not errors
        page.reload()
        listen(page, [], tries - 1)
    else:
        assert not errors


@pytest.mark.slow
def test_the_page_records_and_listens_in_a_browser(real_data: Path, tmp_path: Path) -> None:
    train(tmp_path, "dataset=folder", f"dataset.path={real_data}", "split=lists", *SMALL, "task.words=[yes,no]",
          "trainer=quick", "trainer.steps=5")  # fmt: skip
    run, port = only_run(tmp_path), free_port()
    address = f"http://127.0.0.1:{port}"
    clip = next(line for line in (real_data / "testing_list.txt").read_text().split() if line.startswith("yes/"))
    long = tmp_path / "long.wav"
    samples, rate = soundfile.read(real_data / clip)
    soundfile.write(long, np.tile(samples, 3), rate)
    command = [sys.executable, "-m", "kws_experiments.cli.main", "demo", str(run), "--port", str(port)]
    microphone = [
        "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-audio-capture={real_data / clip}",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        assert process.stdout is not None
        assert any(address in line for line in process.stdout), "the page did not come up"
        with open_browser(*microphone) as browser:
            page = browser.new_context(permissions=["microphone"]).new_page()
            errors, elsewhere = [], []
            page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
            page.on("request", lambda request: elsewhere.append(request.url))
            page.on(
                "response", lambda answer: errors.append(f"{answer.status} {answer.url}") if not answer.ok else None
            )
            page.goto(address)

            page.get_by_role("button", name="Record").locator("visible=true").first.click()
            page.wait_for_timeout(2000)
            page.get_by_role("button", name="Stop").locator("visible=true").first.click()
            expect(page.get_by_text(re.compile(r"\d+%")).first).to_be_visible(timeout=60_000)
            expect(page.locator("img[src*='/'], img[src^='data:']").first).to_be_visible(timeout=60_000)

            page.get_by_label("Clear").locator("visible=true").first.click()
            page.get_by_label("Upload file").locator("visible=true").first.click()
            page.locator("input[type=file]").first.set_input_files(str(long))
            expect(page.locator(".kws-times").first).to_contain_text(f"{3 * len(samples) / rate:.1f} s", timeout=60_000)

            listen(page, errors, tries=3)
        assert not [url for url in elsewhere if not url.startswith((address, "data:", "blob:"))]
    finally:
        process.terminate()
        process.wait(30)
