"""Who gets what from `hubcache serve`, and who is asked for it: rules by namespace, gated and private repos, tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

from tests.support.asking import Answer, ask, asked, head
from tests.support.commandline import CommandLine
from tests.support.hubrepo import lfs_pointer
from tests.support.loophub import LoopHub
from tests.support.serving import Served
from tests.support.wholeness import digest

TOKEN = "hf_" + "upstream" * 4
STRANGER = "hf_" + "stranger" * 4
WEIGHTS = bytes(range(256)) * 1200
FILES = {"config.json": b"{}", "model.safetensors": WEIGHTS}
RULES = """\
serve:
- {names: [denied], access: deny}
- {names: [inner], upstream: never}
- {names: [passing], upstream: pass}
- {names: [granted], grant: true}
- {names: [always], fresh: 0}
"""
MODES = ("offline", "pull-through")
METADATA = ("/api/models/{}", "/api/models/{}/revision/main", "/api/models/{}/tree/main", "/api/models/{}/refs")
CONTENT = ("/{}/resolve/main/config.json", "/{}/raw/main/config.json", "/{}/raw/main/model.safetensors")


@dataclass(frozen=True, slots=True)
class World:
    """An upstream, a cache that was filled from it with a token, and servers of that cache, by mode."""

    hub: LoopHub
    cache: Path
    servers: dict[str, Served]

    @property
    def online(self) -> str:
        """The endpoint of the server that has an upstream."""
        return self.servers["pull-through"].endpoint

    def folder(self, name: str) -> Path:
        """Return where a model stands in the servers' cache."""
        return self.cache / f"models--{name.replace('/', '--')}"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rules")
    (folder / "mirrors.yaml").write_text(RULES)
    with LoopHub() as hub:
        for org in ("closed", "granted"):
            hub.add_repo(f"{org}/gated", FILES, gated="manual", token=TOKEN)
            hub.add_repo(f"{org}/private", FILES, private=True, token=TOKEN)
        hub.add_repo("denied/x", FILES)
        hub.add_repo("inner/x", FILES)
        environ = {"HF_ENDPOINT": hub.endpoint, "HUBCACHE_MIRRORS": str(folder / "mirrors.yaml"), "HF_TOKEN": TOKEN}
        names = ("closed/gated", "closed/private", "granted/gated", "granted/private", "denied/x", "inner/x")
        ran = CommandLine(folder, **environ)("pull", *names)
        assert ran.code == 0, ran.err
        with Served(folder, "--offline", **environ) as offline, Served(folder, **environ) as online:
            yield World(hub, folder / "hub", dict(zip(MODES, (offline, online), strict=True)))


@pytest.fixture(params=MODES)
def endpoint(world: World, request: pytest.FixtureRequest) -> str:
    """The server's endpoint in each mode."""
    return world.servers[request.param].endpoint


