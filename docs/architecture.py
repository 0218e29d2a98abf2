"""The picture and the table of architecture.md, from the imports and docstrings of minglow/.

    python docs/architecture.py        # writes _static/architecture.svg, and the table in the page

A box is a module or a package. A line leads down from a box to one that it imports. Imports that follow
from others are left out: where a imports b and b imports c, none is drawn from a to c. Lines to one box
join on their way. Everything is computed in a fixed order, so that the same files give the same text.
"""

import ast
import re
from bisect import bisect_right, insort
from functools import cache
from html import escape
from itertools import pairwise
from math import fsum
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

DOCS = Path(__file__).parent
PACKAGE = DOCS.parent / "minglow"
PICTURE, PAGE = DOCS / "_static" / "architecture.svg", DOCS / "architecture.md"
BEGIN, END = "<!-- boxes: begin -->\n", "<!-- boxes: end -->\n"

FLOORS = {4: "commands", 3: "models, runs", 2: "layers, flows", 1: "foundations"}
WIDTH, LEFT, RIGHT, TOP = 1000, 130, 20, 12  # left of the boxes stand the floors' names
BOX, ROW, PAD, SPACE = 32, 60, 14, 14  # heights of a box and a row; around a floor; between neighbors
STARTS, SWEEPS = 40, 8  # how many orders of the boxes are tried, and how often each is mended
LIGHT = {"paper": "#fcfcfa", "band": "#eef1f4", "box": "#ffffff", "ink": "#1d2733", "edge": "#8a97a5",
         "to1": "#8a6d1f", "to2": "#1f6f8a", "to3": "#7a3f8f", "to4": "#a03d2e"}
DARK = {"paper": "#15191e", "band": "#1e242b", "box": "#2a323b", "ink": "#e8edf2", "edge": "#7d8a98",
        "to1": "#d9b95c", "to2": "#62bbd8", "to3": "#c792dc", "to4": "#ec8a7a"}

Edges = dict[str, list[str]]
Places = dict[str, float]


class Box(NamedTuple):
    """A module or a package of minglow."""

    floor: int
    purpose: str  # the first sentence of its docstring
    imports: set[str]


def boxes() -> dict[str, Box]:
    """Every module and package, by name."""
    found: dict[str, Box] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name, *inner = path.relative_to(PACKAGE).with_suffix("").parts
        if name in ("__init__", "__main__"):  # which gather the others
            continue
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not inner or inner == ["__init__"]:
            doc = ast.get_docstring(tree) or ""
            floor = re.search(r"Floor (\d)", doc)
            if not floor:
                raise ValueError(f"expected {path} to say which floor it is of")
            purpose = " ".join(doc.split("\n\n")[0].split("Floor")[0].split())
            found[name] = Box(int(floor[1]), purpose, set())
        found[name].imports.update(imported(tree) - {name})
    return dict(sorted(found.items()))


