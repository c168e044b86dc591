"""The memory pool's inner rooms; `photokeep_nodes.vram_manager` is the door, and `vram_metrics` one without torch."""

SHARED_KEY = "_photokeep_vram_pool"
"""Under which name in ``sys.modules`` all copies of the pack in a process find their pool."""
