"""Verdicts remembered by exact digests; perceptual hashes that may nominate, and pixels that must agree."""
