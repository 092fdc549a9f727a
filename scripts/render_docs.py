"""Write the tables of all documents, pictures, the report and the model cards anew, from `model_cards/results`."""

from pathlib import Path

from lmms_tokendrop.benchmark.report import fill_documents
from lmms_tokendrop.hub.card import standing_cards
from lmms_tokendrop.json_files import read_json_object
from lmms_tokendrop.report.budgets import budget_picture
from lmms_tokendrop.report.comparisons import score_picture
from lmms_tokendrop.report.drawing import drawn
from lmms_tokendrop.report.kinds import read_sections
from lmms_tokendrop.report.writing import write_report
from lmms_tokendrop.results.compared import read_tasks

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "model_cards" / "results"
DOCS = ROOT / "docs"
TITLE = "What was measured on the pocket models"
PLOTTED = {"pocket_scenes": "budgets_pocket_scenes.json", "easy-VQA": "budgets_easy_vqa.json"}


def main() -> None:
    fill_documents(RESULTS, [ROOT / "README.md", *sorted(DOCS.glob("*.md"))])
    write_report(read_sections(RESULTS), DOCS / "report", TITLE)
    budgets = [budget_picture(task, read_json_object(RESULTS / file)) for task, file in PLOTTED.items()]
    compared = [score_picture(task, rows) for task, rows in read_tasks(RESULTS / "compare").items()]
    for name, pictures in {"accuracy": budgets, "compared": compared}.items():
        drawn(pictures).savefig(DOCS / f"{name}.png", dpi=120)
    for name, card in standing_cards(RESULTS).items():
        card.save(RESULTS.parent / name)


if __name__ == "__main__":
    main()
