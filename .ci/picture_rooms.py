"""docs/rooms.svg: the rooms as a house, with an arrow from each to those that it stands on. Made from the imports, the same on every machine."""
from html import escape
from itertools import pairwise, permutations
from textwrap import wrap

from rooms import about, arrows, height, reduced

WIDTH, HEIGHT, ACROSS, DOWN = 250, 74, 30, 58 # of a box, and between boxes, in pixels
MARGIN = 16
ROOM, INK, SOFT, LINE = "#f4f6f2", "#1d2a26", "#53625d", "#1f6f54"

Node = tuple[str, int] # a room, and a storey: its own, or one that an arrow to it passes through


def storeys(imports: dict[str, set[str]]) -> tuple[list[list[Node]], set[tuple[Node, Node]]]:
    "What stands on each storey, from the ground up, and the pieces of arrow between neighbouring storeys. Arrows to one room share their way."
    up = {room: height(room, imports) for room in imports}
    pieces = {((room if level == up[room] - 1 else other, level + 1), (other, level))
              for room, others in imports.items() for other in others for level in range(up[other], up[room])}
    nodes = {(room, up[room]) for room in imports} | {end for piece in pieces for end in piece}
    return [sorted(node for node in nodes if node[1] == level) for level in range(max(up.values()) + 1)], pieces


def crossings(ends: list[tuple[int, int]]) -> int:
    return sum((a - c) * (b - d) < 0 for a, b in ends for c, d in ends) // 2


def placed(layers: list[list[Node]], pieces: set[tuple[Node, Node]]) -> dict[Node, int]:
    "The lane of every node: fewest crossings, then the shortest ways, over all arrangements (Viterbi, storey by storey)."
    lanes = range(max(len(layer) for layer in layers))
    best = {order: (0, 0, [dict(zip(layers[0], order))]) for order in permutations(lanes, len(layers[0]))}
    for lower, upper in pairwise(layers):
        between = sorted((a, b) for a, b in pieces if b in lower)
        after = {}
        for order in permutations(lanes, len(upper)):
            here = dict(zip(upper, order))
            after[order] = min(((crossed + crossings(ends := [(here[a], way[-1][b]) for a, b in between]), length + sum(abs(x - y) for x, y in ends), [*way, here])
                                for crossed, length, way in best.values()), key=lambda found: found[:2])
        best = after
    way = min(best.values(), key=lambda found: found[:2])[2]
    return {node: lane for layer in way for node, lane in layer.items()}


def centre(node: Node, lanes: dict[Node, int], top: int) -> tuple[float, float]:
    return MARGIN + lanes[node] * (WIDTH + ACROSS) + WIDTH / 2, MARGIN + (top - node[1]) * (HEIGHT + DOWN) + HEIGHT / 2


def box(room: str, x: float, y: float) -> str:
    "A room: its name, and what it is for."
    lines = wrap(about(room)[0].replace("`", ""), 40)
    if len(lines) > 3: lines = [*lines[:2], lines[2].rstrip(".,:; ") + " …"]
    text = "".join(f'<text x="{x - WIDTH / 2 + 12:g}" y="{y - HEIGHT / 2 + 37 + 14 * i:g}" class="about">{escape(line)}</text>' for i, line in enumerate(lines))
    return (f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" rx="8"/>'
            f'<text x="{x - WIDTH / 2 + 12:g}" y="{y - HEIGHT / 2 + 21:g}" class="room">{escape(room)}</text>{text}')


def spread(n: int, i: int) -> float:
    "Where the i-th of n arrows meets a box, from its middle."
    return (i - (n - 1) / 2) * min(36, WIDTH * .7 / n)


def picture() -> str:
    "The picture, as the text of an SVG."
    imports = reduced(arrows())
    layers, pieces = storeys(imports)
    lanes, top = placed(layers, pieces), len(layers) - 1
    rooms = {node for node in lanes if node[1] == height(node[0], imports)}
    at = {node: centre(node, lanes, top) for node in lanes}
    drawn = []
    for a, b in sorted(pieces):
        out = sorted({y for x, y in pieces if x == a}, key=lambda node: (lanes[node], node))
        (x1, y1), (x2, y2) = at[a], at[b]
        if a in rooms: x1, y1 = x1 + spread(len(out), out.index(b)), y1 + HEIGHT / 2
        if b in rooms:
            into = sorted((x for x, y in pieces if y == b), key=lambda node: (lanes[node], node))
            x2, y2 = x2 + spread(len(into), into.index(a)), y2 - HEIGHT / 2 - 2
        if a not in rooms: y1 += HEIGHT / 2
        if b not in rooms: y2 -= HEIGHT / 2
        middle = (y1 + y2) / 2
        straight = "" if b in rooms else f" V {y2 + HEIGHT:g}"
        tip = ' marker-end="url(#tip)"' if b in rooms else ""
        drawn.append(f'<path d="M {x1:g} {y1:g} C {x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {y2:g}{straight}"{tip}/>')
    across, down = 2 * MARGIN + (max(lanes.values()) + 1) * (WIDTH + ACROSS) - ACROSS, 2 * MARGIN + len(layers) * (HEIGHT + DOWN) - DOWN
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across} {down}" width="{across}" height="{down}" role="img">\n'
            "<title>The rooms of image_similarity: each imports only from rooms below it</title>\n"
            f"<style>text {{ font-family: Inter, 'Liberation Sans', Helvetica, Arial, sans-serif; }} .room {{ font-size: 15px; font-weight: 600; fill: {INK}; }} "
            f".about {{ font-size: 11.5px; fill: {SOFT}; }} rect {{ fill: {ROOM}; stroke: {LINE}; }} path {{ fill: none; stroke: {LINE}; stroke-width: 1.6; }} "
            f"marker path {{ fill: {LINE}; stroke: none; }}</style>\n"
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 1 L10 5 L0 9 z"/></marker></defs>\n'
            f'<rect x="0" y="0" width="{across}" height="{down}" style="fill: #fff; stroke: none"/>\n'
            + "\n".join(drawn) + "\n" + "\n".join(box(node[0], *at[node]) for node in sorted(rooms)) + "\n</svg>\n")
