"""Outcomes in, what people look at out: pages, overlays, timelines. No script, no outside asset."""
