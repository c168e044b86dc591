"""One module per stage; classes that carry a ``NODE_ID`` are found by the pack's ``__init__``."""
