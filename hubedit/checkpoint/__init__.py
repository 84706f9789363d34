"""Checkpoints on disk: merged, reverted and compared shard by shard, no model loaded."""
