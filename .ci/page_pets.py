"""docs/pets.md and docs/pets.svg: a run on real photographs of pets, from benchmarks/results/pets.json; benchmarks/pets.py writes both."""
from figures import ROOT, figure, grid, results
from page_measured import MEASURES, SYSTEMS

PAGE, PICTURE = ROOT / "docs" / "pets.md", ROOT / "docs" / "pets.svg"
BARS = {"recall_at_1": "first match of the right breed", "map_at_r": "MAP@R", "auc_seen": "pairs of known breeds: AUC", "auc_unseen": "pairs of new breeds: AUC"}
COLOURS = {"": "#2f6fb0", "cosine_{}": "#9aa7b4", "article_{}": "#c98a3c"}


def picture() -> str:
    "Bars with their 95 % intervals, as SVG."
    rows, parts, y = results("pets")["rows"], [], 34
    for i, (column, colour) in enumerate(COLOURS.items()):
        parts.append(f'<rect x="{220 + 150 * i}" y="8" width="12" height="12" fill="{colour}"/><text x="{238 + 150 * i}" y="18">{SYSTEMS[column]}</text>')
    for name, words in BARS.items():
        parts.append(f'<text x="210" y="{y + 26}" text-anchor="end">{words}</text>')
        for column, colour in COLOURS.items():
            if row := rows.get(column.format(name) or name):
                value, low, high = (220 + 400 * row[k] for k in ("value", "low", "high"))
                parts.append(f'<rect x="220" y="{y}" width="{value - 220:.1f}" height="12" fill="{colour}"/>'
                             f'<path d="M{low:.1f} {y + 6}H{high:.1f}" stroke="#222"/><text x="{max(value, high) + 6:.1f}" y="{y + 10}" font-size="11">{row["value"]:.3f}</text>')
            y += 14
        y += 12
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 680 {y}" font-family="sans-serif" font-size="13">\n<rect width="680" height="{y}" fill="#fff"/>\n'
            + "\n".join(parts) + "\n</svg>\n")


def page() -> str:
    found = results("pets")
    rows, machine = found["rows"], found["machine"]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items() if name in ("torch", "fastai", "timm"))
    lines = ["# Photographs of pets", "<!-- made from benchmarks/results/pets.json: make readme, or python benchmarks/pets.py --page -->",
             "The notebooks draw their pets, so that they run anywhere. This is the same pipeline on real photographs: 579 of the Oxford-IIIT Pet data set, 37 breeds, 143 of "
             "them for testing only. `benchmarks/pets.py` trained everything anew and wrote these figures; the page has no photograph in it, because none may be "
             "passed on with the project.",
             "![The first match, MAP@R and AUC, beside plain cosine and the article's recipe](pets.svg)",
             "## Which breed, and which photograph is most alike", "Classifier and Siamese network on all 37 breeds; each test photograph searches among those of training.",
             grid(rows, {k: v for k, v in MEASURES.items() if k in ("accuracy", "recall_at_1", "map_at_r")}, SYSTEMS),
             "## The same breed or not", "A second Siamese network, which saw 28 of the breeds. It is asked about all pairs of their test photographs, and about all pairs of "
             "photographs of the nine other breeds.",
             grid(rows, {k: v for k, v in MEASURES.items() if k not in ("accuracy", "recall_at_1", "map_at_r", "head_seconds")}, SYSTEMS),
             f"In brackets are 95 % intervals over photographs (resampling adds to a calibration error, so that its interval lies high and may not hold the figure), the goals were set beforehand, and where a figure is short of its goal it stays so. With 143 test photographs a figure is good to about "
             f"five points. Training took {figure(rows['head_seconds'])} seconds once the photographs were embedded, on {machine['cores']} cores of {machine['cpu']}, with Python {machine['python']}, {packages}.",
             "The article's recipe is a frozen body of the same encoder at 224 pixels, three epochs of `fit_one_cycle` for each network, a hard cut at the predicted class and fifteen comparisons.",
             "## All 7,349",
             "`python benchmarks/pets.py --full --json full_pets.json` downloads the data set (800 MB) and does the same with all of it: its own split, and every fourth breed of each species for the new ones. **It has not been run here**, "
             "where nothing can be downloaded but packages; on two cores expect some hours, most of them for the article's recipe."]
    return "\n\n".join(lines) + "\n"
