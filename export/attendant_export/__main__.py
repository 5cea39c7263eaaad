"""The ``attendant-export`` command."""

import os
import sys
from collections.abc import Sequence

# PyTorch's threads then sleep while they wait for each other. By default they spin. On cores that
# other programs use, a spinning thread can keep the one that it waits for from running. PyTorch
# reads this variable when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# oneDNN caches what it compiles for each shape of a bfloat16 product, by default for 1,024 shapes.
# That takes gigabytes, since almost every batch has a shape of its own.
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
