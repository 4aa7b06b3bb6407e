"""The report page of one run, made of its record alone; it computes no metric and needs no network to be read."""

from __future__ import annotations

import base64
import hashlib
from importlib import resources
from pathlib import Path

from hubcache.train.record import Mistake, RunRecord
from hubcache.train.report.charts import line_chart
from hubcache.train.report.confusion import confusion_parts
from hubcache.train.report.curves import EVALUATION, curve, evaluation_keys, last_step
from hubcache.train.report.figures import is_figure, number, score, seconds, setting, size
from hubcache.train.report.markup import Markup, element, joined, void
from hubcache.train.report.summary import best_name, best_score, changed_settings, inputs, metric_rows, splits_in_order
from hubcache.train.report.tables import table
from hubcache.train.settings import settings_help

FILE = "report.html"
MOST_MISTAKES = 50
MOST_CHARTS = 6
MOST_EVALUATIONS = 200
LONGEST_TEXT = 600

_LOSSES = (("loss", "training"), ("eval_loss", "validation"))


def write_report(record: RunRecord, folder: Path) -> Path:
    """Write the record's page to `folder`/report.html: one file that refers to nothing outside itself."""
    path = folder / FILE
    path.write_text(page(record), encoding="utf-8", newline="\n")
    return path


def framed(record: RunRecord) -> str:
    """Return the page in a frame, as HTML for a notebook's cell: its style is its own, and it may run nothing."""
    style = "width:100%;height:36em;border:1px solid #8884;border-radius:6px"
    return element("iframe", sandbox="", srcdoc=page(record), style=style, title=f"Report: {record.task}")


def page(record: RunRecord) -> str:
    """Return the page; equal records give equal pages."""
    style = resources.files("hubcache.train.report").joinpath("report.css").read_text(encoding="utf-8")
    head = element(
        "head",
        void("meta", charset="utf-8"),
        # Only this very style sheet is allowed: whatever slips into a text can neither run nor fetch anything.
        void("meta", http_equiv="Content-Security-Policy", content=_policy(style)),
        void("meta", name="viewport", content="width=device-width, initial-scale=1"),
        void("meta", name="referrer", content="no-referrer"),
        void("meta", name="color-scheme", content="light dark"),
        element("title", f"{record.task} · {record.model.name}"),
        Markup(f"<style>{style}</style>"),
    )
    body = element("body", _header(record), element("main", *_sections(record)), _footer())
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n"


def _policy(style: str) -> str:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def _header(record: RunRecord) -> Markup:
    best = best_score(record)
    told = [element("p", "Fine-tuning run" if record.history else "Evaluation", class_="kind")]
    told.append(element("h1", record.task, element("span", f" with {record.model.name}")))
    if best:
        split, value = best
        name = best_name(record)
        at = f", step {number(record.best_step)}" if record.best_step is not None else ""
        told.append(
            element(
                "p", element("strong", score(name, value)), element("span", f" {name} on {split}{at}"), class_="best"
            )
        )
    return element("header", *told)


def _sections(record: RunRecord) -> list[Markup]:
    made = [
        _section("Summary", _tiles(record), _metrics(record), _notes(record)),
        _section("Curves", _charts(record), _evaluations(record)) if record.history else None,
        _section("Confusion", *confusion_parts(record.confusion, record.labels)) if record.confusion else None,
        _section("Errors", *_mistakes(record.mistakes)) if record.mistakes else None,
        _section("Settings", _settings(record)),
        _section("Inputs", _inputs(record)),
        _section("Repeat it", element("pre", element("code", record.command), tabindex=0), _versions(record)),
    ]
    return [section for section in made if section is not None]


def _section(title: str, *parts: Markup | None) -> Markup:
    name = title.lower().replace(" ", "-")
    shown = [part for part in parts if part is not None]
    return element("section", element("h2", title, id=name), *shown, aria_labelledby=name)


def _tiles(record: RunRecord) -> Markup:
    steps = last_step(record.history)
    told = [
        ("Training time", seconds(record.seconds)) if record.seconds else None,
        ("Samples per second", number(record.samples_per_second)) if record.samples_per_second else None,
        ("Steps", number(steps)) if steps > 0 else None,
        ("Device", record.device),
        ("Peak memory", size(record.peak_memory)) if record.peak_memory else None,
    ]
    pairs = [element("div", element("dt", name), element("dd", value)) for name, value in filter(None, told)]
    return element("dl", *pairs, class_="tiles")


