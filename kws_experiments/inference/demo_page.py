"""The demo page, made with Gradio: a clip from the microphone or a file, and a live strip of detections."""

from __future__ import annotations

import importlib.util
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np

from kws_data.errors import KwsError
from kws_experiments.inference.demo_session import ClipLabeller, LiveSession
from kws_experiments.streaming.listener import open_listener

_CSS = """
.kws-strip { position: relative; height: 4.2em; border-bottom: 2px solid currentColor; overflow: hidden; }
.kws-word { position: absolute; padding: 0.1em 0.5em; border-radius: 0.3em; white-space: nowrap;
  background: var(--button-primary-background-fill); color: var(--button-primary-text-color); }
.kws-times { display: flex; justify-content: space-between; font-size: 0.85em; opacity: 0.8; }
"""
_FONTS = ["system-ui", "sans-serif"]
_SESSION_S = 3600  # then the data of a visitor's session are deleted


def serve(run: Path, *, host: str, port: int) -> None:
    """Show the page until Ctrl-C.

    Args:
        run: the folder of a finished run.
        host: the address to listen at.
        port: the port at that address.

    Raises:
        KwsError: Gradio is not installed, `run` is not a finished run, or the port is taken.
    """
    if importlib.util.find_spec("gradio") is None:
        raise KwsError("the demo page needs the extra 'demo': pip install -c requirements.lock -e '.[demo]'")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # nothing leaves this machine
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs every request that Gradio makes to itself
    page = build(run)
    import gradio

    try:
        page.launch(
            server_name=host, server_port=port, share=False, quiet=True, ssr_mode=False, footer_links=[], css=_CSS,
            theme=gradio.themes.Default(font=_FONTS, font_mono=["monospace"]), prevent_thread_lock=True,
        )  # fmt: skip
    except OSError as error:
        raise KwsError(f"--port: nothing can be served at {host}:{port}: {' '.join(str(error).split())}") from error
    print(f"http://{host}:{port}", flush=True)
    page.block_thread()


def build(run: Path) -> Any:
    """The page as Gradio's Blocks.

    Raises:
        KwsError: `run` is not a finished run.
    """
    labeller = ClipLabeller(run)
    import gradio
    from matplotlib import pyplot as plt

    def label(recording: str | None) -> tuple[Any, Any, str]:
        plt.close("all")  # pyplot keeps figures until then, and the page has already drawn the last one
        if recording is None:
            return None, None, ""
        try:
            return labeller.label(Path(recording))
        except KwsError as error:
            raise gradio.Error(str(error)) from error

    def listen(chunk: tuple[int, np.ndarray] | None, session: LiveSession | None) -> tuple[LiveSession | None, str]:
        if chunk is None:
            return session, ""
        session = session or LiveSession(open_listener(run))
        return session, session.feed(*chunk)

    labels = ", ".join(f"`{label}`" for label in labeller.scorer.labels)
    with gradio.Blocks(title="Keyword spotting", analytics_enabled=False) as page:
        gradio.Markdown(f"# Keyword spotting\n\n`{run}` knows: {labels}")
        with gradio.Tab("A clip"), gradio.Row():
            with gradio.Column():
                clip = gradio.Audio(
                    sources=["microphone", "upload"], type="filepath", label="Record, or give a file", buttons=[]
                )
                scores = gradio.Label(num_top_classes=5, label="Scores of the clip")
                detected = gradio.HTML(label="Over the whole recording")
            picture = gradio.Plot(label="Waveform and features", show_label=False)
            clip.change(label, clip, [scores, picture, detected])
        with gradio.Tab("Listen"):
            live = gradio.Audio(sources=["microphone"], streaming=True, type="numpy", label="Microphone")
            strip = gradio.HTML(label="Detections")
            session = gradio.State(None, time_to_live=_SESSION_S)
            live.stream(listen, [live, session], [session, strip], stream_every=0.25, show_progress="hidden")
            live.start_recording(lambda: None, outputs=session)
    return page
