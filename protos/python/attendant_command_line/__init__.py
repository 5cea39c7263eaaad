"""The flags that all commands have: `--version` and `--print-completion`. Knows no command."""

from attendant_command_line.completion import add_print_completion
from attendant_command_line.versions import add_version

__all__ = ["add_print_completion", "add_version"]
