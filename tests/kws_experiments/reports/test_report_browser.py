"""The report of a real run in a real browser: it opens by itself, plays, sorts, prints, and fits phones and screens."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from playwright.sync_api import Browser, Page

from kws_experiments.evaluation import worst_clips
from tests.browser import open_browser
from tests.kws_experiments.test_train import only_run, train

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny run on the real clips, through train.py; the module's tests share it."""
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KWS_DATA", str(folder / "cache"))
        train(
            folder, "dataset=folder", f"dataset.path={real_data}", "split=lists", "trainer=quick",
            "features=log_mel_20ms", "model.filters=8", "model.num_blocks=1", "evaluation.snr_db=[10]",
        )  # fmt: skip
    return only_run(folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def open_report(browser: Browser, run: Path, width: int = 1600, scheme: str = "light") -> tuple[Page, list[str]]:
    """The page, and what it complained about or asked the network for."""
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or complaints.append(request.url))
    page.goto((run / "report.html").as_uri())
    return page, complaints


def test_run_keeps_what_the_report_needs(run: Path, real_data: Path) -> None:
    metrics, cost = (json.loads((run / name).read_text()) for name in ("metrics.json", "cost.json"))
    assert cost["parameters"] == metrics["parameters"] > cost["folded"] > 0
    assert cost["multiply_adds"] > cost["folded"]
    assert cost["float32_bytes"] == 4 * cost["folded"] > cost["int8_bytes"]
    assert cost["model_file_bytes"] == (run / "model.keras").stat().st_size
    assert 0 < cost["latency_ms"]["low"] <= cost["latency_ms"]["median"] <= cost["latency_ms"]["high"]
    record = json.loads((run / "run.json").read_text())
    assert record["command"]["overrides"][:1] == ["dataset=folder"]
    assert record["command"]["choices"]["features"] == "log_mel_20ms"

    wrong = pd.read_parquet(run / "confidently_wrong.parquet")
    heard = worst_clips.read(run, wrong)
    assert len(heard) == min(worst_clips.MOST_CLIPS, len(wrong))
    recorded = [(row, clip) for row, clip in zip(wrong.itertuples(), heard, strict=False) if row.length]
    assert recorded
    for row, clip in recorded:
        samples, rate = soundfile.read(real_data / row.clip, dtype="int16")
        np.testing.assert_array_equal(clip.samples, samples[:rate])
        assert clip.features.shape == (49, 40)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_fits_and_complains_of_nothing(browser: Browser, run: Path, width: int, scheme: str) -> None:
    page, complaints = open_report(browser, run, width, scheme)

    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert complaints == []
    # text and paper are far apart, in the pictures too, and nothing drawn is wider than the page
    paper, ink, label = page.evaluate(
        """() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
                  getComputedStyle(document.querySelector("figure svg text")).fill]"""
    )
    assert (brightness(paper) > 200) == (scheme == "light")
    assert abs(brightness(paper) - brightness(ink)) > 180
    assert label == ink
    page.close()


def test_on_a_phone_classes_stay_beside_their_values(browser: Browser, run: Path) -> None:
    page, _ = open_report(browser, run, 400)
    table = page.locator(".scroll", has=page.get_by_text("By class"))
    table.evaluate("table => table.scrollLeft = 9999")

    left = table.locator("td:first-child").first.evaluate("cell => cell.getBoundingClientRect().left")
    assert 0 < left < 40
    assert table.evaluate("table => table.scrollLeft") > 100
    page.close()


def brightness(colour: str) -> float:
    """`rgb(…)` → 0 to 255."""
    return sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) / 3


def test_clips_play(browser: Browser, run: Path) -> None:
    page, complaints = open_report(browser, run)
    wrong = pd.read_parquet(run / "confidently_wrong.parquet")

    players = page.locator("audio")
    assert players.count() == min(worst_clips.MOST_CLIPS, len(wrong)) > 0
    played = page.evaluate(
        """async () => {
            const audio = document.querySelector("audio");
            audio.muted = true;
            await audio.play();
            await new Promise((resolve) => audio.addEventListener("timeupdate", resolve, {once: true}));
            return [audio.duration, audio.currentTime, audio.error === null];
        }"""
    )
    assert 0.1 < played[0] <= 1.0
    assert played[1] >= 0
    assert played[2]
    durations = page.evaluate("[...document.querySelectorAll('audio')].map((audio) => audio.duration)")
    assert all(0 < duration <= 1 for duration in durations)
    assert wrong["clip"].iloc[0] in page.locator(".clips li").first.inner_text()
    assert complaints == []
    page.close()


def test_tables_sort_by_click_and_by_keyboard(browser: Browser, run: Path) -> None:
    page, _ = open_report(browser, run)
    metrics = json.loads((run / "metrics.json").read_text())
    table = page.locator("table", has=page.get_by_text("By class"))
    column = [heading.strip() for heading in table.locator("th").all_inner_texts()].index("recall")

    def recalls() -> list[float]:
        return [float(cell) for cell in table.locator("tbody tr").evaluate_all(
            f"rows => rows.map((row) => row.cells[{column}].dataset.value)"
        )]  # fmt: skip

    given = [values["recall"] for values in metrics["per_class"].values()]
    assert recalls() == given
    table.get_by_role("button", name="recall").click()
    assert recalls() == sorted(given)
    table.get_by_role("button", name="recall").press("Enter")
    assert recalls() == sorted(given, reverse=True)
    assert table.locator("th[aria-sort]").count() == 1
    # what is not known stays at the end, whichever way
    table.get_by_role("button", name="equal error rate").click()
    assert {"_silence_", "_unknown_"} == set(table.locator("tbody tr td:first-child").all_inner_texts()[-2:])
    page.close()


def test_prints(browser: Browser, run: Path) -> None:
    page, complaints = open_report(browser, run, scheme="dark")

    pdf = page.pdf(format="A4")

    assert pdf.startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert brightness(paper) == 255
    assert not page.locator("audio").first.is_visible()
    assert complaints == []
    page.close()
