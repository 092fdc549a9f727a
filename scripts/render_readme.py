"""Write the README's tables anew, from the registries and `model_cards/results`."""

from pathlib import Path

from lmms_tokendrop.benchmark.report import render_blocks

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    readme = ROOT / "README.md"
    readme.write_text(render_blocks(readme.read_text(), ROOT / "model_cards" / "results"))


if __name__ == "__main__":
    main()
