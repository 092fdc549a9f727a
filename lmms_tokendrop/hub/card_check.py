"""A rendered card has the parts of its template and nothing else."""

from __future__ import annotations

import re

from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from lmms_tokendrop.hub.folder import LICENSE
from lmms_tokendrop.hub.picture import PICTURE
from lmms_tokendrop.hub.shipped import shipped

TEMPLATE = "model_cards/variant.md.jinja"
TARGETS = frozenset({PICTURE, LICENSE})
"""Where links and pictures of a card lead."""


def check_card(card: ModelCard, comment: str = "") -> None:
    """Read a card again, as the Hub does, and compare it with what it was made of.

    Parameters
    ----------
    card
        Made of the template.
    comment
        The only HTML that it may have.

    Raises
    ------
    ValueError
        If the front matter reads differently, or if the text has headings that the template has not, HTML, or links to
        elsewhere: something that was put in became more than text.
    """
    if ModelCard(str(card)).data.to_dict() != card.data.to_dict():
        raise ValueError("the card's front matter does not read as what it was made of")
    wanted = re.findall(r"^#+ (.*)", shipped(TEMPLATE).read_text(encoding="utf-8"), re.MULTILINE)[1:]
    blocks = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(card.text)
    headings = [blocks[place + 1].content for place, block in enumerate(blocks) if block.type == "heading_open"]
    if headings[1:] != wanted:
        raise ValueError(f"the card has the headings {headings[1:]}; its template has {wanted}")
    parts = [*blocks, *(part for block in blocks for part in block.children or ())]
    html = [part.content.strip() for part in parts if part.type in ("html_block", "html_inline")]
    targets = {part.attrGet("href") or part.attrGet("src") for part in parts if part.type in ("link_open", "image")}
    for found in [*(text for text in html if text != comment), *sorted(targets - TARGETS)]:
        raise ValueError(f"the card has {found!r}, which its template has not")
