"""A picture, and a page of HTML that needs nothing else, of what a method did with an image and a question."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

from lmms_tokendrop.report.page import whole_page
from lmms_tokendrop.show.asking import Answer
from lmms_tokendrop.show.panels import Described, last_panel, score_panels, stage_panels
from lmms_tokendrop.visualize import GAP, INK, View, draw_panels, paint, stacked

SIZE = 240
NARROWEST = 190
COLUMNS = 5
LINE = 22
LEGEND = (
    "Blank patches left. A blue line goes around patches that became one token, a red one around key tokens, which the "
    "method keeps to the end. In the cache a patch is as pale as it is missing from layers."
)
STYLE = """\
.panels { display: flex; flex-wrap: wrap; gap: 1rem; }
figcaption { white-space: pre-line; }
td, th { overflow-wrap: anywhere; white-space: normal; }
"""


def heading(name: str) -> str:
    """A method as answers name it."""
    return {"none": "all tokens", "random": "random dropping"}.get(name, name)


def lines(question: str, answers: Sequence[Answer | str]) -> list[str]:
    """The question, and a line for each answer."""
    rows = [one if isinstance(one, str) else f"{heading(one.method)}: {one.text}  ({cost(one)})" for one in answers]
    return [question, *rows]


def cost(answer: Answer) -> str:
    """Tokens of an answer."""
    return f"{answer.tokens:.1f} of {answer.full} image tokens in an average layer"


def sheet(question: str, answers: Sequence[Answer | str], views: Sequence[Sequence[View]]) -> Image.Image:
    """Draw the question, the answers, what each stage left and its scores, and what the other methods left.

    Parameters
    ----------
    question
        What was asked.
    answers
        The first is drawn stage by stage.
    views
        What the model saw, for each of the answers.
    """
    first, *others = answers
    assert isinstance(first, Answer)
    left = [last_panel(one, heading(one.method)) for one in others if isinstance(one, Answer) and one.stages]
    rows = [[one.panel for one in row] for row in ([*stage_panels(first), *left], score_panels(first))]
    picture = stacked(draw_panels(views[0], row, min(COLUMNS, len(row)), NARROWEST) for row in rows if row)
    text = lines(question, answers)
    font, first_font = ImageFont.load_default(16), ImageFont.load_default(20)
    width = max(picture.width, *(round(first_font.getlength(line)) for line in text))
    top = LINE * (len(text) + 1) + GAP
    whole = Image.new("RGB", (width + 2 * GAP, top + picture.height + 2 * GAP), "white")
    pen = ImageDraw.Draw(whole)
    for number, line in enumerate(text):
        pen.text((GAP, GAP + LINE * number + 6 * bool(number)), line, fill=INK, font=font if number else first_font)
    whole.paste(picture, (GAP, GAP + top))
    return whole


def page(
    question: str, setting: Sequence[tuple[str, str]], answers: Sequence[Answer | str], views: Sequence[Sequence[View]]
) -> str:
    """The same as a page of HTML, with words for each picture.

    Parameters
    ----------
    question, answers, views
        As for :func:`sheet`.
    setting
        Names and values that say what ran.
    """
    title = f"What the model sees when asked: {question}"
    parts = [_setting(setting), answers_table(answers), f"<p>{escape(LEGEND)}</p>"]
    for number, (answer, seen) in enumerate(zip(answers, views, strict=True)):
        if isinstance(answer, Answer) and answer.stages:
            opened = " open" if number == 0 else ""
            drawings = figures(seen, stage_panels(answer)), figures(seen, score_panels(answer))
            parts.append(f"<h2>{escape(heading(answer.method))}</h2>")
            parts.append(f"<details{opened}><summary>Tokens, stage by stage</summary>{drawings[0]}</details>")
            parts.append(f"<details{opened}><summary>Scores</summary>{drawings[1]}</details>" if drawings[1] else "")
    return whole_page(title, "\n".join(parts), STYLE)


def _setting(setting: Sequence[tuple[str, str]]) -> str:
    return f"<p>{escape('; '.join(f'{name}: {value}' for name, value in setting))}</p>"


def answers_table(answers: Sequence[Answer | str]) -> str:
    """Answers, or why there is none, as HTML."""
    head = "<tr><th scope=col>Method<th scope=col>Answer<th scope=col>Image tokens<th scope=col>Seconds</tr>"
    rows = []
    for one in answers:
        if isinstance(one, str):
            rows.append(f'<tr><td colspan="4">{escape(one)}</td></tr>')
            continue
        cells = (one.text or "(nothing)", f"{one.tokens:.1f} of {one.full}", f"{one.seconds:.3f}")
        inner = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        rows.append(f"<tr><th scope=row>{escape(heading(one.method))}</th>{inner}</tr>")
    note = "Image tokens are those of an average layer; the time is that of one request, and no benchmark."
    return f"<table><caption>Answers</caption>{head}{''.join(rows)}</table><p>{note}</p>"


def figures(views: Sequence[View], panels: Sequence[Described]) -> str:
    """Panels as HTML with words for them; empty if there are none."""
    drawings = [
        f'<figure><img alt="{escape(one.words)}" src="{data_url(drawn(views, one))}">'
        f"<figcaption>{escape(one.panel.caption)}</figcaption></figure>"
        for one in panels
    ]
    return f'<div class="panels">{"".join(drawings)}</div>' if drawings else ""


def drawn(views: Sequence[View], described: Described) -> Image.Image:
    """A panel without its caption."""
    return stacked(paint(view, described.panel) for view in views)


def data_url(picture: Image.Image) -> str:
    """A picture as an address that has its data."""
    written = BytesIO()
    picture.save(written, format="png")
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode()}"
