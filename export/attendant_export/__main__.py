"""The ``attendant-export`` command."""

import os
import sys
from collections.abc import Sequence

# PyTorch's threads then sleep while they wait for each other. By default they spin, and on cores
# that other programs use, each operation waits for a thread that another one's spinning keeps from
# running. PyTorch reads this variable when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# oneDNN keeps what it compiles for each shape of products in bfloat16, by default 1,024 of them:
# gigabytes, since almost every batch has a shape of its own.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; see `attendant_export.commands.run`. SIGINT sets the exit code 130."""
    try:
        # Imports PyTorch, so only now.
        from attendant_export.commands.run import run

        run(arguments)
    except KeyboardInterrupt:
        print("attendant-export: stopped by SIGINT", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
