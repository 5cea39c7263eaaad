"""Calls a server with the package libretranslatepy; prints JSON.

Usage: libretranslate.py ADDRESS TEXT...
"""

import json
import sys

from libretranslatepy import LibreTranslateAPI


def main() -> None:
    """Make all calls."""
    address, *texts = sys.argv[1:]
    client = LibreTranslateAPI(f"http://{address}/")
    found = {
        "translations": [client.translate(text, "en", "de") for text in texts],
        "detected": client.detect(texts[0]),
        "languages": client.languages(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
