"""Fill a cache with huggingface_hub: the second argument lists snapshot_download's keywords as JSON."""

import json
import sys

from asking import tell
from huggingface_hub import snapshot_download

tell("huggingface_hub", fill=lambda: [snapshot_download(**wanted) for wanted in json.loads(sys.argv[2])])
