"""Figures of benchmarks/results/ as markdown: what README.md and docs/measured.md are made of."""
import json
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"


def processors(script: str, folder: Path | None = None) -> dict[str, dict]:
    "What a script in benchmarks/ wrote on each kind of processor, by its name, the last run first: its machine, and its rows by name. Empty where it has not run."
    source = (folder or RESULTS) / f"{script}.json"
    if not source.exists(): return {}
    written = json.loads(source.read_text(encoding="utf-8"))
    return {run["machine"]["cpu"]: {"machine": run["machine"], "rows": {row["name"]: row for row in run["rows"]}} for run in (written, *written.get("elsewhere", []))}


def results(script: str, folder: Path | None = None) -> dict:
    "What a script in benchmarks/ wrote: the machine of its last run, and rows by name; those that only another kind of processor has measured are among them. Without rows where it has not run."
    runs = list(processors(script, folder).values())
    return {"machine": runs[0]["machine"] if runs else {}, "rows": {name: row for run in reversed(runs) for name, row in run["rows"].items()}}


def figure(row: dict | None) -> str:
    "A figure and its 95 % interval, where there is one, with as many places as the figure itself."
    if row is None: return ""
    places = 1 if abs(row["value"]) >= 10 else 3
    text = f"{row['value']:.{places}f}"
    if row.get("low") is not None and row.get("high") is not None: text += f" ({row['low']:.{places}f} to {row['high']:.{places}f})"
    return text


def table(lines: list[list[str]]) -> str:
    "Rows of text as a markdown table; the first is the head."
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def grid(rows: dict, lines: dict, columns: dict) -> str:
    """A line for each measure, a column for each way to measure it, and the goal that was set beforehand, where there is one.

    `lines` says what a measure is called in words; `columns` how the row of a measure is named, as `cosine_{}`, and in words."""
    def called(column, name): return column.format(name) or name
    first = next(iter(columns))
    shown = [name for name in lines if called(first, name) in rows]
    goals = [rows[called(first, name)].get("goal") for name in shown]
    filled = [[lines[name], *(figure(rows.get(called(column, name))) for column in columns), "" if goal is None else f"{goal:.3g}"]
              for name, goal in zip(shown, goals)]
    last = None if any(goal is not None for goal in goals) else -1
    return table([line[:last] for line in [["", *columns.values(), "goal"], *filled]])


def goal_table(scripts: dict) -> str:
    "Rows of several scripts with their goals and what each stands beside, a column for each kind of processor: `scripts` says what to call them."
    runs = {script: processors(script) for script in scripts}
    columns = sorted({cpu for script, words in scripts.items() for cpu, run in runs[script].items() if any(name in run["rows"] for name in words)})
    lines = [["", *(columns if len(columns) > 1 else ["measured"]), "goal", "beside, or against"]]
    for script, words in scripts.items():
        rows = results(script)["rows"]
        for name, row in ((name, rows[name]) for name in words if name in rows):
            goal, bound = row.get("goal"), {"higher": "at least", "lower": "at most"}[row.get("better", "higher")]
            measured = [figure(runs[script][cpu]["rows"].get(name)) if cpu in runs[script] else "" for cpu in columns]
            lines.append([words[name], *measured, "" if goal is None else f"{bound} {goal:.3g}", row.get("against") or ""])
    return table(lines)


HEADLINES = [  # what is measured; the script and row of ours; its peers in words with their rows (None: ours is a ratio to it); how a figure reads
    ("The first match has the right breed: photographs of 37 breeds", "pets", "recall_at_1", {"the article's recipe": "article_recall_at_1", "plain cosine": "cosine_recall_at_1"}, "{:.1%}"),
    ("The same kind of clothes or not, new photographs: AUC", "pairs", "clothing_auc", {"AutoMM's recipe": "clothing_automm_auc", "plain cosine": "clothing_cosine_auc"}, "{:.3f}"),
    ("Copies found: turned, cropped, captioned, saved again", "duplicates", "duplicate_recall", {"embeddings and a tuned threshold": "cnn_tuned_duplicate_recall"}, "{:.1%}"),
    ("A query against a million items by the Siamese network, exact", "gallery", "siamese_int8_vs_faiss_flat", {"FAISS flat over the same rows": None}, "{:.1f} times as fast"),
    ("`predict`, with the same answer", "seed_loop", "speedup", {"the article's loop": None}, "{:.0f} times as fast")]


def headlines() -> str:
    "Five figures for the README, each beside its peers; of a figure that several kinds of processors have measured, the lowest."
    lines = [["", "image_similarity", "beside"]]
    for words, script, ours, peers, how in HEADLINES:
        rows = min((run["rows"] for run in processors(script).values() if ours in run["rows"]), key=lambda rows: rows[ours]["value"])
        beside = [peer if row is None else f"{peer}: {how.format(rows[row]['value'])}" for peer, row in peers.items()]
        lines.append([words, f"**{how.format(rows[ours]['value'])}**", ", ".join(beside)])
    return table(lines)
