"""huggingface_hub asks the Hub's API what there is; only what the lists name was pulled before."""

from asking import raises, tell
from huggingface_hub import HfApi, constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, snapshot_download
from huggingface_hub.utils import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError, paginate

api = HfApi()


def blobs(info):
    """Return path, size and digests of each file that an info lists."""
    return {
        file.rfilename: [file.size, file.blob_id, file.lfs["sha256"] if file.lfs else None] for file in info.siblings
    }


def tree(**how):
    rows = api.list_repo_tree("org/m", recursive=True, **how)
    return {row.path: getattr(row, "size", None) for row in rows}


def paths():
    found = api.get_paths_info("org/m", ["config.json", "sub", "not-there.txt"])
    return [[type(row).__name__, row.path] for row in found]


def pulled():
    """Pull what the lists are to name: a mirror lists what it holds."""
    for name, kind in (("org/m", "model"), ("org/p", "model"), ("org/d", "dataset")):
        snapshot_download(name, repo_type=kind)


def metadata():
    found = get_hf_file_metadata(hf_hub_url("org/m", "model.safetensors"))
    return [found.commit_hash, found.etag, found.size]


def safetensors():
    parsed = api.get_safetensors_metadata("org/m")
    return {name: tensor.shape for name, tensor in parsed.files_metadata["model.safetensors"].tensors.items()}


def refs():
    found = api.list_repo_refs("org/m", include_pull_requests=True)
    return {ref.name: ref.target_commit for ref in [*found.branches, *found.tags, *found.pull_requests]}


def models(**how):
    pulled()
    return sorted(model.id for model in api.list_models(**how))


def pages():
    pulled()
    return sorted(row["id"] for row in paginate(f"{constants.ENDPOINT}/api/models", params={"limit": 1}, headers={}))


def datasets():
    pulled()
    return sorted(dataset.id for dataset in api.list_datasets(author="org"))


tell(
    "huggingface_hub",
    model_info=lambda: blobs(api.model_info("org/m", files_metadata=True)),
    model_info_sha=lambda: api.model_info("org/m", revision="v1").sha,
    expand=lambda: sorted(file.rfilename for file in api.model_info("org/m", expand=["sha", "siblings"]).siblings),
    dataset_info=lambda: sorted(file.rfilename for file in api.dataset_info("org/d").siblings),
    space_info=lambda: sorted(file.rfilename for file in api.space_info("org/s").siblings),
    tree=tree,
    tree_expanded=lambda: tree(expand=True),
    files=lambda: sorted(api.list_repo_files("org/m")),
    paths=paths,
    refs=refs,
    commits=lambda: api.list_repo_commits("org/m")[0].commit_id,
    repo_exists=lambda: [api.repo_exists("org/m"), api.repo_exists("org/none")],
    revision_exists=lambda: [api.revision_exists("org/m", "v1"), api.revision_exists("org/m", "none")],
    file_exists=lambda: [api.file_exists("org/m", "config.json"), api.file_exists("org/m", "none.json")],
    whoami=lambda: sorted({"name", "type"} & set(api.whoami(token="hf_anybody"))),
    auth_check=lambda: [api.auth_check("org/m"), raises(RepositoryNotFoundError, lambda: api.auth_check("org/none"))],
    metadata=metadata,
    safetensors=safetensors,
    missing_repo=lambda: raises(RepositoryNotFoundError, lambda: hf_hub_download("org/none", "config.json")),
    missing_revision=lambda: raises(
        RevisionNotFoundError, lambda: hf_hub_download("org/m", "config.json", revision="none")
    ),
    missing_file=lambda: raises(EntryNotFoundError, lambda: hf_hub_download("org/m", "none.json")),
    by_author=lambda: models(author="org"),
    by_search=lambda: models(search="/P"),
    by_filter=lambda: models(filter="loop"),
    limited=lambda: len(models(limit=1)),
    pages=pages,
    datasets=datasets,
)
