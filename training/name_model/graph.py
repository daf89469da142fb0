"""The name model's computation as two ONNX graphs without weights, for onnxruntime: models/names/graph.onnx up to the
glance, rest.onnx from there.

Large products are of bytes, four times as fast as of float32 where the processor has instructions for them. Every row
(piece) has its own scale, so that a sentence gives the same whatever it is read with.

The tensors that a layer needs come from `privacy.name_model.tensors.tensors`, under the same names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from privacy.name_model.labels import LABELS
from privacy.name_model.pieces import FEATURES
from privacy.name_model.tensors import FEW, LEAST_GELU, PROBED
from privacy.name_model.weights import GLANCE, HEADS, WIDTH, glance_after

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto

_WIDTH, _INNER = WIDTH, 1536
_MICROSOFT = "com.microsoft"
_FLOAT, _INT32, _INT64, _INT8 = 1, 6, 7, 3
_IR, _OPSET = 10, 21


class _Graph:
    """Nodes and initialisers in the making. Every operation returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.initialisers: dict[str, TensorProto] = {}

    def op(self, kind: str, inputs: Sequence[str], result: str, *, domain: str = "", **attributes: Any) -> str:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [result], domain=domain, **attributes))
        return result

    def split(self, x: str, sizes: str, results: list[str], *, axis: int) -> list[str]:
        from onnx import helper

        self.nodes.append(helper.make_node("Split", [x, sizes], results, axis=axis))
        return results

    def constant(self, name: str, value: object) -> str:
        from onnx import numpy_helper

        self.initialisers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def weight(self, name: str, shape: Sequence[int], kind: int = _FLOAT) -> str:
        """A tensor that is given when the graph is loaded."""
        from onnx import TensorProto

        tensor = TensorProto(name=name, data_type=kind, dims=list(shape), data_location=TensorProto.EXTERNAL)
        tensor.external_data.add(key="location", value="given")
        self.initialisers[name] = tensor
        return name

    def norm(self, x: str, name: str, result: str) -> str:
        scale, shift = (self.weight(f"{name}.{kind}", [_WIDTH]) for kind in ("scale", "shift"))
        return self.op("LayerNormalization", [x, scale, shift], result, axis=-1, epsilon=1e-12)

    def product(self, x: str, name: str, shape: tuple[int, int]) -> str:
        """x (t, n) → (t, m), without the bias: each row of x as bytes around 128, by its largest value."""
        self.op("Abs", [x], f"{name}.abs")
        self.op("ReduceMax", [f"{name}.abs", "last"], f"{name}.largest", keepdims=1)
        self.op("Max", [f"{name}.largest", "tiny"], f"{name}.range")
        self.op("Div", ["127", f"{name}.range"], f"{name}.factor")
        self.op("Mul", [x, f"{name}.factor"], f"{name}.wide")
        return self._product(name, shape, "128", "1/127")

    def product_of_gelu(self, x: str, name: str, shape: tuple[int, int]) -> str:
        """As `product` for what is never below -LEAST_GELU, with all bytes above that; the bias must hold the rest."""
        self.op("Add", [x, "least"], f"{name}.raised")
        self.op("ReduceMax", [f"{name}.raised", "last"], f"{name}.range", keepdims=1)
        self.op("Div", ["255", f"{name}.range"], f"{name}.factor")
        self.op("Mul", [f"{name}.raised", f"{name}.factor"], f"{name}.wide")
        return self._product(name, shape, "0", "1/255")

    def _product(self, name: str, shape: tuple[int, int], zero: str, step: str) -> str:
        self.op("QuantizeLinear", [f"{name}.wide", "1", zero], f"{name}.bytes")
        self.op("Mul", [f"{name}.range", step], f"{name}.steps")
        weight = self.weight(f"{name}.weight", shape, _INT8)
        self.op("MatMulInteger", [f"{name}.bytes", weight, zero], f"{name}.sums")
        # The runtime makes one operation of these: the product with a scale for each column.
        self.op("Cast", [f"{name}.sums"], f"{name}.plain", to=_FLOAT)
        self.op("Mul", [f"{name}.plain", f"{name}.steps"], f"{name}.rows")
        return self.op("Mul", [f"{name}.rows", self.weight(f"{name}.columns", [shape[1]])], f"{name}.product")


