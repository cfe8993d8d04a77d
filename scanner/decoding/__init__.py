"""Bytes of strangers in, frames out: in a killable child with no network, no files and hard limits."""
