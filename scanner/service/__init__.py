"""Accepted scans in, exactly one outcome each out, whatever is killed in between: ledger, rq, workers."""
