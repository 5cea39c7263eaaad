"""A check of our own load generator: the same calls by h2load, and what the server counted.

    python -m bench.h2load --data-dir DATA_DIR

One text is translated over and over in 64 concurrent calls, first by h2load (Debian:
nghttp2-client), then by the client of the benches. Takes half a minute.
"""

import argparse
import asyncio
import re
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from attendant.v1 import translation_pb2

from bench.loads import closed_loop
from bench.serving import ONE_OF_EACH_KIND, RunningServer, running_server
from bench.texts import add_data_dir, sample_texts
from bench.translation_engines import connected

CONCURRENCY = 64
METHOD = "attendant.v1.TranslationService/Translate"


def h2load(server: RunningServer, text: str, num_calls: int) -> float:
    """Calls per second according to h2load; SystemExit if some failed or h2load is not there."""
    if shutil.which("h2load") is None:
        raise SystemExit("h2load is not installed (Debian: nghttp2-client)")
    message = translation_pb2.TranslateRequest(texts=[text]).SerializeToString()
    with tempfile.TemporaryDirectory() as folder:
        body = Path(folder, "body")
        # A gRPC message: not compressed, its length, itself.
        body.write_bytes(struct.pack(">BI", 0, len(message)) + message)
        command = ["h2load", f"-n{num_calls}", "-c1", f"-m{CONCURRENCY}", f"-d{body}"]
        command += ["-Hcontent-type: application/grpc", "-Hte: trailers"]
        command += [f"http://{server.target}/{METHOD}"]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    if f"{num_calls} succeeded" not in output:
        raise SystemExit(output)
    found = re.search(r"([\d.]+) req/s", output)
    assert found is not None, output
    return float(found.group(1))


def counted(server: RunningServer) -> float:
    """Output tokens that the server has counted so far."""
    return server.total("attendant_output_tokens_total")


async def own_client(server: RunningServer, text: str, num_calls: int) -> tuple[float, int]:
    """Calls per second and output tokens according to our client."""
    async with connected(server, beam_size=1) as caller:
        result = await closed_loop(caller.send, [text] * num_calls, CONCURRENCY)
    return result.texts_per_second, result.num_outputs


def main() -> None:
    """Run both and print what they and the server say."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add_data_dir(parser)
    parser.add_argument("--calls", type=int, default=2000)
    arguments = parser.parse_args()
    (text,) = sample_texts(arguments.data_dir, "short", 1)
    with running_server(ONE_OF_EACH_KIND) as server:
        asyncio.run(own_client(server, text, CONCURRENCY))  # warms up
        before = counted(server)
        theirs = h2load(server, text, arguments.calls)
        between = counted(server)
        ours, num_tokens = asyncio.run(own_client(server, text, arguments.calls))
        after = counted(server)
    print(f"calls/s: h2load {theirs:.1f}, our client {ours:.1f}, ratio {ours / theirs:.3f}")
    print(
        f"output tokens that the server counted: {between - before:.0f} for h2load, "
        f"{after - between:.0f} for our client, which counted {num_tokens}"
    )


if __name__ == "__main__":
    main()
