"""The real command in the tests' own process, where the process is not the claim: models are imported once for all.

It is no other way in: main() gets the arguments and the environment that a process would.
"""

from __future__ import annotations

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from hubcache_cli.main import main

from tests.support.commandline import CommandLine, Ran


class InProcess(CommandLine):
    """`hubcache` as CommandLine calls it, without a new process."""

    def __call__(self, *arguments: str | Path, timeout: float = 0, given: bytes | None = b"", **environ: str) -> Ran:  # type: ignore[override]  # no variable is called given
        """Run the command; `given` are the bytes on its stdin, None where that is closed; there is no timeout."""
        del timeout
        stdin = None if given is None else io.TextIOWrapper(io.BytesIO(given), encoding="utf-8")
        out, err, code = io.StringIO(), io.StringIO(), 0
        with pytest.MonkeyPatch.context() as changed:
            changed.setattr(sys, "stdin", stdin)
            changed.setattr(sys, "argv", ["hubcache", *(str(argument) for argument in arguments)])
            for name, value in (self.environ | environ).items():
                changed.setenv(name, value)
            try:
                with redirect_stdout(out), redirect_stderr(err):
                    main([str(argument) for argument in arguments])
            except SystemExit as leaving:
                code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
        return Ran(code, out.getvalue(), err.getvalue())
