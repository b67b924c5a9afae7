"""Write share/ anew."""

from pathlib import Path

from manual.pages import files

ROOT = Path(__file__).parents[1]

for name, text in files().items():
    file = ROOT / "share" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
