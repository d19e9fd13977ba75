"""Plot how far each row of the bench is from its goal, as an SVG."""

from collections.abc import Sequence
from html import escape
from typing import Protocol

WIDTH, ROW_HEIGHT, LEFT, GOAL_AT = 900, 28, 380, 200


class Scored(Protocol):
    """The fields of a row that the plot uses."""

    @property
    def name(self) -> str:
        """What was measured."""
        ...

    @property
    def value(self) -> float:
        """The measured value."""
        ...

    @property
    def goal(self) -> float:
        """The value to reach."""
        ...

    @property
    def better(self) -> str:
        """`more` or `less`: on which side of the goal the value should be."""
        ...


def bars(rows: Sequence[Scored]) -> str:
    """Return an SVG; a bar that passes the line has reached its goal."""
    height = ROW_HEIGHT * (len(rows) + 2)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}">']
    parts.append(
        '<style>text{font:13px sans-serif}</style><rect width="100%" height="100%" fill="#fff"/>'
    )
    for number, row in enumerate(rows):
        score = row.value / row.goal if row.better == "more" else row.goal / max(row.value, 1e-9)
        top = ROW_HEIGHT * (number + 1)
        length = min(score, 2.4) * GOAL_AT
        colour = "#2a7" if score >= 1 else "#c63"
        parts.append(f'<text x="8" y="{top + 16}">{escape(row.name)}</text>')
        parts.append(
            f'<rect x="{LEFT}" y="{top + 3}" width="{length:.0f}" height="18" fill="{colour}"/>'
        )
        parts.append(f'<text x="{LEFT + length + 6:.0f}" y="{top + 16}">{score:.2f} of goal</text>')
    line = LEFT + GOAL_AT
    parts.append(
        f'<line x1="{line}" x2="{line}" y1="{ROW_HEIGHT - 6}" y2="{height - 20}" stroke="#333"/>'
    )
    return "\n".join([*parts, "</svg>", ""])
