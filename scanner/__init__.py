"""Media in, verdict out.

    source -> fetch -> bytes -> jail(decode) -> frames (N, H, W, 3) -> faces -> crops (M, 256, 256, 3)
           -> detector -> scores (M,) + attention maps (M, 16, 16) -> verdict

`scanner.pipeline` is the one file that knows this order; every other module knows one noun.
Importing `scanner` imports nothing.
"""
