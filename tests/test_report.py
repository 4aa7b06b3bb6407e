"""The report page: what it shows, that nothing in a record can harm it, and that it reaches for nothing."""

from __future__ import annotations

import base64
import hashlib
import math
import re
import subprocess
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcache.train.record import Mistake, RunRecord
from hubcache.train.report import write_report
from hubcache.train.report.curves import Curve, thinned
from hubcache.train.report.page import page
from tests.support.pages import Element, parsed, png_rows
from tests.support.runs import history, hostile_record, record

CHROMIUM = Path("/usr/bin/chromium")
# None of these fetches or runs anything by itself.
HARMLESS = {
    *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "section", "h1", "h2", "p", "span"),
    *("strong", "em", "small", "ul", "ol", "li", "dl", "dt", "dd", "div", "table", "caption", "thead", "tbody", "tr"),
    *("th", "td", "figure", "figcaption", "svg", "g", "line", "path", "circle", "text", "details", "summary", "pre"),
    "code",
}
BARE = RunRecord(task="t", model=record().model, data=(), settings={}, command="", metrics={})


def tree(**changes: Any) -> Element:
    return parsed(page(record(**changes)))


def titles(shown: Element) -> list[str]:
    return [one.text for one in shown.all("h2")]


def chart(shown: Element, title: str) -> Element:
    return next(one for one in shown.classed("chart") if one.all("figcaption")[0].text.startswith(title))


def test_the_page_is_one_file_called_report_html(tmp_path: Path) -> None:
    assert write_report(record(), tmp_path) == tmp_path / "report.html"
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_it_opens_with_task_model_and_best_metric() -> None:
    header = tree().all("header")[0].text
    assert "rotten_tomatoes with sentence-transformers/all-MiniLM-L6-v2" in header
    assert "0.8321 accuracy on validation, step 300" in header


def test_the_sections_come_in_the_order_of_reading() -> None:
    told = ["Summary", "Curves", "Confusion", "Errors", "Settings", "Inputs", "Repeat it"]
    assert titles(tree()) == told


def test_the_summary_tells_time_speed_device_and_memory() -> None:
    told = tree().classed("tiles")[0].text
    assert all(part in told for part in ("12 min 34 s", "63.2", "400", "cpu, fp32", "3.0 GiB"))


def test_validation_stands_before_test_whatever_the_order_of_the_record() -> None:
    heads = tree().all("table")[0].all("thead")[0].all("th")
    assert [one.text for one in heads] == ["metric", "validation", "test"]


def test_the_best_metric_is_the_first_row() -> None:
    rows = tree().all("table")[0].all("tbody")[0].all("tr")
    assert [cell.text for cell in rows[0].all("th", "td")] == ["accuracy", "0.8321", "0.7921"]


def test_a_metric_out_of_100_has_two_digits() -> None:
    shown = tree(metrics={"validation": {"squad_f1": 88.123}}, best_metric="squad_f1")
    assert "88.12 squad_f1" in shown.all("header")[0].text


@pytest.mark.parametrize("made", [record(), hostile_record(), BARE], ids=["whole", "hostile", "bare"])
def test_every_tag_is_closed(made: RunRecord) -> None:
    assert parsed(page(made)).all("main")


def test_it_says_which_language_and_letters() -> None:
    shown = tree()
    assert shown.all("html")[0].attributes["lang"] == "en"
    assert shown.all("meta")[0].attributes == {"charset": "utf-8"}


@pytest.mark.parametrize("made", [record(), hostile_record()], ids=["whole", "hostile"])
def test_no_element_fetches_or_runs_anything(made: RunRecord) -> None:
    shown = parsed(page(made))
    assert not {one.name for one in shown.all()} - HARMLESS
    names = {name for one in shown.all() for name in one.attributes}
    assert not {name for name in names if name.startswith("on")}
    assert not names & {"src", "href", "srcset", "style", "action", "xlink:href", "data", "background", "poster"}


def test_the_style_sheet_refers_to_nothing() -> None:
    style = parsed(page(record())).all("style")[0].text
    assert not re.search(r"url\(|@import|@font-face|https?:|//", style)


def test_the_policy_allows_this_style_sheet_and_nothing_else() -> None:
    shown = tree()
    style = shown.all("style")[0].text
    policy = next(one.attributes["content"] for one in shown.all("meta") if "http-equiv" in one.attributes)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"


def test_hostile_texts_are_shown_as_they_are() -> None:
    shown = parsed(page(hostile_record()))
    assert "<script>fetch('/leak')</script>" in shown.classed("mistakes")[0].text
    assert "<script>fetch('/leak')</script>" in shown.all("pre")[0].text


