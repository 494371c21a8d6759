"""The parts of ARCHITECTURE.md that are made from the imports: which room imports from which, between two comments; the rest of that page is written by hand."""
import re

from figures import table
from rooms import ROOT, arrows, reduced, rooms

PAGE = ROOT / "ARCHITECTURE.md"
MADE = re.compile(r"(?<=<!-- made from the imports: make readme -->\n).*?(?=\n<!-- until here -->)", re.DOTALL)


def imports_table() -> str:
    "Each room with the rooms that it imports from: those of the picture in bold, those that follow from them in plain."
    every = arrows()
    drawn, order = reduced(every), rooms()
    return table([["room", "imports from"], *([f"`{room}`", ", ".join(f"**{other}**" if other in drawn[room] else other for other in reversed(order) if other in every[room]) or "nothing"]
                                              for room in reversed(order))])


def page() -> str:
    "The page with its table as it should be."
    text = PAGE.read_text(encoding="utf-8")
    if len(MADE.findall(text)) != 1: raise ValueError("ARCHITECTURE.md has lost the comments between which its table of imports stands")
    return MADE.sub(lambda _: imports_table(), text)
