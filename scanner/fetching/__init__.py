"""A source in, its bytes on disk out: through sockets that reach no address they may not."""
