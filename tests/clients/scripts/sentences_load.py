"""sentence-transformers encodes a sentence with the model of the second argument: a repo's name, or a folder."""

import sys

from asking import tell
from sentence_transformers import SentenceTransformer

tell(
    "sentence-transformers",
    encode=lambda: SentenceTransformer(sys.argv[2], device="cpu").encode(["A cache keeps what was pulled."]).tolist(),
)
