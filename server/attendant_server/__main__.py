"""The command ``attendant-server``: settings in, exit code out."""

import os
import sys

from attendant_server.observability.logs import set_up_logs
from attendant_server.settings import SettingsError, load_settings, settings_table


def main() -> int:
    """Serve until a signal comes; returns the exit code.

    0 after a clean stop, 1 for a failed start or a dead engine, 2 for bad settings.

    ``--settings-table`` prints the README's table instead.
    """
    if sys.argv[1:] == ["--settings-table"]:
        print(settings_table())
        return 0
    try:
        settings = load_settings(sys.argv[1:], os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2
    set_up_logs(settings.log_level, settings.log_format)
    import uvloop  # imported late, so that --help is quick

    from attendant_server.process import run

    return uvloop.run(run(settings))


if __name__ == "__main__":
    sys.exit(main())
