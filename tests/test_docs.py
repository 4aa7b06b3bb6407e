"""What the README promises is what the code has."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hubcache_cli.errors import EXIT_CODES, INTERRUPTED, UNEXPECTED
from hubcache_cli.main import COMMANDS

from hubcache.app.settings import VARIABLES
from hubcache.sources.registry import schemes

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def table(heading: str) -> dict[str, str]:
    """Read a two-column table below a heading of the README."""
    section = README.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", section, re.MULTILINE)[1:]
    return {left.strip("`"): right for left, right in rows if not set(left) <= {"-"}}


def test_the_commands_are_the_ones_that_exist() -> None:
    assert table("Commands") == {f"hubcache {name}": line for name, line in COMMANDS.items()}


def test_the_exit_codes_are_the_ones_that_are_used() -> None:
    expected = {str(code): meaning for _, code, meaning in EXIT_CODES}
    documented = table("Exit codes")
    assert {code: documented[code] for code in expected} == expected
    assert set(documented) - set(expected) == {"0", str(UNEXPECTED), str(INTERRUPTED)}


def test_the_settings_are_the_ones_that_are_read() -> None:
    assert table("Settings") == VARIABLES


def test_every_source_is_in_the_table_of_references() -> None:
    section = README.split("\n## References\n")[1].split("\n## ")[0]
    assert all(f"`{scheme}:" in section or f"`{scheme}s:" in section for scheme in schemes())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_in_80_columns(name: str) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "hubcache_cli.main", name, "--help"],
        capture_output=True, text=True, timeout=60, check=False, env={"COLUMNS": "80", "PATH": ""},
    )  # fmt: skip
    assert told.returncode == 0
    assert f"hubcache {name}" in told.stdout
    assert max(map(len, told.stdout.splitlines())) <= 80


def test_the_task_of_the_documentation_is_one(tmp_path: Path) -> None:
    from hubcache.train.tasks import load_task

    text = (ROOT / "docs/finetune.md").read_text()
    [example] = re.findall(r"```yaml\n(.+?)```", text, re.DOTALL)
    (tmp_path / "my_task.yaml").write_text(example)
    task = load_task(str(tmp_path / "my_task.yaml"))
    assert (task.name, task.labels) == ("mood", ("bad", "good"))


def test_every_kind_that_the_documentation_names_is_a_task() -> None:
    from hubcache.train.tasks import load_task

    text = (ROOT / "docs/finetune.md").read_text()
    section = text.split("By kind: ")[1].split(" By name:")[0]
    kinds = re.findall(r"`([a-z-]+)`", section)
    assert len(kinds) == 10
    assert all(load_task(kind).name for kind in kinds)


def test_every_public_model_is_in_the_documentation() -> None:
    text = (ROOT / "docs/models.md").read_text()
    source = (ROOT / "hubcache/models/__init__.py").read_text()
    names = re.findall(r'^    "(\w+)",$', source, re.MULTILINE)
    heads = [name for name in names if re.fullmatch(r"(Sbert|Palm|Veco)(Model|For\w+|LMHeadModel)", name)]
    assert len(heads) > 15
    assert [name for name in heads if f"`{name}`" not in text] == []
