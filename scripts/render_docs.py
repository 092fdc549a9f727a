"""Write the tables of all documents, the plot and the model cards anew, from registries and `model_cards/results`."""

import json
from pathlib import Path

from lmms_tokendrop.benchmark.accuracy_plot import accuracy_plot
from lmms_tokendrop.benchmark.report import render_blocks
from lmms_tokendrop.compare.plot import comparison_plot
from lmms_tokendrop.hub.card import standing_cards
from lmms_tokendrop.results.compared import read_tasks

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "model_cards" / "results"
PLOTTED = {"pocket_scenes": "budgets_pocket_scenes.json", "easy-VQA": "budgets_easy_vqa.json"}


def main() -> None:
    for document in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        document.write_text(render_blocks(document.read_text(), RESULTS))
    measured = {task: RESULTS / file for task, file in PLOTTED.items() if (RESULTS / file).exists()}
    figure = accuracy_plot({task: json.loads(path.read_text()) for task, path in measured.items()})
    figure.savefig(ROOT / "docs" / "accuracy.png", dpi=120)
    if compared := read_tasks(RESULTS / "compare"):
        comparison_plot(compared).savefig(ROOT / "docs" / "compared.png", dpi=120)
    for name, card in standing_cards(RESULTS).items():
        card.save(RESULTS.parent / name)


if __name__ == "__main__":
    main()
