"""Write the tables of all documents, and the model cards, anew, from the registries and `model_cards/results`."""

from pathlib import Path

from lmms_tokendrop.benchmark.report import render_blocks
from lmms_tokendrop.hub.card import standing_cards

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "model_cards" / "results"


def main() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        document.write_text(render_blocks(document.read_text(), RESULTS))
    for name, card in standing_cards(RESULTS).items():
        card.save(RESULTS.parent / name)


if __name__ == "__main__":
    main()
