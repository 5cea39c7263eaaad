"""The list of operators has those that the exporter can write, and no others.

The builder of graphs refuses operators that are not in the list, so every test that writes a graph
shows that none is missing. Here, the sources show that none is superfluous, except those of earlier
exporters, whose bundles servers still load.
"""

import ast
from pathlib import Path

import attendant_export.graphs
import numpy as np
import onnx
import pytest
from attendant_export.graphs.builder import MICROSOFT, OPSETS, GraphBuilder, WeightFile
from attendant_manifest.operators import EARLIER_OPERATORS, OPERATORS

SOURCES = sorted(Path(attendant_export.graphs.__file__).parent.glob("*.py"))


def texts_in_the_sources() -> set[str]:
    nodes = (node for path in SOURCES for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    return {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}


def test_the_list_has_exactly_the_operators_that_the_sources_of_graphs_name():
    named = texts_in_the_sources()
    # ONNX has an operator of the same name as one of Microsoft's.
    known = {schema.name for schema in onnx.defs.get_all_schemas()} - OPERATORS[MICROSOFT]
    assert named & known == OPERATORS[""] - EARLIER_OPERATORS
    assert OPERATORS[""] >= EARLIER_OPERATORS
    assert named >= OPERATORS[MICROSOFT]
    assert set(OPERATORS) == set(OPSETS)


def test_a_graph_with_another_operator_is_not_written(tmp_path: Path):
    with WeightFile(tmp_path / "weights.bin") as weights:
        graph = GraphBuilder("graph", weights)
        graph.output("y", graph.op("Erf", graph.input("x", np.float32, 1)), np.float32, 1)
        with pytest.raises(AssertionError, match="servers refuse Erf"):
            graph.write(tmp_path / "graph.onnx")
