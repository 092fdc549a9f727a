"""Write the README's tables and the model cards of variants anew, from the registries and `model_cards/results`."""

from pathlib import Path

from lmms_tokendrop.benchmark.report import render_blocks
from lmms_tokendrop.hub.card import standing_cards

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    readme, cards = ROOT / "README.md", ROOT / "model_cards"
    readme.write_text(render_blocks(readme.read_text(), cards / "results"))
    for name, card in standing_cards(cards / "results").items():
        card.save(cards / name)


if __name__ == "__main__":
    main()