def _metrics(record: RunRecord) -> Markup:
    rows = metric_rows(record)
    if not rows:
        return element("p", "No metrics were recorded.", class_="empty")
    return table("Metrics", ["metric", *splits_in_order(record)], rows, figures_from=1)


def _notes(record: RunRecord) -> Markup | None:
    return element("ul", *(element("li", note) for note in record.notes), class_="notes") if record.notes else None


def _charts(record: RunRecord) -> Markup:
    history, best = record.history, record.best_step
    losses = [one for key, name in _LOSSES if (one := curve(history, key, name)).points]
    charts = [line_chart("Loss", losses, marked=best, may_log=True)] if losses else []
    for key in evaluation_keys(history, record.best_metric)[:MOST_CHARTS]:
        name = key.removeprefix(EVALUATION)
        charts.append(line_chart(name, [curve(history, key, name)], marked=best))
    for key, title in (("learning_rate", "Learning rate"), ("grad_norm", "Gradient norm")):
        one = curve(history, key, title.lower())
        charts += [line_chart(title, [one], may_log=key == "grad_norm")] if one.points else []
    return element("div", *charts, class_="charts") if charts else element("p", "Nothing was logged.", class_="empty")


def _evaluations(record: RunRecord) -> Markup | None:
    keys = ["eval_loss", *evaluation_keys(record.history, record.best_metric)]
    rows = [row for row in record.history if any(is_figure(row.get(key)) for key in keys)]
    every = -(-len(rows) // MOST_EVALUATIONS)
    shown = [row for place, row in enumerate(rows) if place % every == 0 or row.get("step") == record.best_step]
    if not shown:
        return None
    written = [[_cell(row.get(key)) for key in ("step", "epoch", *keys)] for row in shown]
    marked = [
        [f"{cells[0]} (best)" if row.get("step") == record.best_step else cells[0], *cells[1:]]
        for row, cells in zip(shown, written, strict=True)
    ]
    title = f"Evaluations ({len(shown)} of {number(len(rows))})"
    heading = ["step", "epoch", *(key.removeprefix(EVALUATION) for key in keys)]
    return element("details", element("summary", title), table(title, heading, marked, figures_from=1))


def _cell(value: object) -> str:
    return number(float(value)) if isinstance(value, int | float) else "–"


def _mistakes(mistakes: tuple[Mistake, ...]) -> list[Markup]:
    shown = mistakes[:MOST_MISTAKES]
    told = [element("ol", *(_mistake(one) for one in shown), class_="mistakes")]
    if len(mistakes) > len(shown):
        told.insert(0, element("p", f"{len(shown)} of {number(len(mistakes))} that were kept."))
    return told


def _mistake(one: Mistake) -> Markup:
    sure = one.confidence
    rows = [("right", one.reference, "reference"), ("said", one.prediction, "prediction")]
    pairs = [
        element("div", element("dt", name), element("dd", _cut(text), class_=kind, dir="auto"))
        for name, text, kind in rows
    ]
    if sure is not None:
        pairs.append(element("div", element("dt", "sure"), element("dd", f"{100 * sure:.0f} %")))
    texts = [element("p", _cut(text), class_="text", dir="auto") for text in one.texts]
    return element("li", *texts, element("dl", *pairs))


def _cut(text: str) -> Markup:
    over = len(text) - LONGEST_TEXT
    if over <= 0:
        return joined(text or Markup("<em>empty</em>"))
    return joined(text[:LONGEST_TEXT], element("em", f" … and {number(over)} more characters"))


def _settings(record: RunRecord) -> Markup:
    told, changed = settings_help(), changed_settings(record)
    names = sorted(record.settings, key=lambda name: (name not in changed, name))
    if not names:
        return element("p", "No settings were recorded.", class_="empty")
    rows = []
    for name in names:
        label = joined(f"{name} *" if name in changed else name, *_explained(told.get(name)))
        rows.append([label, setting(record.settings[name])])
    star = element("p", "Those with a star are not hubcache's plain defaults.")
    return joined(star, table("Settings", ("setting", "value"), rows, figures_from=9))


def _explained(told: str | None) -> list[Markup]:
    return [element("small", told)] if told else []


def _inputs(record: RunRecord) -> Markup:
    rows = [(role, one.name, one.digest) for role, one in inputs(record)]
    return table("What was read", ("role", "name", "commit or sha256"), rows, figures_from=9)


def _versions(record: RunRecord) -> Markup | None:
    rows = sorted(record.versions.items())
    return table("Versions", ("package", "version"), rows, figures_from=9) if rows else None


def _footer() -> Markup:
    return element("footer", element("p", "Written by hubcache out of the run.json beside this page."))
