"""The confusion matrix as heat tables, or the most confused pairs where labels are many; it counts no predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hubcache.train.report.figures import number
from hubcache.train.report.markup import Markup, element
from hubcache.train.report.tables import scrolled, table

FEW_LABELS = 16
"""Labels up to which the whole matrix is shown."""

_PAIRS = 20
_HEATS = 10

Counts = Sequence[Sequence[int]]


def confusion_parts(counts: Counts, labels: Sequence[str]) -> list[Markup]:
    """Show counts[reference][predicted] as tables: the matrix twice or the pairs, then each label's scores."""
    names = [labels[place] if place < len(labels) else str(place) for place in range(len(counts))]
    shown = [_pairs(counts, names)] if len(names) > FEW_LABELS else [_matrices(counts, names)]
    return [*shown, _scores(counts, names)]


def _matrices(counts: Counts, names: Sequence[str]) -> Markup:
    most = max((count for row in counts for count in row), default=0)
    return element(
        "div",
        _matrix("Counts", counts, names, lambda count, _: (number(count), _share(count, most))),
        _matrix("Share of the row, %", counts, names, lambda count, all_: (_percent(count, all_), _share(count, all_))),
        class_="side",
    )


def _matrix(title: str, counts: Counts, names: Sequence[str], cell: Callable[[int, int], tuple[str, float]]) -> Markup:
    head = element(
        "thead",
        element("tr", element("td", ""), element("th", "predicted", colspan=len(names), scope="colgroup")),
        element("tr", element("th", "reference", scope="col"), *(element("th", name, scope="col") for name in names)),
    )
    rows = []
    for place, (name, row) in enumerate(zip(names, counts, strict=True)):
        cells = [_cell(*cell(count, sum(row)), right=place == column) for column, count in enumerate(row)]
        rows.append(element("tr", element("th", name, scope="row"), *cells))
    return scrolled(title, element("table", element("caption", title), head, element("tbody", *rows), class_="heat"))


def _cell(text: str, share: float, *, right: bool) -> Markup:
    # Rounded up, so that a single example in thousands is still tinted.
    heat = min(_HEATS, -int(-share * _HEATS // 1)) if share else 0
    return element("td", text, class_=f"h{heat}{' right' if right else ''}")


def _pairs(counts: Counts, names: Sequence[str]) -> Markup:
    found = [
        (count, reference, predicted)
        for reference, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if count and reference != predicted
    ]
    found.sort(key=lambda pair: (-pair[0], pair[1], pair[2]))
    if not found:
        return element("p", f"None of the {len(names)} labels was taken for another.", class_="empty")
    heading = ("reference", "predicted", "count", "% of the reference's examples")
    rows = [
        (names[reference], names[predicted], number(count), _percent(count, sum(counts[reference])))
        for count, reference, predicted in found[:_PAIRS]
    ]
    title = f"Most confused pairs ({len(rows)} of {number(len(found))}; {len(names)} labels)"
    return table(title, heading, rows, figures_from=2)


def _scores(counts: Counts, names: Sequence[str]) -> Markup:
    columns = [sum(row[place] for row in counts) for place in range(len(names))]
    rows = []
    for place, (name, row) in enumerate(zip(names, counts, strict=True)):
        hit, asked, told = row[place], sum(row), columns[place]
        rows.append((name, number(asked), _percent(hit, told), _percent(hit, asked), _percent(2 * hit, asked + told)))
    heading = ("label", "examples", "precision, %", "recall, %", "F1, %")
    return element(
        "details",
        element("summary", f"Scores of each label ({len(names)})"),
        table("Scores of each label", heading, rows, figures_from=1),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f}" if whole else "–"
