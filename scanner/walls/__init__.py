"""What Linux gives to keep a process in: calls without a wrapper in the standard library, and filters of calls."""
