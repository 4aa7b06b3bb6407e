"""What every client's script begins with: run its cases, write what each gave to the file of the first argument.

It runs under each client's own interpreter and imports nothing of the project.
"""

import json
import sys
import traceback
from importlib.metadata import version


def tell(distribution, **cases):
    """Run the cases in order; the file gets {case: {"value": …}} or {case: {"error": traceback}}, and the version."""
    told = {}
    for name, call in cases.items():
        try:
            told[name] = {"value": call()}
        except Exception:  # noqa: BLE001 - one case that fails must not hide the others
            told[name] = {"error": traceback.format_exc()}
    with open(sys.argv[1], "w") as file:
        json.dump({"version": version(distribution), "cases": told}, file)


def raises(kind, call):
    """Tell whether a call raises that kind of error; another kind goes on."""
    try:
        call()
    except kind:
        return True
    return False
