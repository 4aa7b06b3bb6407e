"""`hubcache recipe`, and which recipe a file, a zoo model's stub or a cached repo means."""

from __future__ import annotations

from pathlib import Path

import pytest

from hubcache.app.local import LocalApp, compose_local
from hubcache.app.recipes import find_recipe, locate_recipe
from hubcache.app.settings import Settings
from hubcache.errors import BadConfig, EntryNotFound, OfflineError, UsageError
from hubcache.train.sparse.recipe import LearningRateFunctionModifier
from tests.support.commandline import CommandLine
from tests.support.goldens import golden
from tests.support.loopzoo import LoopZoo

UPSTREAM = "zoo:nlp/masked_language_modeling/obert-base/pytorch/huggingface/wikipedia_bookcorpus/pruned90-none"
QUANTISED = "zoo:nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90_quant-none"
REPO = "sparsezoo/sentiment_analysis.obert-base.sst2.pruned90_quant-none"
TEXT = """
num_epochs: 4
lr: 1.0e-3
modifiers:
  - !EpochRangeModifier {start_epoch: 0.0, end_epoch: eval(num_epochs)}
  - !SetLearningRateModifier {start_epoch: 2.0, learning_rate: eval(lr)}
"""


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """A cache that holds two models of the fake zoo; the zoo is stopped."""
    with LoopZoo(golden("sparse/fakezoo")) as server:
        hubcache = CommandLine(tmp_path_factory.mktemp("zoo"), SPARSEZOO_API_URL=server.endpoint)
        ran = hubcache("pull", UPSTREAM, QUANTISED, "--json")
        assert ran.code == 0, ran.err
    return hubcache


@pytest.fixture(scope="module")
def app(zoo: CommandLine) -> LocalApp:
    return compose_local(Settings.from_environ({"HOME": str(zoo.home), "HF_HUB_CACHE": str(zoo.cache)}))


@pytest.fixture
def hubcache(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    (tmp_path / "recipe.yaml").write_text(TEXT)
    return tmp_path / "recipe.yaml"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (UPSTREAM, "recipes/recipe.md"),
        (f"{UPSTREAM}?recipe=transfer_text", "recipes/recipe_transfer_text_classification.md"),
        (f"{UPSTREAM}?recipe_type=transfer_q", "recipes/recipe_transfer_question_answering.md"),
        (f"{UPSTREAM}?recipe_type=unknown", "recipes/recipe.md"),
        (QUANTISED, "recipes/recipe.md"),
        (REPO, "recipe.yaml"),
    ],
)
def test_a_reference_means_one_recipe(app: LocalApp, text: str, name: str) -> None:
    path = locate_recipe(app, text)
    assert path.as_posix().endswith(f"/{name}")
    assert path.is_file()


def test_a_zoo_recipe_is_read_with_its_variables_set(app: LocalApp) -> None:
    found = find_recipe(app, f"{UPSTREAM}?recipe=transfer_text", arguments={"num_epochs": 2})
    assert (found.max_epochs, found.of(LearningRateFunctionModifier)[0].init_lr) == (2, 1e-4)


@pytest.mark.parametrize(("asked", "problem"), [("nothing", "no recipe"), ("transfer", "several recipes")])
def test_a_recipe_that_is_not_one_is_answered_with_those_there_are(app: LocalApp, asked: str, problem: str) -> None:
    with pytest.raises(EntryNotFound, match=problem) as caught:
        find_recipe(app, f"{UPSTREAM}?recipe={asked}")
    assert "recipes/recipe_transfer_question_answering.md" in caught.value.hint


def test_a_stub_that_is_not_cached_says_how_to_pull_it(app: LocalApp) -> None:
    with pytest.raises(OfflineError) as caught:
        find_recipe(app, "zoo:a-b-c?recipe=x")
    assert caught.value.hint == "online, run: hubcache pull zoo:a-b-c?recipe=x"


def test_a_folder_means_the_recipe_in_it(app: LocalApp, recipe: Path) -> None:
    assert find_recipe(app, str(recipe.parent)).max_epochs == 4


