"""In a real notebook kernel: bars are widgets, tables and reports are HTML; in a script, the same calls are plain."""

from __future__ import annotations

import html
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hubcache.app.tables import Table
from hubcache.demo.models import tiny_bert
from tests.support.commandline import CommandLine
from tests.support.loophub import LoopHub
from tests.support.pages import parsed

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

CELLS = (
    "import hubcache, warnings\nhubcache.pull('org/tiny')",
    "hubcache.cached()",
    "run = hubcache.finetune('org/tiny', 'text-classification', DATA, output='me/mood',"
    " settings={'epochs': 2, 'batch_size': 8, 'max_length': 16, 'learning_rate': 3e-3})\nrun",
    "hubcache.evaluate('me/mood', 'text-classification', DATA)",
    "hubcache.pipeline('text-classification', 'me/mood')('a great day')",
    "list(hubcache.cached())[0]['size'] + 0",
)
WIDGET = "application/vnd.jupyter.widget-view+json"


@dataclass(frozen=True)
class Notebook:
    """An executed notebook's cells and widgets."""

    notebook: Any

    def outputs(self, cell: int) -> list[Any]:
        return list(self.notebook.cells[cell + 1].outputs)

    def drawn(self, cell: int, kind: str) -> list[str]:
        return [each["data"][kind] for each in self.outputs(cell) if kind in each.get("data", {})]

    def said(self, cell: int) -> str:
        return "".join(each["text"] for each in self.outputs(cell) if each["output_type"] == "stream")

    def bars(self, cell: int) -> list[dict[str, Any]]:
        """The states in which a cell left its progress bars."""
        state = self.notebook.metadata["widgets"]["application/vnd.jupyter.widget-state+json"]["state"]
        boxes = [state[view["model_id"]]["state"] for view in self.drawn(cell, WIDGET) if view["model_id"] in state]  # type: ignore[index]
        inside = [state[child.removeprefix("IPY_MODEL_")]["state"] for box in boxes for child in box["children"]]
        return [each for each in inside if each["_model_name"] == "FloatProgressModel"]


def write_rows(folder: Path) -> Path:
    folder.mkdir()
    for split in ("train", "validation", "test"):
        rows = [{"text": f"a {word} day", "label": label} for word, label in (("great", "good"), ("sad", "bad"))] * 16
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Notebook]:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("notebook")
    data = write_rows(folder / "moods")
    with LoopHub() as hub:
        hub.add_repo("org/tiny", tiny_bert(7))
        environ = {
            "HF_ENDPOINT": hub.endpoint, "HF_HUB_CACHE": str(folder / "hub"), "XDG_STATE_HOME": str(folder / "state"),
            "HOME": str(folder), "IPYTHONDIR": str(folder / "ipython"), "JUPYTER_RUNTIME_DIR": str(folder / "run"),
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        notebook = nbformat.v4.new_notebook()
        first = f"DATA = {str(data)!r}\nimport torch; torch.set_num_threads(1)"
        notebook.cells = [nbformat.v4.new_code_cell(each) for each in (first, *CELLS)]
        nbclient.NotebookClient(notebook, timeout=240, kernel_name="python3").execute(env={**os.environ, **environ})
        yield Notebook(notebook)


@pytest.mark.train
@pytest.mark.slow
def test_a_pull_draws_a_bar_that_counts_its_bytes(ran: Notebook) -> None:
    bars = ran.bars(0)
    assert len(bars) == 1
    assert bars[0]["value"] == bars[0]["max"] > 10_000


@pytest.mark.train
@pytest.mark.slow
def test_a_pull_says_nothing_of_missing_widgets_or_experiments(ran: Notebook) -> None:
    assert "Warning" not in ran.said(0)


@pytest.mark.train
@pytest.mark.slow
def test_the_cache_is_drawn_as_a_table(ran: Notebook) -> None:
    [drawn] = ran.drawn(1, "text/html")
    cells = [cell.text for cell in parsed(drawn).all("td")]
    assert cells[0] == "org/tiny"
    assert ran.drawn(1, "text/plain")[0].splitlines()[0].split() == ["repo", "type", "size", "files", "used", "refs"]


@pytest.mark.train
@pytest.mark.slow
def test_fine_tuning_draws_a_bar_that_ends_at_its_last_step(ran: Notebook) -> None:
    [bar] = ran.bars(2)
    assert bar["value"] == bar["max"] == 8


@pytest.mark.train
@pytest.mark.slow
@pytest.mark.parametrize("cell", [2, 3])
def test_a_run_is_drawn_as_its_report_in_a_frame_that_runs_nothing(ran: Notebook, cell: int) -> None:
    [drawn] = ran.drawn(cell, "text/html")
    [frame] = parsed(drawn).all("iframe")
    assert frame.attributes["sandbox"] == ""
    page = parsed(frame.attributes["srcdoc"] or "")
    assert "accuracy" in page.text
    assert not page.all("script")


@pytest.mark.train
@pytest.mark.slow
def test_a_pipeline_answers_as_it_does_in_a_script(ran: Notebook) -> None:
    assert re.fullmatch(r"\[\{'label': '(good|bad)', 'score': 0\.\d+\}\]", ran.drawn(4, "text/plain")[0])


@pytest.mark.train
@pytest.mark.slow
def test_a_table_s_records_are_numbers(ran: Notebook) -> None:
    assert int(ran.drawn(5, "text/plain")[0]) > 10_000


def test_a_script_that_pulls_prints_no_bar_where_nobody_sees_one(tmp_path: Path) -> None:
    with LoopHub() as hub:
        hub.add_repo("org/tiny", {"config.json": b"{}"})
        python = CommandLine(tmp_path, HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0").python
        told = python("import hubcache; print(hubcache.pull('org/tiny')); print(hubcache.cached())", HF_HUB_OFFLINE="0")
    assert told.code == 0, told.err
    path, header, row, _ = told.out.splitlines()
    assert Path(path, "config.json").read_bytes() == b"{}"
    assert header.split()[0] == "repo"
    assert row.split()[0] == "org/tiny"
    assert told.err == ""


def test_a_table_escapes_what_is_in_it() -> None:
    hostile = "<script>alert(1)</script>"
    drawn = Table((hostile,), ((hostile,),), ({},), caption=hostile)._repr_html_()
    assert "<script" not in drawn
    assert drawn.count(html.escape(hostile)) == 3
