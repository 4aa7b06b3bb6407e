"""What `hubcache env` prints, real shells take over byte for byte; what `hubcache exec` enforces is not tested here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.app.environment import (
    SHELLS,
    Variable,
    applied,
    offline_variables,
    online_variables,
    script,
    without_proxies,
)
from hubcache.app.settings import Settings
from hubcache.errors import BadConfig
from hubcache.mirrors.config import Mirror, MirrorsConfig
from tests.support.commandline import CommandLine

NO_MIRRORS = MirrorsConfig()
HOSTILE = [
    "/plain/hub",
    "/with space/and  two",
    '/it\'s/"quoted"/`id`',
    "/$5/$(id)/${/$/%PATH%/%",
    "/a;b&c|d>e<f(g)h[i]j{k}l*m?n!o#p~q^r=s,t",
    "/back\\slash/\\'/\\\\/\\n",
    "/tab\there/\x01\x7f",
    "/ünïcödé/模型/\u2019typographic\u2018",
    os.fsdecode(b"/no\xfftext/\xc3"),
]
# What each real shell does with a file of assignments before it shows its environment to the next program.
TAKES_OVER = {
    "sh": ("bash", ["sh", "-uc", '. "$1"; shift; exec "$@"', "sh"]),
    "bash": ("bash", ["bash", "-uc", 'eval "$(cat "$1")"; shift; exec "$@"', "bash"]),
    "zsh": ("zsh", ["zsh", "-fuc", 'eval "$(cat "$1")"; shift; exec "$@"', "zsh"]),
    "fish": ("fish", ["fish", "--no-config", "-c", "source $argv[1]; exec $argv[2..-1]"]),
}
SHOW = "import json, os, sys; print(json.dumps({n: os.environb[n.encode()].hex() for n in sys.argv[1:]}))"


def settings(**environ: str) -> Settings:
    return Settings.from_environ({"HOME": "/home/u", **environ})


def values(variables: list[Variable]) -> dict[str, str]:
    return {each.name: each.value for each in variables}


def read_back(shell: str, variables: list[Variable], folder: Path, **environ: str) -> dict[str, str]:
    """Let a real shell take the assignments over, and ask a program that it starts for the values."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    syntax, command = TAKES_OVER[shell]
    file = folder / "assignments"
    file.write_bytes(os.fsencode(script(variables, syntax)))
    names = [each.name for each in variables]
    told = subprocess.run(
        [*command, str(file), sys.executable, "-c", SHOW, *names],
        capture_output=True, timeout=60, check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", **environ},
    )  # fmt: skip
    assert (told.returncode, told.stderr) == (0, b"")
    return {name: os.fsdecode(bytes.fromhex(value)) for name, value in json.loads(told.stdout).items()}


@pytest.mark.parametrize("shell", TAKES_OVER)
def test_a_real_shell_reads_every_hostile_path_back_as_it_was(shell: str, tmp_path: Path) -> None:
    variables = [Variable(f"V{number}", path, "why; not `id`") for number, path in enumerate(HOSTILE)]
    assert read_back(shell, variables, tmp_path) == values(variables)


@pytest.mark.parametrize("shell", TAKES_OVER)
def test_a_real_shell_copies_a_token_from_the_variable_that_holds_it(shell: str, tmp_path: Path) -> None:
    copied = [Variable("HF_TOKEN", "", "why", copied_from="TEAM")]
    assert read_back(shell, copied, tmp_path, TEAM="it's $HOME; secret") == {"HF_TOKEN": "it's $HOME; secret"}


