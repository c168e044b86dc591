"""A custom node without nodes: tells the tests what the pool and the host each believe to be loaded.

Copied into the host's custom_nodes, and imported by it there.
"""

from __future__ import annotations

import sys
import threading

from aiohttp import web
from comfy import model_management
from server import PromptServer

NODE_CLASS_MAPPINGS: dict[str, type] = {}


@PromptServer.instance.routes.get("/photokeep_tests/memory")
async def memory(_request: web.Request) -> web.Response:
    """The pool's stats, and of each model in the host's list its class, key, bytes loaded and bytes in all."""
    space = sys.modules.get("_photokeep_vram_pool")
    listed = [
        [
            type(each.model).__name__,
            getattr(getattr(each.model, "_seat", None), "key", ""),
            each.loaded_size(),
            each.model_size(),
        ]
        for each in model_management.loaded_models()
    ]
    threads = [each.name for each in threading.enumerate()]
    return web.json_response({"pool": space and space.pool.stats(), "listed": listed, "threads": threads})