def told(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.code


def paths_info(endpoint: str, name: str, **headers: str) -> Answer:
    form = {"Content-Type": "application/x-www-form-urlencoded"} | headers
    return ask(endpoint, f"/api/models/{name}/paths-info/main", method="POST", headers=form, body="paths=config.json")


# -- gated and private repos


def test_a_gated_repos_metadata_is_told(endpoint: str) -> None:
    answers = [ask(endpoint, url.format("closed/gated")) for url in METADATA]
    answers.append(paths_info(endpoint, "closed/gated"))
    assert [told(each) for each in answers] == [(200, "")] * 5
    assert answers[0].facts["gated"] == "manual"
    assert "closed/gated" in {each.id for each in HfApi(endpoint).list_models()}


def test_a_gated_repos_files_are_refused(endpoint: str) -> None:
    answers = [ask(endpoint, url.format("closed/gated")) for url in CONTENT]
    answers.append(head(endpoint, CONTENT[0].format("closed/gated")))
    answers.append(ask(endpoint, CONTENT[0].format("closed/gated"), headers={"Range": "bytes=0-0"}))
    answers.append(ask(endpoint, CONTENT[0].format("closed/gated"), headers={"If-None-Match": "*"}))
    assert [told(each) for each in answers] == [(403, "GatedRepo")] * 6


def test_a_gated_repos_missing_file_is_no_way_in(endpoint: str) -> None:
    assert told(ask(endpoint, "/closed/gated/resolve/main/no.bin")) == (403, "GatedRepo")


def test_huggingface_hub_says_that_a_repo_is_gated(endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(GatedRepoError):
        hf_hub_download("closed/gated", "config.json", endpoint=endpoint, cache_dir=tmp_path)


def test_a_private_repo_does_not_exist(endpoint: str) -> None:
    answers = [ask(endpoint, url.format("closed/private")) for url in (*METADATA, *CONTENT)]
    answers += [head(endpoint, CONTENT[0].format("closed/private")), paths_info(endpoint, "closed/private")]
    answers.append(ask(endpoint, "/api/models/closed/private/auth-check"))
    assert [told(each) for each in answers] == [(404, "RepoNotFound")] * 10
    assert "closed/private" not in {each.id for each in HfApi(endpoint).list_models()}
    with pytest.raises(RepositoryNotFoundError):
        HfApi(endpoint).model_info("closed/private")


def test_a_known_commit_of_a_closed_repo_is_closed_too(world: World, endpoint: str) -> None:
    urls = {}
    for name in ("closed/gated", "closed/private"):
        commit = (world.folder(name) / "refs/main").read_text()
        urls[name] = ask(endpoint, f"/{name}/resolve/{commit}/config.json").code
    assert urls == {"closed/gated": "GatedRepo", "closed/private": "RepoNotFound"}


def test_with_a_grant_gated_and_private_repos_are_served(endpoint: str, tmp_path: Path) -> None:
    for name in ("granted/gated", "granted/private"):
        got = Path(snapshot_download(name, endpoint=endpoint, cache_dir=tmp_path))
        assert {path: (got / path).read_bytes() for path in FILES} == FILES
        assert ask(endpoint, f"/{name}/raw/main/model.safetensors").body == lfs_pointer(
            digest(WEIGHTS, 64), len(WEIGHTS)
        )
        assert name in {each.id for each in HfApi(endpoint).list_models()}


def test_what_the_servers_token_opens_upstream_stays_closed_here(world: World) -> None:
    world.hub.add_repo("closed/new-gated", FILES, gated="auto", token=TOKEN)
    world.hub.add_repo("closed/new-private", FILES, private=True, token=TOKEN)
    answers = {
        name: ask(world.online, f"/closed/{name}/resolve/main/config.json") for name in ("new-gated", "new-private")
    }
    assert told(answers["new-gated"]) == (403, "GatedRepo")
    assert told(answers["new-private"]) == (404, "RepoNotFound")
    assert not list((world.folder("closed/new-gated") / "blobs").iterdir())


def test_a_repo_that_became_gated_since_is_closed_and_so_are_its_known_commits(world: World) -> None:
    commit = world.hub.add_repo("always/later", FILES)
    before = [ask(world.online, f"/always/later/resolve/{each}/config.json").status for each in ("main", commit)]
    world.hub.tell("always/later", gated="auto")
    after = [told(ask(world.online, f"/always/later/resolve/{each}/config.json")) for each in ("main", commit)]
    assert (before, after) == ([200, 200], [(403, "GatedRepo")] * 2)


def test_what_one_branch_tells_of_a_repo_closes_the_others_at_once(world: World) -> None:
    world.hub.add_repo("org/turned", FILES)
    world.hub.add_commit("org/turned", {"a.txt": b"dev"}, revision="dev")
    assert ask(world.online, "/org/turned/resolve/main/config.json").status == 200
    world.hub.tell("org/turned", gated="auto")
    urls = [f"/org/turned/resolve/{each}/config.json" for each in ("dev", "main")]
    assert [told(ask(world.online, url)) for url in urls] == [(403, "GatedRepo")] * 2


def test_a_card_that_asks_for_conditions_closes_what_huggingface_hub_wrote(world: World, endpoint: str) -> None:
    name = f"closed/card-{'offline' if endpoint != world.online else 'online'}"
    card = b"---\nextra_gated_prompt: You agree to be good.\n---\n"
    world.hub.add_repo(name, FILES | {"README.md": card})
    for path in ("README.md", "config.json"):
        hf_hub_download(name, path, endpoint=world.hub.endpoint, cache_dir=world.cache)
    if endpoint == world.online:
        world.hub.tell(name, gated="manual")
    assert told(ask(endpoint, f"/{name}/resolve/main/config.json")) == (403, "GatedRepo")


# -- whom the rules name


def test_a_denied_repo_does_not_exist_and_nobody_is_asked_for_it(world: World, endpoint: str) -> None:
    before = asked(world.hub, "denied/")
    names = ("denied/x", "Denied/x", "denied/other")
    answers = [ask(endpoint, url.format(name)) for name in names for url in (*METADATA, *CONTENT)]
    assert {told(each) for each in answers} == {(404, "RepoNotFound")}
    assert "denied/x" not in {each.id for each in HfApi(endpoint).list_models()}
    assert asked(world.hub, "denied/") == before


def test_upstream_is_never_asked_for_inner_names(world: World) -> None:
    before = asked(world.hub, "inner/")
    got = ask(world.online, "/inner/x/resolve/main/model.safetensors")
    for url in (
        "/inner/x/resolve/dev/a",
        "/inner/x/resolve/main/no.bin",
        "/Inner/y/resolve/main/a",
        "/api/models/inner/y",
    ):
        assert ask(world.online, url).status == 404
    assert (got.body, asked(world.hub, "inner/")) == (WEIGHTS, before)


def test_what_passes_is_right_and_leaves_nothing_on_the_disk(world: World) -> None:
    commit = world.hub.add_repo("passing/x", FILES)
    url = "/passing/x/resolve/main/model.safetensors"
    whole, part = ask(world.online, url), ask(world.online, url, headers={"Range": "bytes=1000-1999"})
    assert (whole.body, whole.commit) == (WEIGHTS, commit)
    assert (part.status, part.body) == (206, WEIGHTS[1000:2000])
    assert head(world.online, url).headers["etag"] == f'"{digest(WEIGHTS, 64)}"'
    assert ask(world.online, "/api/models/passing/x/tree/main").status == 200
    assert not world.folder("passing/x").exists()


def test_wrong_bytes_that_pass_end_short(world: World) -> None:
    world.hub.add_repo("passing/bad", {"bad.bin": WEIGHTS, "bad.txt": b"x" * 1000})
    world.hub.corrupt |= {"bad.bin", "bad.txt"}
    long, short = (ask(world.online, f"/passing/bad/resolve/main/{path}") for path in ("bad.bin", "bad.txt"))
    assert (long.is_short, len(long.body) < len(WEIGHTS)) == (True, True)
    assert (short.status, short.is_short) == (502, False)


def test_what_passes_is_as_closed_as_what_is_kept(world: World) -> None:
    world.hub.add_repo("passing/gated", FILES, gated="auto", token=TOKEN)
    world.hub.add_repo("passing/private", FILES, private=True, token=TOKEN)
    answers = [ask(world.online, f"/passing/{name}/resolve/main/config.json") for name in ("gated", "private")]
    assert [told(each) for each in answers] == [(403, "GatedRepo"), (404, "RepoNotFound")]


def test_offline_nothing_passes(world: World) -> None:
    world.hub.add_repo("passing/offline", FILES)
    answer = ask(world.servers["offline"].endpoint, "/passing/offline/resolve/main/config.json")
    assert (told(answer), asked(world.hub, "passing/offline")) == ((404, "RepoNotFound"), [])


def test_with_fresh_0_every_question_about_a_branch_is_asked_upstream(world: World) -> None:
    world.hub.add_repo("always/asked", FILES)
    counts = []
    for _ in range(3):
        assert head(world.online, "/always/asked/resolve/main/config.json").status == 200
        counts.append(sum("/revision/main" in line for line in asked(world.hub, "always/asked")))
    assert counts == [1, 2, 3]


# -- tokens


def test_a_clients_token_never_reaches_upstream(world: World) -> None:
    world.hub.add_repo("org/told", FILES)
    world.hub.add_repo("passing/told", FILES)
    headers = {"Authorization": f"Bearer {STRANGER}", "Cookie": f"token={STRANGER}"}
    for name in ("org/told", "passing/told"):
        for url in (*METADATA, *CONTENT):
            assert ask(world.online, url.format(name), headers=headers).status == 200
    assert asked(world.hub, "org/told")
    assert STRANGER not in repr(world.hub.requests)


def test_the_servers_own_token_is_never_told(world: World) -> None:
    world.hub.add_repo("org/echo", FILES)
    headers = {"Authorization": f"Bearer {STRANGER}"}
    urls = [url.format(name) for name in ("org/echo", "closed/gated", "closed/none") for url in (*METADATA, *CONTENT)]
    answers = [ask(world.online, url, headers=headers) for url in (*urls, "/", "/healthz", "/api/whoami-v2")]
    assert TOKEN not in repr(answers) + world.servers["pull-through"].log
    assert any(each.headers.get("authorization") == f"Bearer {TOKEN}" for each in world.hub.requests)


def test_a_clients_token_opens_nothing(endpoint: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert told(ask(endpoint, CONTENT[0].format("closed/gated"), headers=headers)) == (403, "GatedRepo")
    assert told(ask(endpoint, CONTENT[0].format("closed/private"), headers=headers)) == (404, "RepoNotFound")