def test_control_characters_and_direction_overrides_become_signs() -> None:
    text = page(hostile_record())
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]", text)
    assert "⟨U+0000⟩⟨U+001B⟩[31m⟨U+202E⟩gnp" in text


def test_a_hostile_page_is_written_as_utf_8(tmp_path: Path) -> None:
    assert write_report(hostile_record(), tmp_path).read_text(encoding="utf-8") == page(hostile_record())


def test_the_same_record_gives_the_same_page() -> None:
    assert page(record()) == page(record())


def test_a_record_that_was_written_and_read_gives_the_same_page(tmp_path: Path) -> None:
    record().write(tmp_path)
    assert page(RunRecord.read(tmp_path)) == page(record())


def test_a_bare_record_has_a_page_without_empty_parts() -> None:
    shown = parsed(page(BARE))
    assert titles(shown) == ["Summary", "Settings", "Inputs", "Repeat it"]
    assert "No metrics were recorded." in shown.text


def test_the_best_step_is_marked_in_loss_and_metric_charts() -> None:
    shown = tree()
    marked = [one.all("figcaption")[0].text for one in shown.classed("chart") if "best: step 300" in one.text]
    assert marked == ["Loss", "accuracy", "macro_f1"]


def test_the_legend_tells_the_value_at_the_best_step_and_the_last() -> None:
    assert chart(tree(), "accuracy").all("li")[0].text == "accuracy: 0.75 at the best step, 0.8 last"


def test_training_and_validation_loss_share_a_chart() -> None:
    lines = [one.attributes["class"] for one in chart(tree(), "Loss").all("path")]
    assert lines == ["line s1", "line s2"]


def test_timings_are_no_metrics() -> None:
    assert "runtime" not in tree().all("main")[0].text


def test_a_chart_has_an_axis_with_values_and_steps() -> None:
    ticks = [one.text for one in chart(tree(), "accuracy").classed("tick")]
    assert ticks[:4] == ["0.65", "0.70", "0.75", "0.80"]
    assert {"200", "300", "400", "step"} <= set(ticks)


def test_a_chart_says_in_words_what_it_shows() -> None:
    svg = chart(tree(), "accuracy").all("svg")[0]
    assert svg.attributes["role"] == "img"
    expected = "accuracy over steps. accuracy: 0.65 at step 100, 0.8 at step 400; lowest 0.65, highest 0.8."
    assert svg.attributes["aria-label"] == expected


def test_one_point_is_a_dot_in_the_middle() -> None:
    shown = tree(history=({"step": 5, "loss": 0.5},), best_step=None)
    dots = chart(shown, "Loss").all("circle")
    assert [dot.attributes["cx"] for dot in dots] == ["217.0"]


def test_equal_values_have_an_axis_around_them() -> None:
    shown = tree(history=tuple({"step": step, "loss": 0.0} for step in range(3)), best_step=None)
    assert {"-1.0", "0", "1.0"} <= {one.text for one in chart(shown, "Loss").classed("tick")}


def test_values_that_are_no_numbers_leave_a_gap_and_are_told() -> None:
    losses = [0.9, math.nan, math.inf, 0.5]
    shown = chart(tree(history=tuple({"step": step, "loss": loss} for step, loss in enumerate(losses, 1))), "Loss")
    assert "2 not a number, from step 2" in shown.all("li")[0].text
    assert shown.all("path")[0].attributes["d"].count("M") == 2  # type: ignore[union-attr]


def test_only_values_that_are_no_numbers_draw_nothing() -> None:
    shown = chart(tree(history=({"step": 1, "loss": math.nan},)), "Loss")
    assert not shown.all("svg")
    assert "no values" in shown.text


def test_a_metric_that_is_no_number_is_told_as_such() -> None:
    shown = tree(metrics={"validation": {"accuracy": math.nan}})
    assert "not a number accuracy" in shown.all("header")[0].text


def test_a_wide_range_of_losses_gets_a_logarithmic_axis() -> None:
    shown = tree(history=({"step": 1, "loss": 90.0}, {"step": 2, "loss": 0.002}), best_step=None)
    assert chart(shown, "Loss").all("figcaption")[0].text == "Loss (log scale)"


def test_20000_rows_make_a_page_of_less_than_200_kb() -> None:
    assert len(page(record(history=history(20_000, 400)))) < 200_000


def test_thinning_keeps_a_single_spike_and_both_ends() -> None:
    points = [(float(step), 9.0 if step == 12_345 else 1.0) for step in range(20_000)]
    kept = thinned(points)
    assert len(kept) <= 402
    assert {points[0], points[12_345], points[-1]} <= set(kept)


