"""Keeps texts and their vectors in an SQLite database, and finds the texts closest to a question.

    python examples/vector_database.py notes.db --add notes.txt
    python examples/vector_database.py notes.db "When does the shop open?"

The server's model is the SQL function `embed`; sqlite-vec, of the extra `examples`, is the search.
The database keeps its model's name, as other models have other vectors. Prints cosines and texts.
"""

import argparse
import sys
from pathlib import Path

import apsw
import sqlite_vec
from attendant_client import AttendantError, Client

NEAREST = "SELECT 1 - distance, text FROM texts WHERE vector MATCH embed(?) AND k = ?"
TEXTS = "CREATE VIRTUAL TABLE texts USING vec0(vector float[{}] distance_metric=cosine, +text TEXT)"


def open_database(path: str, client: Client) -> apsw.Connection:
    """The database, with its model on the server as the SQL function `embed`."""
    database = apsw.Connection(path)
    database.enable_load_extension(True)
    database.load_extension(sqlite_vec.loadable_path())
    database.execute("CREATE TABLE IF NOT EXISTS model(name TEXT)")

    def embed(*texts: object) -> bytes:
        result = client.embed(str(texts[0]), model=model_of(database))
        return result.raise_for_errors().vector.tobytes()

    database.create_scalar_function("embed", embed, 1)
    return database


def model_of(database: apsw.Connection) -> str:
    """The name and version of the model whose vectors are in the database; empty for none."""
    return str(database.execute("SELECT max(name) FROM model").get or "")


def add(database: apsw.Connection, client: Client, path: Path) -> None:
    """Add the lines of a file; those that the model cannot read are named and left out."""
    texts = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    results = client.embed(texts, model=model_of(database))
    rows = [(r.vector.data, t) for r, t in zip(results, texts, strict=True) if r.error is None]
    for error in results.errors:
        print(f"left out: {error}", file=sys.stderr)
    with database:
        if rows and not model_of(database):
            database.execute("INSERT INTO model VALUES (?)", (results[0].call.model,))
            database.execute(TEXTS.format(len(rows[0][0])))
        database.executemany("INSERT INTO texts(vector, text) VALUES (?, ?)", rows)


def main() -> None:
    """Run the example."""
    parser = argparse.ArgumentParser(description="Keeps and finds texts by their vectors.")
    parser.add_argument("database")
    parser.add_argument("question", nargs="?", default="")
    parser.add_argument("--add", type=Path, metavar="FILE", help="add the lines of this file")
    parser.add_argument("--num-results", type=int, default=5)
    parser.add_argument("--target", default="localhost:50051")
    options = parser.parse_args()
    try:
        with Client(options.target) as client:
            database = open_database(options.database, client)
            if options.add:
                add(database, client, options.add)
            if not model_of(database):
                sys.exit(f"{options.database} has no texts")
            if query := options.question:
                for row in database.execute(NEAREST, (query, options.num_results)):
                    print("{:.3f} {}".format(*row))
    except AttendantError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