def _layer(graph: _Graph, x: str, name: str, *, wanted: bool = False) -> str:
    """One layer of the encoder; with ``wanted`` what follows attention for those pieces alone."""
    product = graph.product(x, f"{name}.qkv", (_WIDTH, 3 * _WIDTH))
    # Attention looks at windows one by one, with padding; everything else at pieces one behind the other.
    graph.op("Gather", [product, "places"], f"{name}.placed", axis=0)
    parts = graph.split(
        f"{name}.placed", "thirds", [f"{name}.{part}" for part in ("queries", "keys", "values")], axis=2
    )
    bias = graph.weight(f"{name}.qkv.bias", [3 * _WIDTH])
    attended = graph.op(
        "MultiHeadAttention",
        [*parts, bias, "mask"],
        f"{name}.attended",
        domain=_MICROSOFT,
        num_heads=HEADS,
        scale=1.0,  # the queries are scaled already
    )
    graph.op("Reshape", [attended, "flat"], f"{name}.padded")
    back = "back"
    if wanted:
        back = graph.op("Gather", ["back", "wanted"], f"{name}.back", axis=0)
        x = graph.op("Gather", [x, "wanted"], f"{name}.wanted", axis=0)
    x_attended = graph.op("Gather", [f"{name}.padded", back], f"{name}.unpadded", axis=0)
    product = graph.product(x_attended, f"{name}.out", (_WIDTH, _WIDTH))
    x = _added(graph, product, x, f"{name}.out", f"{name}.norm")
    product = graph.product(x, f"{name}.up", (_WIDTH, _INNER))
    bias = graph.weight(f"{name}.up.bias", [_INNER])
    inner = graph.op("FastGelu", [product, bias], f"{name}.inner", domain=_MICROSOFT)
    many, few = graph.split(inner, "many and few", [f"{name}.many", f"{name}.few"], axis=1)
    product = graph.product_of_gelu(many, f"{name}.down", (_INNER - FEW, _WIDTH))
    exact = graph.op("MatMul", [few, graph.weight(f"{name}.down.few", [FEW, _WIDTH])], f"{name}.exact")
    x = graph.op("Add", [exact, x], f"{name}.kept")
    return _added(graph, product, x, f"{name}.down", f"{name}.out_norm")


def _added(graph: _Graph, product: str, x: str, name: str, norm: str) -> str:
    # Not SkipLayerNormalization, which does the same in one operation and takes five times as long.
    graph.op("Add", [product, graph.weight(f"{name}.bias", [_WIDTH])], f"{name}.biased")
    return graph.norm(graph.op("Add", [f"{name}.biased", x], f"{name}.summed"), norm, f"{norm}.normed")


def _glance(graph: _Graph, x: str) -> None:
    """Windows lie one behind the other with a mark at either end, so no piece has one of another window beside it."""
    weights = {
        name: graph.weight(f"glance.{name}", shape)
        for name, shape in (
            ("each", [_WIDTH + FEATURES, GLANCE]), ("each_bias", [GLANCE]), ("near", [GLANCE, GLANCE, 3]),
            ("near_bias", [GLANCE]), ("head", [GLANCE, 1]), ("head_bias", [1]),
        )
    }  # fmt: skip
    graph.op("Concat", [x, "features"], "glance.told", axis=1)
    graph.op("Gemm", ["glance.told", weights["each"], weights["each_bias"]], "glance.sums")
    graph.op("Relu", ["glance.sums"], "glance.own")
    graph.op("Transpose", ["glance.own"], "glance.turned", perm=[1, 0])
    graph.op("Unsqueeze", ["glance.turned", "first axis"], "glance.row")
    graph.op("Conv", ["glance.row", weights["near"], weights["near_bias"]], "glance.around", pads=[1, 1])
    graph.op("Relu", ["glance.around"], "glance.beside")
    graph.op("Add", ["glance.row", "glance.beside"], "glance.both")
    graph.op("Squeeze", ["glance.both", "first axis"], "glance.column")
    graph.op("Transpose", ["glance.column"], "glance.back", perm=[1, 0])
    graph.op("Gemm", ["glance.back", weights["head"], weights["head_bias"]], "glance.one")
    graph.op("Squeeze", ["glance.one", "last"], "glance")