def test_comments_do_not_disturb_an_interactive_zsh(tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    file = tmp_path / "assignments"
    file.write_text(script([Variable("V", "a b", "a comment's quote")], "zsh"))
    told = subprocess.run(
        ["zsh", "-fi"], input=f'eval "$(cat {file})"\nprint -r -- "<$V>"\n', capture_output=True, text=True,
        timeout=60, check=False, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
    )  # fmt: skip
    assert "<a b>" in told.stdout
    assert "not found" not in told.stderr


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_any_value_without_a_line_end_survives_a_real_shell(shell: str, tmp_path: Path) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    awkward = st.text(st.sampled_from("'\"\\$`!%;&|<>(){}[]*?~#^=, \taé模"), max_size=12)
    found: list[str] = []

    # Shells are slow to start, so the values are gathered first and read back in one go.
    @given(awkward)
    def gather(text: str) -> None:
        found.append(text)

    gather()
    variables = [Variable(f"V{number}", text, "why") for number, text in enumerate(found)]
    assert read_back(shell, variables, tmp_path) == values(variables)


POWERSHELL = {
    "C:\\a b\\hub": "'C:\\a b\\hub'",
    "it's": "'it''s'",
    "$env:X `n %P%": "'$env:X `n %P%'",
    'a "b"': "'a \"b\"'",
    "\u2018\u2019\u201a\u201b": "'\u2018\u2018\u2019\u2019\u201a\u201a\u201b\u201b'",
}


@pytest.mark.parametrize("text", POWERSHELL)
def test_powershell_takes_nothing_for_an_end_or_a_variable(text: str) -> None:
    assert script([Variable("V", text, "why")], "powershell").splitlines()[-1] == f"$env:V = {POWERSHELL[text]}"


def test_cmd_finds_no_variable_and_no_command_in_a_path() -> None:
    assert script([Variable("V", "C:\\a b & c ^ %P% (x)", "why")], "cmd").splitlines()[-2:] == [
        "@rem why",
        '@set "V=C:\\a b & c ^ %%P%% (x)"',
    ]


def test_cmd_refuses_what_it_cannot_quote() -> None:
    with pytest.raises(BadConfig, match="double quote"):
        script([Variable("V", 'a"b', "why")], "cmd")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("end", ["\n", "\r"])
def test_a_line_end_is_refused_for_every_shell(shell: str, end: str) -> None:
    with pytest.raises(BadConfig, match="V holds a line end"):
        script([Variable("V", f"/a{end}rm -rf x", "why")], shell)


@pytest.mark.parametrize("shell", SHELLS)
def test_every_assignment_stands_under_a_comment_that_explains_it(shell: str) -> None:
    lines = script(offline_variables(settings()), shell).splitlines()
    comments = [line.startswith(SHELLS[shell].comment + " ") for line in lines]
    assert comments == [True] + [True, False] * 5


def test_the_hub_itself_needs_no_more_than_its_address_and_the_cache() -> None:
    found = values(online_variables(settings(HF_HUB_CACHE="/c"), NO_MIRRORS))
    assert found == {"HF_ENDPOINT": "https://huggingface.co", "HF_HUB_CACHE": "/c"}


def test_a_third_partys_mirror_gets_no_token_and_no_xet() -> None:
    found = values(online_variables(settings(HF_ENDPOINT="https://mirror.example/hub/", HF_TOKEN="t"), NO_MIRRORS))
    assert found == {
        "HF_ENDPOINT": "https://mirror.example/hub",
        "HF_HUB_CACHE": "/home/u/.cache/huggingface/hub",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    }


@pytest.mark.parametrize("endpoint", ["https://huggingface.co.evil.example", "http://huggingface.co", "https://hf.co"])
def test_what_only_looks_like_the_hub_is_a_third_party(endpoint: str) -> None:
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN" in values(online_variables(settings(HF_ENDPOINT=endpoint), NO_MIRRORS))


MIRRORS = MirrorsConfig((
    Mirror("fast", "https://bytes.example", "huggingface", trust=("bytes",)),
    Mirror("team", "https://team.example", "huggingface", namespaces=("team",)),
    Mirror("first", "https://first.example", "huggingface"),
    Mirror("huggingface", "https://huggingface.co", "huggingface"),
))  # fmt: skip


def test_the_first_mirror_that_is_believed_and_has_everything_is_the_endpoint() -> None:
    assert values(online_variables(settings(), MIRRORS))["HF_ENDPOINT"] == "https://first.example"


def test_an_endpoint_that_was_chosen_comes_before_every_mirror() -> None:
    chosen = settings(HF_ENDPOINT="https://huggingface.co")
    assert values(online_variables(chosen, MIRRORS))["HF_ENDPOINT"] == "https://huggingface.co"


def test_a_mirror_whose_token_stands_in_a_file_gets_none() -> None:
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN" in with_token("https://mirror.example", "file:/t", HF_TOKEN="own")


def with_token(endpoint: str, named: str, **environ: str) -> dict[str, Variable]:
    mirrors = MirrorsConfig((Mirror("team", endpoint, "huggingface", named),))
    return {each.name: each for each in online_variables(settings(HF_ENDPOINT=endpoint, **environ), mirrors)}


@pytest.mark.parametrize("endpoint", ["https://mirror.example", "http://127.0.0.1:8000", "http://[::1]:8000"])
def test_a_mirror_gets_the_token_that_mirrors_yaml_names_and_not_the_users_own(endpoint: str) -> None:
    found = with_token(endpoint, "TEAM", TEAM="secret", HF_TOKEN="own")
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN" not in found
    assert found["HF_TOKEN"].copied_from == "TEAM"
    assert applied({"TEAM": "secret", "HF_TOKEN": "own"}, found.values())["HF_TOKEN"] == "secret"


def test_no_secret_is_printed() -> None:
    found = with_token("https://mirror.example", "TEAM", TEAM="secret")
    assert not any("secret" in script(found.values(), shell) for shell in SHELLS)


def test_a_mirror_that_is_to_have_the_users_token_needs_nothing() -> None:
    found = with_token("https://mirror.example", "HF_TOKEN", HF_TOKEN="own")
    assert set(found) == {"HF_ENDPOINT", "HF_HUB_CACHE", "HF_HUB_DISABLE_XET"}


@pytest.mark.parametrize(
    ("endpoint", "environ"), [("https://mirror.example", {}), ("http://mirror.example", {"TEAM": "secret"})]
)
def test_without_a_token_or_a_private_way_no_token_is_sent(endpoint: str, environ: dict[str, str]) -> None:
    assert "HF_HUB_DISABLE_IMPLICIT_TOKEN" in with_token(endpoint, "TEAM", HF_TOKEN="own", **environ)


def test_a_variables_name_cannot_carry_a_command() -> None:
    with pytest.raises(BadConfig, match="not the name of a variable"):
        with_token("https://mirror.example", "X}; id; #", **{"X}; id; #": "t"})


def test_offline_asks_nobody_and_names_no_endpoint() -> None:
    found = values(offline_variables(settings(HF_ENDPOINT="https://mirror.example", HF_HUB_CACHE="/c")))
    assert found == {
        "HF_HUB_CACHE": "/c", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip


def test_a_cache_path_that_huggingface_hub_would_expand_is_refused() -> None:
    # The folder's name was "$V" when V was not set; in HF_HUB_CACHE it would be the value of V.
    with pytest.raises(BadConfig, match="would put the value"):
        offline_variables(settings(HF_HUB_CACHE="/x/$W", W="$V", V="elsewhere"))


def test_proxies_are_left_out_and_nothing_else() -> None:
    kept = {"NO_PROXY": "a", "PATH": "/bin", "MY_HTTP_PROXY": "b"}
    assert (
        without_proxies({**kept, "HTTPS_PROXY": "p", "https_proxy": "p", "ALL_PROXY": "p", "http_proxy": "p"}) == kept
    )


SHELL_BY_PROGRAM = {
    "/bin/bash": "export", "/usr/bin/zsh": "export", "/usr/local/bin/fish": "set -gx", "/opt/pwsh": "$env:",
    "/bin/tcsh": "export", "": "export",
}  # fmt: skip


@pytest.mark.parametrize("program", SHELL_BY_PROGRAM)
def test_the_shell_is_guessed_from_the_environment(program: str, tmp_path: Path) -> None:
    told = CommandLine(tmp_path, SHELL=program)("env")
    assert f"\n{SHELL_BY_PROGRAM[program]}" in told.out
    assert told.code == 0


def test_the_shell_that_is_asked_for_comes_before_the_guess(tmp_path: Path) -> None:
    assert '@set "HF_ENDPOINT=' in CommandLine(tmp_path, SHELL="/bin/bash")("env", "--shell", "cmd").out


def test_huggingface_hub_finds_the_mirror_and_the_cache_after_eval(tmp_path: Path) -> None:
    cache = tmp_path / "it's a $(cache) 模"
    oracle = "from huggingface_hub import constants as c; print(c.ENDPOINT, c.HF_HUB_DISABLE_XET, c.HF_HUB_CACHE)"
    line = CommandLine(tmp_path, HF_ENDPOINT="http://127.0.0.1:9/hub/")
    program = 'eval "$("$1" env --cache-dir "$2")"; exec "$3" -c "$4"'
    told = subprocess.run(
        ["sh", "-ec", program, "sh", Path(sys.executable).with_name("hubcache"), cache, sys.executable, oracle],
        capture_output=True, text=True, timeout=60, check=False, env=line.environ,
    )  # fmt: skip
    assert told.stdout == f"http://127.0.0.1:9/hub True {cache}\n"


def test_json_gives_names_values_and_reasons(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = CommandLine(tmp_path)("env", "--offline", "--json").facts
    assert {row["name"]: row["value"] for row in rows}["HF_HUB_CACHE"] == str(tmp_path / "hub")
    assert all(set(row) == {"name", "value", "copied_from", "why"} and row["why"] for row in rows)
