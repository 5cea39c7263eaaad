"""The OpenAPI document is true: schemathesis tries requests that it allows, and others."""

import json
import subprocess
import sys

MAX_EXAMPLES = 4


def test_schemathesis_finds_nothing(running, tmp_path):
    url = f"http://127.0.0.1:{running.server.http_port}"
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
            *("--url", url, "--phases", "examples,coverage,fuzzing", "--seed", "1"),
            *("--max-examples", str(MAX_EXAMPLES), "--exclude-checks", "positive_data_acceptance"),
            *("--generation-database", "none", "--no-color"),
        ],
        cwd=tmp_path,  # where it writes a cache
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-8000:] + ended.stderr[-2000:]


def test_the_document_names_every_route_and_its_errors(http):
    document = json.loads(http.get("/openapi.json").content)
    assert document["openapi"] == "3.1.0"
    assert len(document["paths"]) == 18
    for path in document["paths"].values():
        for operation in path.values():
            assert {"200", "503"} <= set(operation["responses"])