def _started() -> _Graph:
    graph = _Graph()
    for name, value in (
        ("last", np.array([-1])), ("flat", np.array([-1, _WIDTH])), ("thirds", np.array([_WIDTH] * 3)),
        ("many and few", np.array([_INNER - FEW, FEW])), ("first axis", np.array([0])),
        ("tiny", np.float32(1e-9)), ("least", np.float32(LEAST_GELU)), ("1", np.float32(1)), ("127", np.float32(127)),
        ("255", np.float32(255)), ("1/127", np.float32(1 / 127)), ("1/255", np.float32(1 / 255)),
        ("0", np.uint8(0)), ("128", np.uint8(128)),
    ):  # fmt: skip
        graph.constant(name, value)
    return graph


def made(layers: int) -> tuple[bytes, bytes]:
    """Both graphs of a model of so many layers; the same bytes every time.

    In, both: ``features`` (t, FEATURES), ``places`` (rows, width) of the windows' pieces among the t, ``mask`` of the
    same shape (0 where padding is), ``back`` (t) the way back out of the flattened places.

    The first: ``embedded`` (t, 384) vectors of words and positions → ``hidden`` (t, 384), ``glance`` (t), and ``probe``
    (1, 16), sums of the largest products. The second: ``hidden`` and ``wanted`` (k), which of the t are asked for →
    ``probabilities`` (k, labels).
    """
    after = glance_after(layers)
    return _first(after), _second(after, layers)


def _first(after: int) -> bytes:
    graph = _started()
    graph.op("MatMul", ["features", graph.weight("letters", [FEATURES, _WIDTH])], "lettered")
    x = graph.norm(graph.op("Add", ["embedded", "lettered"], "first"), "norm", "normed")
    for i in range(after):
        x = _layer(graph, x, f"layer.{i}")
    graph.op("Identity", [x], "hidden")
    _glance(graph, "hidden")
    # Where products of bytes overflow, this comes out too small: see `privacy.name_model.network`.
    graph.constant("most", np.full((1, PROBED), 255, dtype=np.uint8))
    graph.constant("most of weights", np.full((PROBED, 16), 127, dtype=np.int8))
    graph.op("MatMulInteger", ["most", "most of weights"], "probe")
    return _written(
        graph,
        {"embedded": (_FLOAT, ["t", _WIDTH])},
        {"hidden": (_FLOAT, ["t", _WIDTH]), "glance": (_FLOAT, ["t"]), "probe": (_INT32, [1, 16])},
    )


def _second(after: int, layers: int) -> bytes:
    graph = _started()
    x = "hidden"
    for i in range(after, layers):
        x = _layer(graph, x, f"layer.{i}", wanted=i == layers - 1)
    graph.op("Gather", ["features", "wanted"], "wanted features", axis=0)
    graph.op("Concat", [x, "wanted features"], "told", axis=1)
    head = [
        graph.weight("head", [_WIDTH + FEATURES, len(LABELS)]),
        graph.weight("head.bias", [len(LABELS)]),
    ]
    graph.op("Gemm", ["told", *head], "logits")
    graph.op("Softmax", ["logits"], "probabilities", axis=-1)
    return _written(
        graph,
        {"hidden": (_FLOAT, ["t", _WIDTH]), "wanted": (_INT64, ["k"])},
        {"probabilities": (_FLOAT, ["k", len(LABELS)])},
    )


Described = dict[str, tuple[int, list[Any]]]


def _written(graph: _Graph, given: Described, found: Described) -> bytes:
    from onnx import helper

    given = given | {
        "features": (_FLOAT, ["t", FEATURES]),
        "places": (_INT64, ["rows", "width"]),
        "mask": (_INT32, ["rows", "width"]),
        "back": (_INT64, ["t"]),
    }
    inputs, outputs = (
        [helper.make_tensor_value_info(name, *described) for name, described in values.items()]
        for values in (given, found)
    )
    used = {name for node in graph.nodes for name in node.input}
    initialisers = [tensor for name, tensor in graph.initialisers.items() if name in used]
    plain = helper.make_graph(graph.nodes, "names", inputs, outputs, initialisers)
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
    model = helper.make_model(plain, opset_imports=opsets, ir_version=_IR, producer_name="names")
    return bytes(model.SerializeToString(deterministic=True))