def test_many_points_are_drawn_faintly_under_their_mean() -> None:
    shown = chart(tree(history=history(500)), "Loss")
    assert [one.attributes["class"] for one in shown.all("path")] == ["line s1 faint", "line s1", "line s2"]


def test_rows_without_a_step_count_by_their_place() -> None:
    shown = tree(history=({"loss": 0.9}, {"loss": 0.5}), best_step=None)
    assert "0.9 at step 1, 0.5 at step 2" in str(chart(shown, "Loss").all("svg")[0].attributes["aria-label"])


def test_a_curve_keeps_what_cannot_be_drawn_apart() -> None:
    one = Curve("loss", ((1.0, math.nan), (2.0, 0.5)))
    assert (one.finite, len(one.broken)) == (((2.0, 0.5),), 1)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["step", "epoch", "loss", "eval_loss", "eval_accuracy", "learning_rate", "grad_norm"]),
            st.one_of(st.floats(), st.integers(), st.none(), st.text(max_size=2), st.booleans()),
        ),
        max_size=8,
    )
)
def test_whatever_was_logged_has_a_page(rows: list[dict[str, Any]]) -> None:
    assert parsed(page(record(history=tuple(rows)))).all("main")


def test_few_labels_have_a_matrix_of_counts_and_one_of_shares() -> None:
    counts, shares = tree().classed("heat")
    assert [cell.text for cell in counts.all("tbody")[0].all("td")] == ["430", "70", "98", "402"]
    assert [cell.text for cell in shares.all("tbody")[0].all("td")] == ["86.0", "14.0", "19.6", "80.4"]


def test_heat_grows_with_the_share_of_the_row() -> None:
    cells = tree(confusion=((99, 1), (0, 0))).classed("heat")[1].all("tbody")[0].all("td")
    assert [str(cell.attributes["class"]).split()[0] for cell in cells] == ["h10", "h1", "h0", "h0"]


def test_many_labels_have_their_most_confused_pairs_instead() -> None:
    counts = [[0] * 100 for _ in range(100)]
    counts[3][3], counts[3][7], counts[5][4] = 6, 2, 1
    shown = tree(labels=tuple(f"l{place}" for place in range(100)), confusion=tuple(map(tuple, counts)))
    assert not shown.classed("heat")
    pairs = next(one for one in shown.all("table") if "confused pairs" in one.all("caption")[0].text)
    rows = [[cell.text for cell in row.all("th", "td")] for row in pairs.all("tbody")[0].all("tr")]
    assert rows == [["l3", "l7", "2", "25.0"], ["l5", "l4", "1", "100.0"]]


def test_each_label_has_precision_recall_and_f1() -> None:
    told = next(one for one in tree().all("table") if one.all("caption")[0].text == "Scores of each label")
    assert [cell.text for cell in told.all("tbody")[0].all("tr")[0].all("th", "td")] == [
        "neg",
        "500",
        "81.4",
        "86.0",
        "83.7",
    ]


def test_labels_without_a_name_go_by_their_number() -> None:
    heads = tree(labels=()).classed("heat")[0].all("tbody")[0].all("th")
    assert [one.text for one in heads] == ["0", "1"]


def test_an_error_shows_its_texts_both_labels_and_how_sure() -> None:
    first = tree().classed("mistakes")[0].all("li")[0]
    assert first.all("p")[0].text == "a dull film"
    assert [one.text for one in first.all("dd")] == ["neg", "pos", "97 %"]


def test_a_text_goes_in_its_own_direction() -> None:
    assert all(one.attributes["dir"] == "auto" for one in tree().classed("text"))


def test_a_long_text_is_cut_and_says_so() -> None:
    shown = tree(mistakes=(Mistake(("x" * 3000,), "a", "b"),))
    assert shown.classed("text")[0].text == "x" * 600 + " … and 2,400 more characters"


def test_no_more_than_fifty_errors_are_shown() -> None:
    shown = tree(mistakes=tuple(Mistake((f"text {place}",), "a", "b") for place in range(70)))
    assert len(shown.classed("mistakes")[0].all("li")) == 50
    assert "50 of 70" in shown.text


def test_settings_that_are_not_the_default_come_first_with_a_star() -> None:
    told = next(one for one in tree().all("table") if one.all("caption")[0].text == "Settings")
    rows = [[cell.text for cell in row.all("th", "td")] for row in told.all("tbody")[0].all("tr")]
    assert [name.partition(" *")[0] for name, _ in rows if " *" in name] == ["epochs", "learning_rate"]
    assert rows[0] == ["epochs *passes over the training rows", "5.0"]


