"""datasets and evaluate load what the mirror serves: rows of files, a stream of them, a metric of a Space."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest

from tests.clients.world import Client, Told, Wanted, lacks, told_in
from tests.support.clients import OFFLINE, PULLING, Case
from tests.support.loophub import LoopHub

pytestmark = [pytest.mark.slow, lacks("pyarrow", "datasets", "evaluate")]

ROWS = [{"text": f"row {number}", "label": number % 3} for number in range(500)]
CARD = b"""---
configs:
- config_name: small
  data_files:
  - split: train
    path: parts/small.csv
- config_name: large
  data_files:
  - split: train
    path: parts/large.csv
---
# Two configurations
"""
METRIC = b'''"""The share of predictions that are right, as a metric."""

import datasets
import evaluate


class ShareRight(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("int32"), "references": datasets.Value("int32")})
        return evaluate.MetricInfo(description="", citation="", inputs_description="", features=features)

    def _compute(self, predictions, references):
        return {"share_right": sum(p == r for p, r in zip(predictions, references)) / len(references)}
'''
WANTED = {
    "datasets": [Wanted(f"org/{name}", "dataset") for name in ("csv", "parquet", "configured")],
    "evaluate": [Wanted("evaluate-metric/share_right", "space")],
}
DID = {
    ("datasets_load.py", "csv"): ("datasets", "load_dataset, csv", ROWS),
    ("datasets_load.py", "parquet"): ("datasets", "load_dataset, parquet", ROWS),
    ("datasets_load.py", "configured"): ("datasets", "load_dataset, a configuration of the card", ROWS[:20]),
    ("datasets_load.py", "splits"): ("datasets", "load_dataset, splits by file names", ["test", "train"]),
    ("evaluate_load.py", "metric"): ("evaluate", "load, a metric of a Space", {"share_right": 0.75}),
}
STREAMED = {
    ("datasets_stream.py", "csv"): ("datasets", "load_dataset, csv as a stream", ROWS),
    ("datasets_stream.py", "parquet"): ("datasets", "load_dataset, parquet as a stream", ROWS),
}
CASES = [Case(client, did) for client, did, _ in (DID | STREAMED).values()]
Runs = Callable[[str, str, str], Told]


def csv(rows: list[dict[str, Any]]) -> bytes:
    return "".join(["text,label\n", *(f"{row['text']},{row['label']}\n" for row in rows)]).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    from pyarrow import Table, parquet

    written = io.BytesIO()
    parquet.write_table(Table.from_pylist(rows), written, row_group_size=100)
    return written.getvalue()


@pytest.fixture(scope="module")
def hub() -> Iterator[LoopHub]:
    with LoopHub() as server:
        server.add_repo("org/csv", {"data/train.csv": csv(ROWS), "data/test.csv": csv(ROWS[:5])}, kind="dataset")
        server.add_repo("org/parquet", {"data/train-00000-of-00001.parquet": parquet(ROWS)}, kind="dataset")
        parts = {"parts/small.csv": csv(ROWS[:20]), "parts/large.csv": csv(ROWS)}
        server.add_repo("org/configured", {"README.md": CARD} | parts, kind="dataset")
        server.add_repo("evaluate-metric/share_right", {"share_right.py": METRIC, "app.py": b"print()"}, kind="space")
        yield server


@pytest.fixture(scope="module")
def runs(hub: LoopHub, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """What each script told in each mode; it is run when it is first asked for."""

    @cache
    def told(name: str, script: str, mode: str) -> Told:
        folder = tmp_path_factory.mktemp(name)
        return told_in(mode, folder, hub, Client(name, script, folder / "client"), WANTED[name])

    return told


@pytest.mark.parametrize("mode", [OFFLINE, PULLING])
@pytest.mark.parametrize(("script", "case"), DID)
def test_what_is_loaded_is_what_was_published_and_is_there_offline(
    script: str, case: str, mode: str, runs: Runs
) -> None:
    client, did, expected = DID[script, case]
    told = runs(client, script, mode)
    with told.proven(Case(client, did)):
        assert told.value(case) == told.again(case) == expected


@pytest.mark.parametrize("mode", [OFFLINE, PULLING])
@pytest.mark.parametrize(("script", "case"), STREAMED)
def test_what_is_streamed_is_what_was_published(script: str, case: str, mode: str, runs: Runs) -> None:
    client, did, expected = STREAMED[script, case]
    told = runs(client, script, mode)
    with told.proven(Case(client, did)):
        assert told.value(case) == expected
