"""Frames in; faces, raw scores and attention maps out: the Locality-aware AutoEncoder and what leads up to it."""
