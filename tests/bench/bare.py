"""A bare aiohttp server, one route and no thought: what the server's library alone can do, for benchmarks.

It knows no hub; /file/<path> is a FileResponse, /words a fixed answer in JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from pathlib import Path

from aiohttp import web

WORDS = {"id": "bench/large", "sha": "0" * 40, "siblings": [{"rfilename": "model.safetensors"}]}


def build(folder: Path) -> web.Application:
    """Return the application over a folder."""

    async def file(request: web.Request) -> web.StreamResponse:
        return web.FileResponse(folder / request.match_info["path"])

    async def words(_: web.Request) -> web.Response:
        return web.json_response(WORDS)

    app = web.Application()
    app.add_routes([web.get("/file/{path:.+}", file), web.get("/words", words)])
    return app


async def serve(folder: Path) -> None:
    """Serve on a free port, printed first, until told to end."""
    runner = web.AppRunner(build(folder), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    over = asyncio.Event()
    for end in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(end, over.set)
    print(f"http://127.0.0.1:{runner.addresses[0][1]}", flush=True)
    await over.wait()
    await runner.cleanup()


def main() -> None:
    """Serve one folder until killed, the endpoint on the first line of stdout."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--dir", type=Path, required=True)
    asyncio.run(serve(parser.parse_args().dir))


if __name__ == "__main__":
    main()
