"""Comes before gRPC is imported: a test stand starts programs while the connection is open.

Before Python 3.10 subprocess uses fork(), and what gRPC does at a fork() may then wait indefinitely for gRPC's own
threads: the program that is started never begins. Whoever needs gRPC in a forked child sets the variable.
"""

import os
import sys

if sys.version_info < (3, 10):
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
