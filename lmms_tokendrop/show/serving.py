"""The page of ``lmms-tokendrop show --serve``: an image, a question, methods side by side, a slider of the budget."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from html import escape
from pathlib import Path
from threading import Event
from typing import Any

from lmms_tokendrop.modeling.core.options import COMPOSED
from lmms_tokendrop.modeling.core.switching import switchable
from lmms_tokendrop.show.asking import Answer, LoadedVariant
from lmms_tokendrop.show.page import answers_table, figures
from lmms_tokendrop.show.panels import last_panel, stage_panels
from lmms_tokendrop.show.running import open_image

CONTROLS = ("none", "random")
LOOPBACK = "127.0.0.1"
SIZE = 260
LARGEST_UPLOAD = "20mb"
STYLE = """
.side-by-side { display: flex; flex-wrap: wrap; gap: 1rem; }
figcaption { white-space: pre-line; }
.min_value, .max_value { color: inherit !important; }
"""


def allowed_methods(loaded: LoadedVariant) -> list[str]:
    """Methods that the model's weights allow with a budget or nothing given, the variant's own first."""
    inner = switchable(loaded.model)
    own, found = loaded.model.config.token_reduction["method"], []
    for method in inner.config.reduction_class.reducers.keys() - {COMPOSED}:
        try:
            inner.other_reducer({"method": method})
        except ValueError:
            continue
        found.append(method)
    return sorted(found, key=lambda method: (method != own, method))


def options_at(loaded: LoadedVariant, method: str, share: float) -> dict[str, Any]:
    """Options of a method at a share of the tokens; one that takes no share has its defaults."""
    methods = loaded.model.config.reduction_class
    offered = methods.offered(methods.options_of(method))
    budget = {"keep_ratio": share} if "keep_ratio" in offered else {}
    if not budget and "prune_ratio" in offered and share < 1:
        budget = {"prune_ratio": round(1 - share, 6)}
    return {"method": method, **budget}


def asked(loaded: LoadedVariant, path: str | None, question: str, methods: Sequence[str], share: float) -> str:
    """What the page shows for an upload, a question, methods and a share: a table and pictures in HTML, or why not."""
    try:
        if path is None:
            raise ValueError("Choose an image file first.")
        if not methods:
            raise ValueError("Choose a method first.")
        image = open_image(Path(path))
        answers = [loaded.ask_if_allowed(image, question, options_at(loaded, method, share)) for method in methods]
    except (ValueError, OSError) as error:
        return f'<p role="alert">{escape(str(error).replace(str(path), Path(path or "").name))}</p>'
    shown = [one for one in answers if isinstance(one, Answer)]
    panels = [figures(loaded.views(image, one, SIZE), stage_panels(one)[:1]) for one in shown[:1]]
    panels += [figures(loaded.views(image, one, SIZE), [last_panel(one, one.method)]) for one in shown if one.stages]
    return f'{answers_table(answers)}<div class="side-by-side">{"".join(panels)}</div>'


def blocks(loaded: LoadedVariant) -> Any:
    """The page, not started yet."""
    import gradio

    methods = allowed_methods(loaded)
    with gradio.Blocks(title=f"lmms_tokendrop: {loaded.model_id}", analytics_enabled=False) as made:
        gradio.Markdown(f"# Which tokens does a method drop?\n\n{loaded.model_id}, {loaded.options.pretrained}")
        with gradio.Row():
            file = gradio.File(label="Image file", type="filepath")
            with gradio.Column():
                question = gradio.Textbox(label="Question", placeholder="what color is the cross?")
                chosen = gradio.CheckboxGroup(
                    methods, value=[one for one in methods if one in (methods[0], *CONTROLS)], label="Methods"
                )
                share = gradio.Slider(0.05, 1, value=0.25, step=0.05, label="Budget, share of the image tokens")
                button = gradio.Button("Ask", variant="primary")
        result = gradio.HTML(label="Answers", elem_id="result")
        gradio.on(
            [button.click, question.submit, share.change],
            lambda *given: asked(loaded, *given),
            [file, question, chosen, share],
            result,
            trigger_mode="always_last",
        )
    return made


@contextmanager
def served(loaded: LoadedVariant, port: int | None = None) -> Iterator[str]:
    """Serve the page on this machine alone, and give its address; uploads lie in a folder that ends with it."""
    with tempfile.TemporaryDirectory(prefix="lmms-tokendrop-") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "MPLCONFIGDIR": folder}
        os.environ |= {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1"}
        import gradio

        page = blocks(loaded)
        _, address, _ = page.launch(
            server_name=LOOPBACK,
            server_port=port,
            share=False,
            quiet=True,
            prevent_thread_lock=True,
            max_file_size=LARGEST_UPLOAD,
            footer_links=[],
            ssr_mode=False,
            enable_monitoring=False,
            theme=gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"]),
            css=STYLE,
        )
        try:
            yield address
        finally:
            page.close()


def serve_until_interrupted(loaded: LoadedVariant, port: int | None, say: Callable[[str], Any]) -> None:
    """Serve the page, say where, and end with Ctrl-C."""
    with served(loaded, port) as address:
        say(f"{address} (Ctrl-C ends it)")
        with suppress(KeyboardInterrupt):
            Event().wait()