def imported(tree: ast.AST) -> set[str]:
    """The modules and packages of minglow that a file imports."""
    dotted = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            dotted |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            dotted |= {f"{node.module}.{alias.name}" for alias in node.names}
    names = {name.split(".")[1] for name in dotted if name.startswith("minglow.")}
    return {name for name in names if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


def without_shortcuts(found: dict[str, Box]) -> Edges:
    """The imports that do not follow from others: the transitive reduction."""

    def below(name: str) -> set[str]:
        return found[name].imports.union(*(below(other) for other in found[name].imports))

    return {name: sorted(box.imports - set().union(*(below(other) for other in box.imports)))
            for name, box in found.items()}


def in_rows(found: dict[str, Box], edges: Edges) -> list[list[str]]:
    """The boxes in rows, those on top first: all of a floor together, every line downwards.

    A box stands as low in its floor as its imports allow; one that imports nothing, and is imported by
    nothing of its floor, stands in the floor's top row.
    """
    inside = {name: [other for other in edges[name] if found[other].floor == found[name].floor]
              for name in found}
    joined = {name for name in found if edges[name]}.union(*inside.values())

    def depth(name: str) -> int:
        return 1 + max(map(depth, inside[name]), default=-1)

    highest: dict[int, int] = {}
    for name, box in found.items():
        highest[box.floor] = max(highest.get(box.floor, 0), depth(name))
    place = {name: (box.floor, depth(name) if name in joined else highest[box.floor])
             for name, box in found.items()}
    keys = sorted(set(place.values()), reverse=True)
    return [[name for name in place if place[name] == key] for key in keys]


def routed(rows: list[list[str]], edges: Edges) -> tuple[list[list[str]], Edges]:
    """Rows and links with a waypoint "name@row" wherever a line passes a row on its way to a box."""
    rows, at = [list(row) for row in rows], {name: i for i, row in enumerate(rows) for name in row}
    links: Edges = {}
    for source, targets in edges.items():
        for target in targets:
            way = [source, *(f"{target}@{i}" for i in range(at[source] + 1, at[target])), target]
            for row, (upper, lower) in enumerate(pairwise(way), at[source]):
                if upper not in rows[row]:
                    rows[row].append(upper)
                if lower not in links.setdefault(upper, []):
                    links[upper].append(lower)
    return rows, links


@cache
def half(name: str) -> float:
    """Half of the width that a box or a waypoint takes."""
    narrow, broad = (sum(name.count(letter) for letter in letters) for letters in ("fijlrt", "mw"))
    return 2.0 if "@" in name else (10.2 * len(name) - 3.8 * narrow + 6 * broad + 22) / 2


def placed(rows: list[list[str]], links: Edges) -> Places:
    """Where the middle of each box and waypoint is: near its neighbors, none on another."""
    back: Edges = {}
    for upper, lowers in links.items():
        for lower in lowers:
            back.setdefault(lower, []).append(upper)
    best: Places = {}
    least = (10**9, 0.0)
    for start in range(STARTS):  # orders to begin with: any, but always the same
        x: Places = {}
        for row in rows:
            order = sorted(row, key=lambda name: crc32(f"{start} {name}".encode()))
            x |= spread(order, dict.fromkeys(order, (LEFT + WIDTH - RIGHT) / 2))
        for sweep in range(SWEEPS):  # neighbors above and below take turns at deciding the order
            near = back if sweep % 2 else links
            for row in rows if sweep % 2 else rows[::-1]:
                wish = {name: middle(name, near.get(name, []), x, 4) for name in row}
                x |= spread(sorted(row, key=lambda name: (wish[name], x[name], name)), wish)
            if (cost := (crossings(rows, links, x), length(links, x))) < least:
                best, least = dict(x), cost
    for sweep in range(30 * SWEEPS):  # in this order, the straightest lines
        for row in rows if sweep % 2 else rows[::-1]:
            wish = {name: middle(name, back.get(name, []) + links.get(name, []), best, 40)
                    for name in row}
            best |= spread(sorted(row, key=lambda name: (best[name], name)), wish)
    return best


def middle(name: str, near: list[str], x: Places, straight: int) -> float:
    """The mean place of its neighbors, a line that passes both counted `straight` times."""
    weights = [straight if "@" in name and "@" in other else 1 for other in near]
    return fsum(w * x[other] for w, other in zip(weights, near)) / sum(weights) if near else x[name]


def spread(row: list[str], wish: Places) -> Places:
    """Places in this order, as near to the wished ones as the widths allow."""
    groups: list[tuple[float, list[str]]] = []  # where a group's first member is, and its members
    for name in row:
        first, members = wish[name], [name]
        while groups and groups[-1][0] + offsets([*groups[-1][1], members[0]])[-1] > first:
            before, others = groups.pop()
            gap = offsets([*others, members[0]])[-1]
            first = (before * len(others) + (first - gap) * len(members)) / (len(others) + len(members))
            members = [*others, *members]
        groups.append((first, members))
    x = {name: first + offset for first, members in groups
         for name, offset in zip(members, offsets(members))}
    for names, sign, wall in ((row, 1, LEFT), (row[::-1], -1, WIDTH - RIGHT)):  # nothing stays outside
        least = sign * wall + half(names[0])
        for before, name in pairwise([names[0], *names]):
            if name != before:
                least = sign * x[before] + offsets([before, name])[1]
            x[name] = sign * max(sign * x[name], least)
    return x


def offsets(row: list[str]) -> list[float]:
    """How far right of the first each has to be."""
    places = [0.0]
    for left, right in pairwise(row):
        places.append(places[-1] + half(left) + half(right) + SPACE)
    return places


def crossings(rows: list[list[str]], links: Edges, x: Places) -> int:
    """How often lines cross."""
    count = 0
    for row in rows:
        seen: list[float] = []  # where the lines end that begin further left
        for upper in sorted(row, key=lambda name: x[name]):
            ends = [x[lower] for lower in links.get(upper, [])]
            count += sum(len(seen) - bisect_right(seen, end) for end in ends)
            for end in ends:
                insort(seen, end)
    return count


def length(links: Edges, x: Places) -> float:
    """How far the lines go sideways, all together."""
    return fsum(abs(x[upper] - x[lower]) for upper, lowers in links.items() for lower in lowers)


def architecture_svg() -> str:
    """The picture, as the text of an SVG."""
    found = boxes()
    edges = without_shortcuts(found)
    rows, links = routed(in_rows(found, edges), edges)
    x, y, bands, height = placed(rows, links), {}, {}, TOP
    for row in rows:
        floor = next(found[name].floor for name in row if name in found)
        if floor not in bands:
            height += 2 * PAD - (ROW - BOX) if bands else 0
            bands[floor] = (height, 0)
            height += PAD
        y |= dict.fromkeys(row, height)
        bands[floor] = (bands[floor][0], height + BOX + PAD)
        height += ROW
    height += BOX + PAD + TOP - ROW
    parts = [head(height, len(found), sum(map(len, edges.values())))]
    for floor, (top, bottom) in bands.items():
        parts += [
            f'<rect class="band" x="6" y="{top}" width="{WIDTH - 12}" height="{bottom - top}" rx="6"/>',
            f'<text class="floor" x="18" y="{top + 28}">Floor {floor}</text>',
            f'<text class="what" x="18" y="{top + 48}">{FLOORS[floor]}</text>']
    for upper, lowers in sorted(links.items()):
        for lower in lowers:
            to, start, end = found[lower.split("@")[0]].floor, y[upper] + BOX, y[lower]
            half_way, below = (start + end) // 2, end + BOX * ("@" in lower)
            a, b = f"{x[upper]:.1f}", f"{x[lower]:.1f}"
            parts.append(f'<path class="line to{to}" d="M{a} {start}C{a} {half_way} {b} {half_way} '
                         f'{b} {end}V{below}"/>')
    for name, box in found.items():
        left, wide = x[name] - half(name), 2 * half(name)
        parts += [
            f"<g><title>{escape(box.purpose)}</title>",
            f'<rect class="box" x="{left:.1f}" y="{y[name]}" width="{wide:.1f}" height="{BOX}" rx="4"/>',
            f'<text class="name" x="{x[name]:.1f}" y="{y[name] + 22}">{name}</text></g>']
    return "\n".join([*parts, "</svg>", ""])


def head(height: int, count: int, drawn: int) -> str:
    """The SVG's beginning: what it shows, in words and to the eye, and its background."""
    light, dark = (" ".join(f"--{name}: {color};" for name, color in colors.items())
                   for colors in (LIGHT, DARK))
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" \
height="{height}" role="img" aria-labeledby="title desc">
<title id="title">The modules of minglow on their four floors</title>
<desc id="desc">{count} modules and packages as boxes, floor 4 on top, and {drawn} imports as lines, \
each down from a box to one that it imports. Imports that follow from others are left out.</desc>
<style>
svg {{ {light} }}
@media (prefers-color-scheme: dark) {{ svg {{ {dark} }} }}
text {{ font: 17px system-ui, "Segoe UI", Roboto, Arial, sans-serif; fill: var(--ink) }}
.name {{ text-anchor: middle }} .floor {{ font-weight: 600 }} .what {{ font-size: 14px }}
.box {{ fill: var(--box); stroke: var(--edge) }} .band {{ fill: var(--band) }}
.line {{ fill: none; stroke-width: 1.5 }}
.to1 {{ stroke: var(--to1) }} .to2 {{ stroke: var(--to2) }} .to3 {{ stroke: var(--to3) }} \
.to4 {{ stroke: var(--to4) }}
</style>
<rect width="{WIDTH}" height="{height}" rx="8" style="fill: var(--paper)"/>"""


def architecture_table() -> str:
    """What each box is for, floor 4 first, as a Markdown table."""
    lines = ["| floor | box | what it is for |", "| --- | --- | --- |"]
    for name, box in sorted(boxes().items(), key=lambda item: (-item[1].floor, item[0])):
        file = name if (PACKAGE / name).is_dir() else f"{name}.py"
        lines.append(f"| {box.floor} | [{name}](../minglow/{file}) | {box.purpose} |")
    return "\n".join([*lines, ""])


def page_with_table(page: str) -> str:
    """The page, its table as it has to be now."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}{architecture_table()}{END}{rest.split(END)[1]}"


if __name__ == "__main__":
    PICTURE.write_text(architecture_svg(), encoding="utf-8")
    PAGE.write_text(page_with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
