"""HfFileSystem reads a repo as a file system."""

from asking import tell
from huggingface_hub import HfFileSystem

fs = HfFileSystem()


def seek():
    with fs.open("org/m/model.safetensors", "rb") as file:
        file.seek(1000)
        return file.read(16).hex()


tell(
    "huggingface_hub",
    ls=lambda: sorted(fs.ls("org/m", detail=False)),
    ls_dataset=lambda: sorted(fs.ls("datasets/org/d", detail=False)),
    glob=lambda: sorted(fs.glob("org/m/**/*.txt")),
    open=seek,
    cat=lambda: fs.cat_file("org/m/README.md").decode(),
    cat_range=lambda: fs.cat_file("org/m/model.safetensors", start=10, end=30).hex(),
    revision=lambda: fs.cat_file("org/m@feature%2Fx/NEW.md").decode(),
    exists=lambda: [fs.exists("org/m/config.json"), fs.exists("org/m/none.json")],
)
