"""The memory pool's inner rooms; `photokeep_nodes.vram_manager` is the door."""
