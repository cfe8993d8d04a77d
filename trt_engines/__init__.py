"""A PyTorch module in, an engine for the GPU of this machine out: export, build, check, keep, load, measure.

It imports nothing of laescan's, and no compiler until one is asked for: what is missing is a word, not a crash.
"""