def test_inputs_stand_with_their_digests() -> None:
    told = next(
        one for one in tree(teacher=record().model).all("table") if one.all("caption")[0].text == "What was read"
    )
    rows = [row.all("th", "td") for row in told.all("tbody")[0].all("tr")]
    assert [[cells[0].text, cells[2].text] for cells in rows] == [
        ["model", "a" * 40],
        ["data", "b" * 40],
        ["data", "c" * 64],
        ["teacher", "a" * 40],
    ]


def test_the_command_stands_in_full() -> None:
    assert tree().all("code")[0].text == record().command


@pytest.mark.parametrize("made", [record(), hostile_record(), BARE], ids=["whole", "hostile", "bare"])
def test_every_table_has_a_caption_and_its_headers_a_scope(made: RunRecord) -> None:
    for table in parsed(page(made)).all("table"):
        assert table.all("caption")[0].text
        assert {one.attributes.get("scope") for one in table.all("th")} <= {"row", "col", "colgroup"}


def test_headings_go_down_one_level_at_a_time() -> None:
    assert [one.name for one in tree().all("h1", "h2", "h3")] == ["h1", *["h2"] * 7]


def test_every_section_is_labelled_by_its_heading() -> None:
    shown = tree()
    names = [one.attributes["id"] for one in shown.all("h2")]
    assert [one.attributes["aria-labelledby"] for one in shown.all("section")] == names
    assert len(set(names)) == len(names)


def test_what_scrolls_can_be_reached_by_keyboard_and_has_a_name() -> None:
    for one in tree().classed("scroll"):
        assert (one.attributes["tabindex"], one.attributes["role"], bool(one.attributes["aria-label"])) == (
            "0",
            "region",
            True,
        )


def _colours(scheme: str) -> dict[str, tuple[int, ...]]:
    style = resources.files("hubcache.train.report").joinpath("report.css").read_text(encoding="utf-8")
    light, _, dark = style.partition("prefers-color-scheme: dark")
    found = re.findall(r"--([a-z-]+): #([0-9a-f]{6});", light)
    found += re.findall(r"--([a-z-]+): #([0-9a-f]{6});", dark) if scheme == "dark" else []
    return {name: tuple(bytes.fromhex(colour)) for name, colour in found}


def _contrast(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    def light(colour: tuple[float, ...]) -> float:
        parts = [part / 255 / 12.92 if part <= 10 else ((part / 255 + 0.055) / 1.055) ** 2.4 for part in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ink", ["ink", "quiet", "accent", "second", "good", "bad"])
@pytest.mark.parametrize("ground", ["surface", "raised"])
def test_every_ink_stands_out_from_its_ground(scheme: str, ink: str, ground: str) -> None:
    colours = _colours(scheme)
    assert _contrast(colours[ink], colours[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_heat_leaves_its_figure_readable(scheme: str) -> None:
    style = resources.files("hubcache.train.report").joinpath("report.css").read_text(encoding="utf-8")
    colours = _colours(scheme)
    mixes = [
        (int(level), int(share)) for level, share in re.findall(r"\.h(\d+) \{ background: .*?heat\) (\d+)%", style)
    ]
    assert len(mixes) == 9
    for level, share in [*mixes, (10, 100)]:
        pairs = zip(colours["heat"], colours["surface"], strict=True)
        ground = tuple(share / 100 * heat + (1 - share / 100) * surface for heat, surface in pairs)
        assert _contrast(colours["ink" if level < 7 else "heat-ink"], ground) >= 4.5


class _Asked(SimpleHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        self.asked.append(self.path)
        super().do_GET()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def _shot(url: str, into: Path, *, width: int, dark: bool = False) -> Path:
    target = into / f"{width}{dark}.png"
    subprocess.run(
        [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--hide-scrollbars",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            f"--user-data-dir={into / 'profile'}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--screenshot={target}",
            f"--window-size={width},1600",
            url,
        ],
        check=True,
        capture_output=True,
        timeout=120,
    )
    return target


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="there is no /usr/bin/chromium to look at the page with")
def test_a_browser_asks_for_the_page_alone_and_draws_it(tmp_path: Path) -> None:
    served = tmp_path / "served"
    served.mkdir()
    write_report(replace(hostile_record(), history=history(40)), served)
    handler = type("Asked", (_Asked,), {"asked": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(served))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/report.html"
        shots = [_shot(url, tmp_path, width=width, dark=dark) for width, dark in ((390, False), (1440, True))]
        server.shutdown()
        thread.join()
    assert handler.asked == ["/report.html"] * 2  # type: ignore[attr-defined]
    assert all(len(png_rows(shot)) > 100 for shot in shots)
