"""Wired initial weights: the network can copy before its first training step.

A network of this size does not learn to copy within a few million tokens by itself. The known induction circuit
(Elhage et al. 2021, "A Mathematical Framework for Transformer Circuits"; Olsson et al. 2022) is therefore written into
layers 0 and 1: two heads store at each position signatures of the two tokens before, the next layer looks for positions
whose stored signatures are the current token and the one before it, and copies what stands there. With the second
signature a word that occurs twice in a sentence does not send the copy astray. Mimetic initialisation in general:
Trockman & Kolter 2023.

The residual stream is divided: content, the signature of the token two before, a flag for sentence numbers, a constant,
the signature of the token before, the signature of the latest sentence number. The constant gives heads a query and a
key of position alone; it leaves the output unchanged because it adds the same amount to every logit.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from generation.prompts import MAX_POINTER
from training.base_model.architecture import Network, Shape, inverse_frequencies
from training.base_model.tokenizer import FIRST_POINTER

_CONTENT = 151
"""Residual dimensions 0..150."""
_TWO_BEFORE, _FLAG, _CONSTANT, _BEFORE, _NUMBER = 151, 189, 191, 192, 230
"""Start of the signature of the token two before (38), flag of sentence numbers, constant, start of the signatures of
the token before (38) and of the number (26)."""
_SIGNATURE = 38
_SECOND_MATCH = 0.5
"""Weight of the second token of a match against the first."""
_NUMBER_MATCH = 0.45
"""Weight of standing in the sentence whose number was given last: an answer copies from the sentence that it cites,
also where the same words stand in others."""
_NUMBER_SIZE = 26
_BLOCK = 51
"""Content dimensions that one of the three copying heads carries."""
_REACH = 700
"""Tokens over which a content match must survive the rotation of the position code."""
_NORM_SCALE, _SHRINK, _COPY_GAIN, _FINAL_NORM = 2.0, 0.2, 0.2, 1.6


def wire(network: Network, seed: int = 0) -> int:
    """Overwrites the initial weights in place and returns how many dimensions carry content matches.

    Raises:
        ValueError: the network is not of the shape that the wiring is laid out for.
    """
    shape = network.shape
    if (shape.hidden, shape.heads, shape.head) != (256, 4, 64) or shape.layers < 3:
        raise ValueError("the wiring is laid out for hidden size 256, 4 heads of 64 and at least 3 layers")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        return _Wiring(network, generator).apply()


def wired(shape: Shape) -> dict[str, Tensor]:
    """Masks of the wired entries, by parameter name, for training that keeps the copying as it is."""
    heads = {0: 3, 1: shape.heads}
    masks: dict[str, Tensor] = {}
    for layer, count in heads.items():
        rows = torch.zeros(shape.heads * shape.head, shape.hidden, dtype=torch.bool)
        rows[: count * shape.head] = True
        prefix = f"model.layers.{layer}.self_attn"
        for projection in "qkv":
            masks[f"{prefix}.{projection}_proj.weight"] = rows
        masks[f"{prefix}.o_proj.weight"] = rows.T.contiguous()
        for norm in ("q_norm", "k_norm"):
            masks[f"{prefix}.{norm}.weight"] = torch.ones(shape.head, dtype=torch.bool)
    return masks


class _Wiring:
    def __init__(self, network: Network, generator: torch.Generator) -> None:
        self.shape: Shape = network.shape
        self.weights: dict[str, Tensor] = network.state_dict()
        self.generator = generator
        frequencies = inverse_frequencies(self.shape)
        self.frequencies = frequencies
        slow = [i for i in range(self.shape.head // 2) if float(frequencies[i]) * _REACH < 0.8]
        self.match = slow + [i + self.shape.head // 2 for i in slow]
        self.basis, _ = torch.linalg.qr(self.noise(_CONTENT, _CONTENT))
        self.turn, _ = torch.linalg.qr(self.noise(_SIGNATURE, _SIGNATURE))
        self.number_turn = torch.linalg.qr(self.noise(_SIGNATURE, _SIGNATURE))[0][:, :_NUMBER_SIZE]

    def noise(self, *size: int, scale: float = 1.0) -> Tensor:
        return torch.randn(*size, generator=self.generator) * scale

    def apply(self) -> int:
        self._embeddings()
        for name, weight in self.weights.items():
            if "o_proj" in name or "down_proj" in name:
                weight.mul_(_SHRINK / math.sqrt(2 * self.shape.layers))
            if name.startswith(("model.layers.0", "model.layers.1")) and name.endswith(
                ("q_norm.weight", "k_norm.weight")
            ):
                weight.fill_(_NORM_SCALE)
        self._look_back(head=0, distance=1)
        self._look_back(head=1, distance=2)
        self._latest_number(head=2)
        for head in range(3):
            self._induction(head)
        self._induction_of_numbers(head=3)
        self._pool_numbers()
        self.weights["model.norm.weight"].fill_(_FINAL_NORM)
        return len(self.match)

    def _embeddings(self) -> None:
        table = self.weights["model.embed_tokens.weight"]
        table.zero_()
        table[:, :_CONTENT] = self.noise(table.shape[0], _CONTENT, scale=0.045)
        table[:, _CONSTANT] = 0.16
        table[FIRST_POINTER : FIRST_POINTER + MAX_POINTER, _FLAG] = 0.5
        table[:, _BEFORE:] = self.noise(table.shape[0], self.shape.hidden - _BEFORE, scale=0.002)

    def _weight(self, layer: int, projection: str) -> Tensor:
        return self.weights[f"model.layers.{layer}.self_attn.{projection}_proj.weight"]

    def _put(self, layer: int, projection: str, head: int, weight: Tensor) -> None:
        size = self.shape.head
        self._weight(layer, projection)[head * size : (head + 1) * size] = weight

    def _quiet(self, scale: float = 0.01) -> Tensor:
        return self.noise(self.shape.head, self.shape.hidden, scale=scale)

    def _clear_output(self, layer: int, head: int) -> Tensor:
        size = self.shape.head
        output = self._weight(layer, "o")
        output[:, head * size : (head + 1) * size] = self.noise(self.shape.hidden, size, scale=0.002)
        return output

    def _by_position(self, layer: int, head: int, query: Tensor, key: Tensor) -> None:
        for projection, vector in (("q", query), ("k", key)):
            weight = self._quiet()
            weight[:, _CONSTANT] += 2 * vector
            self._put(layer, projection, head, weight)

    def _look_back(self, head: int, distance: int) -> None:
        """Layer 0: attend to the token ``distance`` back and store its signature."""
        strength = torch.tensor([3, 2.5, 2, 1.5, 1, 1, 0.5, 0.5])
        strength = (strength / strength.sum()).sqrt()
        half, size = self.shape.head // 2, self.shape.head
        query, key = torch.zeros(size), torch.zeros(size)
        for i, amount in enumerate(strength.tolist()):
            angle = float(self.frequencies[i]) * distance
            query[i] = amount
            key[i], key[i + half] = amount * math.cos(angle), amount * math.sin(angle)
        self._by_position(0, head, query, key)
        value = torch.zeros(size, self.shape.hidden)
        value[:, :_CONTENT] = self.basis[:size] * 0.25
        self._put(0, "v", head, value)
        output = self._clear_output(0, head)
        store = _BEFORE if distance == 1 else _TWO_BEFORE
        output[store : store + _SIGNATURE, head * size : head * size + _SIGNATURE] += 0.24 * torch.eye(_SIGNATURE)

    def _recency(self) -> Tensor:
        """A query or key that prefers near positions without fixing the distance."""
        strength = torch.tensor([1.0, 1.2, 1.4, 1.4, 1.2])
        vector = torch.zeros(self.shape.head)
        vector[3:8] = (strength / strength.sum()).sqrt()
        return vector

    def _number_signatures(self) -> Tensor:
        return self.basis[self.shape.head : self.shape.head + _NUMBER_SIZE]

    def _latest_number(self, head: int) -> None:
        """Layer 0: attend to the latest sentence number and store its signature."""
        flag = torch.zeros(self.shape.head)
        flag[20] = 1.0
        recent = self._recency()
        query, key = self._quiet(), self._quiet()
        query[:, _CONSTANT] += 2 * 0.7 * (recent + flag)
        key[:, _CONSTANT] += 2 * 0.7 * (recent - flag)
        key[:, _FLAG] += 1.12 * flag
        self._put(0, "q", head, query)
        self._put(0, "k", head, key)
        value = torch.zeros(self.shape.head, self.shape.hidden)
        value[:_NUMBER_SIZE, :_CONTENT] = self._number_signatures() * 0.3
        self._put(0, "v", head, value)
        output = self._clear_output(0, head)
        start = head * self.shape.head
        output[_NUMBER : _NUMBER + _NUMBER_SIZE, start : start + _NUMBER_SIZE] += 0.3 * torch.eye(_NUMBER_SIZE)

    def _match(self, head: int, number: float = 0.0) -> None:
        """Layer 1: own token against the token before, and the token before against the one before that.

        Both matches share the few slow rotary dimensions; a random rotation keeps the second apart from the first.
        """
        query, key = self._quiet(), self._quiet()
        for at, dimension in enumerate(self.match[:_SIGNATURE]):
            query[dimension, :_CONTENT] += self.basis[at]
            key[dimension, _BEFORE + at] += 1.0
            query[dimension, _BEFORE : _BEFORE + _SIGNATURE] += _SECOND_MATCH * self.turn[at]
            key[dimension, _TWO_BEFORE : _TWO_BEFORE + _SIGNATURE] += _SECOND_MATCH * self.turn[at]
            query[dimension, _NUMBER : _NUMBER + _NUMBER_SIZE] += number * self.number_turn[at]
            key[dimension, _NUMBER : _NUMBER + _NUMBER_SIZE] += number * self.number_turn[at]
        self._put(1, "q", head, query)
        self._put(1, "k", head, key)

    def _induction(self, head: int) -> None:
        """Layer 1, heads 0-2: copy the token that followed the current token earlier, a third of the content each."""
        self._match(head, _NUMBER_MATCH)
        block = self.basis[head * _BLOCK : (head + 1) * _BLOCK]
        wide = len(block)
        value = self._quiet(0.004)
        value[:wide, :_CONTENT] += math.sqrt(_COPY_GAIN) * block
        self._put(1, "v", head, value)
        output = self._clear_output(1, head)
        start = head * self.shape.head
        output[:_CONTENT, start : start + wide] += math.sqrt(_COPY_GAIN) * block.T

    def _induction_of_numbers(self, head: int) -> None:
        """Layer 1: the same match, but it collects the number of the sentence in which the match stands."""
        self._match(head)
        value = self._quiet(0.004)
        value[:_NUMBER_SIZE, _NUMBER : _NUMBER + _NUMBER_SIZE] += 0.4 * torch.eye(_NUMBER_SIZE)
        self._put(1, "v", head, value)
        output = self._clear_output(1, head)
        start = head * self.shape.head
        output[:_CONTENT, start : start + _NUMBER_SIZE] += 0.4 * self._number_signatures().T

    def _pool_numbers(self) -> None:
        """Layer 2, head 0: a broad look back that adds up the numbers collected by the words of the question."""
        recent = self._recency()
        self._by_position(2, 0, recent, recent)
        value = self._quiet(0.004)
        value[:_NUMBER_SIZE, :_CONTENT] += 0.3 * self._number_signatures()
        self._put(2, "v", 0, value)
        self._weight(2, "o")[:_CONTENT, :_NUMBER_SIZE] += 0.3 * self._number_signatures().T
