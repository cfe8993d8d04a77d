"""What can go wrong with engines on purpose; every message says what happened and what to do.

One reason: a compiler that is not here, an engine that does not fit and one that is not trusted end in three different
deeds: go on without, build again, tell somebody.
"""


class EngineTrouble(Exception):
    """Any of the below."""


class NoCompiler(EngineTrouble):
    """The library that builds or runs this kind of engine is missing, broken, or made for another GPU."""


class BuildFailed(EngineTrouble):
    """The compiler refused the graph, or what it built says something else than the network: the guard did not hold."""


class Unfit(EngineTrouble):
    """The engine was built for another model, device, driver or version than these."""


class Untrusted(EngineTrouble):
    """The engine is not what was built here: another digest, owner or permissions. Engines are executable code."""


class Busy(EngineTrouble):
    """Another process is building."""
