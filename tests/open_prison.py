"""The fork server on a machine that forbids namespaces and system-call filters."""

import os
import sys

from scanner.decoding import isolation, jailer


def no_unshare():
    return None


isolation._unshare = no_unshare
isolation._own_pid_space = no_unshare
isolation._filter = None

if __name__ == "__main__":
    jailer.main(sys.argv[1:])
    os._exit(0)