def test_a_model_without_recipes_says_so(app: LocalApp, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(EntryNotFound, match="no recipe"):
        find_recipe(app, str(tmp_path))


@pytest.mark.parametrize("text", ["nowhere.yaml", "./nowhere.md", "/nowhere/recipe.yml", "./nowhere"])
def test_a_file_that_is_not_there_is_wrong_usage(app: LocalApp, text: str) -> None:
    with pytest.raises(UsageError, match="there is no"):
        find_recipe(app, text)


def test_a_file_that_is_no_text_is_wrong_usage(app: LocalApp, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadConfig, match="no UTF-8 text"):
        find_recipe(app, str(tmp_path / "recipe.yaml"))


def test_show_draws_a_timeline(hubcache: CommandLine, recipe: Path) -> None:
    assert hubcache("recipe", "show", recipe).out == (
        "0     1     2     3     4\n"
        "+-----+-----+-----+-----+  epochs\n"
        "========================   the epochs of the run (0 to 4)\n"
        "            |              learning rate 0.001 (from 2)\n"
        "variables num_epochs 4, lr 0.001\n"
    )


@pytest.mark.parametrize("name", ["01_seed_short.yaml", "08_gmpruning.yaml", "09_quant_scheme_new.yaml"])
@pytest.mark.parametrize("epochs", ["1", "7", "40"])
def test_show_fits_80_columns(hubcache: CommandLine, name: str, epochs: str) -> None:
    options = ["--recipe-arg", f"num_epochs={epochs}"] if name.startswith("01") else []
    ran = hubcache("recipe", "show", golden(f"sparse/recipes/{name}"), *options)
    assert ran.code == 0
    assert max(map(len, ran.out.splitlines())) <= 80


def test_show_prints_numbers_as_numbers(hubcache: CommandLine, recipe: Path) -> None:
    facts = hubcache(
        "recipe", "show", recipe, "--json", "--recipe-arg", "num_epochs=5", "--recipe-arg", "lr=0.01"
    ).facts
    assert (facts["max_epochs"], facts["variables"]["lr"]) == (5, 0.01)
    assert facts["modifiers"][1] == {
        "modifier": "SetLearningRateModifier",
        "stage": None,
        "arguments": {"constant_logging": False, "end_epoch": -1.0, "learning_rate": 0.01, "start_epoch": 2.0},
    }


def test_show_names_stages(hubcache: CommandLine) -> None:
    ran = hubcache("recipe", "show", golden("sparse/trainer/recipe_saved_composed.yaml"))
    assert [line for line in ran.out.splitlines() if line.endswith("_0:") or line.endswith("_1:")] == [
        "stage_0:",
        "stage_1:",
    ]


def test_check_says_what_it_read(hubcache: CommandLine, recipe: Path) -> None:
    assert hubcache("recipe", "check", recipe).out == f"{recipe}: 4 epochs, 2 modifiers\n"


def test_a_recipe_without_epochs_has_none_of_its_own(hubcache: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("modifiers:\n  - !SetLearningRateModifier {learning_rate: 0.1}\n")
    assert "0 epochs, 1 modifier" in hubcache("recipe", "check", tmp_path / "r.yaml").out


def test_check_ends_with_2_and_names_line_and_name(hubcache: CommandLine, recipe: Path) -> None:
    recipe.write_text(TEXT.replace("SetLearningRate", "SetLearnRate"))
    ran = hubcache("recipe", "check", recipe)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"error: {recipe}, line 6: there is no modifier !SetLearnRateModifier\n"
        "hint: did you mean !SetLearningRateModifier?\n"
    )


def test_a_variable_that_is_not_there_is_named(hubcache: CommandLine, recipe: Path) -> None:
    ran = hubcache("recipe", "show", recipe, "--recipe-arg", "num_epoch=3")
    assert (ran.code, "did you mean num_epochs?" in ran.err) == (2, True)


def test_show_reads_a_zoo_model_offline(zoo: CommandLine) -> None:
    ran = zoo("recipe", "show", f"{UPSTREAM}?recipe=transfer_text", "--json", HF_HUB_OFFLINE="1")
    assert ran.facts["max_epochs"] == 8


def test_no_torch_is_imported(hubcache: CommandLine, recipe: Path) -> None:
    script = (
        "import sys; from hubcache_cli.main import main\n"
        "try: main(['recipe', 'show', sys.argv[1]])\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert hubcache.python(script, recipe).out.endswith("\n[]\n")
