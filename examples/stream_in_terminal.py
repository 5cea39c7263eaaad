"""Translates what you type, and shows the translation while it is being decoded.

    python examples/stream_in_terminal.py --model en-de

Ctrl-C cancels the translation that is running: the server stops decoding it at its next step.
Ctrl-C at the prompt, or Ctrl-D, ends the program.
"""

import argparse
import sys

from attendant_client import AttendantError, Client


def show(client: Client, text: str, model: str) -> None:
    """Print the pieces of a translation as they come, then its score."""
    with client.stream_translate(text, model=model) as stream:
        try:
            for delta in stream:
                print(delta, end="", flush=True)
        except KeyboardInterrupt:
            print(" (cancelled)")
        except AttendantError as error:
            print(f" (failed: {error})")
        else:
            print(f"   ({stream.translation.hypotheses[0].score:.2f})")


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description="Translates line by line.")
    parser.add_argument("--model", default="en-de")
    parser.add_argument("--target", default="localhost:50051")
    options = parser.parse_args()
    prompt = "> " if sys.stdin.isatty() else ""
    with Client(options.target) as client:
        while True:
            try:
                text = input(prompt)
            except (EOFError, KeyboardInterrupt):
                return
            if text.strip():
                show(client, text, options.model)


if __name__ == "__main__":
    main()
