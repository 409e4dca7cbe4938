"""The demo page, made with Gradio: a clip from the microphone or a file, and a live strip of detections."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kws_data.errors import KwsError
from kws_experiments.console.output import say
from kws_experiments.inference.demo_guard import MOST_BYTES, Guard
from kws_experiments.inference.demo_session import ClipLabeller, LiveSession, read_chunk
from kws_experiments.runs.listening import DEFAULT
from kws_experiments.streaming.listener import open_listener
from kws_experiments.streaming.sensitivity import listening_of, settings_of

_CSS = """
.kws-strip { position: relative; height: 4.2em; border-bottom: 2px solid currentColor; overflow: hidden; }
.kws-word { position: absolute; padding: 0.1em 0.5em; border-radius: 0.3em; white-space: nowrap;
  background: var(--button-primary-background-fill); color: var(--button-primary-text-color); }
.kws-times { display: flex; justify-content: space-between; font-size: 0.85em; opacity: 0.8; }
"""
_FONTS = ["system-ui", "sans-serif"]
_SESSION_S = 3600  # then the data of a visitor's session are deleted
_UNUSED_S = 60  # after which an upload that nothing was done with is deleted


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
    with _uploads():
        page = build(run)
        import gradio
        from starlette.middleware import Middleware

        try:
            page.launch(
                server_name=host, server_port=port, share=False, quiet=True, ssr_mode=False, footer_links=[], css=_CSS,
                theme=gradio.themes.Default(font=_FONTS, font_mono=["monospace"]), prevent_thread_lock=True,
                max_file_size=MOST_BYTES, app_kwargs={"middleware": [Middleware(Guard, host)]},
            )  # fmt: skip
        except OSError as error:
            reason = str(error).partition(". ")[0]  # what follows is about Gradio's own functions
            raise KwsError(f"--port: nothing can be served at {host}:{port}: {reason}; give another --port") from error
        say(f"http://{host}:{port}")
        page.block_thread()


@contextmanager
def _uploads() -> Iterator[None]:
    """A folder for what visitors upload, removed at the end, be it by a signal."""
    before = {
        number: signal.signal(number, lambda number, _: sys.exit(128 + number))
        for number in (signal.SIGTERM, signal.SIGHUP)
    }
    try:
        with tempfile.TemporaryDirectory(prefix="kws-demo-", ignore_cleanup_errors=True) as folder:
            os.environ["GRADIO_TEMP_DIR"] = folder  # read when Gradio is imported
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def build(run: Path) -> Any:
    """The page as Gradio's Blocks.

    Raises:
        KwsError: `run` is not a finished run.
    """
    labeller = ClipLabeller(run)
    import gradio
    from matplotlib import pyplot as plt

    @contextmanager
    def taken(upload: str) -> Iterator[Path]:
        """An upload, deleted after use; an error's message names no folder of this machine."""
        path = Path(upload)
        try:
            yield path
        except KwsError as error:
            raise gradio.Error(str(error).replace(f"{path.parent}{os.sep}", "")) from error
        finally:
            path.unlink(missing_ok=True)

    def label(recording: str | None) -> tuple[Any, Any, str]:
        plt.close("all")  # pyplot keeps figures until then, and the page has already drawn the last one
        if recording is None:
            return None, None, ""
        with taken(recording) as path:
            return labeller.label(path)

    levels = {name: settings_of(run, name) for name in listening_of(run).tuned}

    def listen(chunk: str | None, session: LiveSession | None, level: int = 0) -> tuple[LiveSession | None, str]:
        if chunk is None:
            return session, ""
        session = session or LiveSession(open_listener(run))
        if levels:
            session.listen_with(list(levels.values())[level])
        with taken(chunk) as path:
            return session, session.feed(*read_chunk(path))

    labels = ", ".join(f"`{label}`" for label in labeller.scorer.labels)
    title = "Keyword spotting"
    with gradio.Blocks(title=title, analytics_enabled=False, delete_cache=(_UNUSED_S, _UNUSED_S)) as page:
        gradio.Markdown(f"# {title}\n\nThe model knows: {labels}")
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
            live = gradio.Audio(sources=["microphone"], streaming=True, type="filepath", label="Microphone")
            strip = gradio.HTML(label="Detections")
            session = gradio.State(None, time_to_live=_SESSION_S)
            inputs = [live, session]
            if levels:
                names = ", ".join(f"{level} {name}" for level, name in enumerate(levels))
                chosen = list(levels).index(DEFAULT)
                inputs.append(gradio.Slider(0, len(levels) - 1, chosen, step=1, label=f"Sensitivity: {names}"))
            live.stream(listen, inputs, [session, strip], stream_every=0.25, show_progress="hidden")
            live.start_recording(lambda: None, outputs=session)
    return page
