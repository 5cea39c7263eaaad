"""The operators that graphs of bundles may have.

The exporter writes no others, and the server refuses graphs with any other operator.
"""

OPERATORS = {
    "": frozenset(
        (
            *("Abs", "Add", "And", "Attention", "BitwiseXor", "Cast", "Clip", "Concat", "Cos"),
            *("CumSum", "DequantizeLinear", "Div", "Equal", "Exp", "Expand", "Flatten", "Gather"),
            *("GatherElements", "GatherND", "Gelu", "Gemm", "Greater", "GreaterOrEqual"),
            *("Identity", "LayerNormalization", "Less", "LessOrEqual", "Log", "LogSoftmax"),
            *("MatMul", "Max", "Min", "Mod", "Mul", "Neg", "NonZero", "Not", "Pad"),
            *("QuantizeLinear", "RMSNormalization", "Range", "ReduceL1", "ReduceL2", "ReduceMax"),
            *("ReduceSum", "Relu", "Reshape", "Scan", "ScatterND", "Shape", "Sigmoid", "Sin"),
            *("Slice", "Softmax", "Split", "Sqrt", "Squeeze", "Sub", "Tanh", "TopK"),
            *("Transpose", "Unsqueeze", "Where"),
        )
    ),
    "com.microsoft": frozenset(("GroupQueryAttention", "MatMulIntegerToFloat", "RotaryEmbedding")),
}
"""Operators by domain. None calls other code or opens files. The only loop, ``Scan``, has as many
iterations as a tensor in memory has parts."""
EARLIER_OPERATORS = frozenset(("BitwiseXor", "ReduceL1"))
"""Those of ONNX in `OPERATORS` that only graphs of earlier exporters have: int8 steps with
shortlists of version 0.1.0."""
