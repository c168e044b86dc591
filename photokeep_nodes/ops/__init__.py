"""Restoration operators: functions of tensors, with no knowledge of nodes, files or the pool."""
