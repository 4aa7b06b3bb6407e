"""Tables that read well on paper, by ear and on a telephone; what is in them comes from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence

from hubcache.train.report.markup import Markup, element, joined


def table(title: str, heading: Sequence[str], rows: Sequence[Sequence[str]], *, figures_from: int) -> Markup:
    """Make a table whose first column heads the rows; figures stand right from the given column on."""

    def written(kind: str, row: Sequence[str]) -> list[Markup]:
        scope = "col" if kind == "th" else None
        first = element("th", row[0], scope=scope or "row")
        classes = ["number" if place >= figures_from else None for place in range(1, len(row))]
        return [
            first,
            *(element(kind, text, class_=one, scope=scope) for text, one in zip(row[1:], classes, strict=True)),
        ]

    body = joined(*(element("tr", *written("td", row)) for row in rows))
    return scrolled(
        title,
        element(
            "table",
            element("caption", title),
            element("thead", element("tr", *written("th", heading))),
            element("tbody", body),
        ),
    )


def scrolled(title: str, table: Markup) -> Markup:
    """Let a wide table scroll by itself, by keyboard too, so that the page does not."""
    return element("div", table, class_="scroll", role="region", tabindex=0, aria_label=title)
