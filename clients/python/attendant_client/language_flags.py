"""The flags of `attendant translate` and `score` for languages and controls."""

from argparse import ArgumentParser, ArgumentTypeError


def add_language_flags(parser: ArgumentParser) -> None:
    """Add the flags that choose what a model translates from and to."""
    for side, name in (("source", "from"), ("target", "to")):
        parser.add_argument(
            f"--{name}",
            dest=f"{side}_language",
            default="",
            metavar="TAG",
            help=f'{side} language, such as "de"; default: the only one of the model',
        )


def add_control_flags(parser: ArgumentParser) -> None:
    """Add the flag that chooses values of controls."""
    parser.add_argument(
        "--control",
        action="append",
        default=[],
        type=_control,
        metavar="NAME=VALUE",
        help='control of the model, such as "formality=formal"; may be repeated',
    )


def _control(text: str) -> tuple[str, str]:
    name, sign, value = text.partition("=")
    if not (name and sign):
        raise ArgumentTypeError(f"{text} is not of the form NAME=VALUE")
    return name, value
