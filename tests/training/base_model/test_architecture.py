from __future__ import annotations

import pytest
import torch

from training.base_model.architecture import Network, Shape
from training.base_model.circuits import wire
from training.base_model.circuits import wired as wired_entries
from training.base_model.export import as_transformers, largest_difference
from training.base_model.optimiser import Optimiser, orthogonalise
from training.base_model.tokenizer import FIRST_POINTER
from training.base_model.train import _stages


@pytest.fixture(scope="module")
def wired() -> Network:
    torch.manual_seed(0)
    network = Network(Shape())
    wire(network)
    return network.eval()


def _share_copied(network: Network, distinct: int) -> float:
    generator = torch.Generator().manual_seed(1)
    half = torch.randint(5, 5 + distinct, (4, 120), generator=generator)
    ids = torch.cat([half, half], dim=1)
    with torch.no_grad():
        predicted = network.logits(network.hidden(ids))[:, 120:-1].argmax(-1)
    return float((predicted == ids[:, 121:]).float().mean())


def test_wired_weights_copy_before_any_training(wired: Network) -> None:
    assert _share_copied(wired, 8000) > 0.95


def test_copying_survives_repeated_words(wired: Network) -> None:
    """Each token stands several times: one token of context would be ambiguous, two are not."""
    assert _share_copied(wired, 80) > 0.85


def test_an_answer_is_copied_from_the_sentence_it_cites(wired: Network) -> None:
    """Three sentences that hold the same pair of words with something else behind it: the number given last decides."""
    generator = torch.Generator().manual_seed(3)
    pair = [600, 601]
    right = 0
    for cited in range(3):
        ends = torch.randint(1000, 8000, (3, 6), generator=generator).tolist()
        starts = torch.randint(1000, 8000, (3, 6), generator=generator).tolist()
        said = [[FIRST_POINTER + n, *starts[n], *pair, *ends[n]] for n in range(3)]
        prompt = [token for sentence in said for token in sentence]
        asked = torch.randint(1000, 8000, (12,), generator=generator).tolist()
        ids = torch.tensor([[*prompt, *asked, FIRST_POINTER + cited, *starts[cited], *pair]])
        with torch.no_grad():
            right += int(wired.logits(wired.hidden(ids))[0, -1].argmax()) == ends[cited][0]
    assert right == 3


def test_wired_entries_stay_as_they_are() -> None:
    network = Network(Shape())
    wire(network)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    masks = wired_entries(network.shape)
    optimiser = Optimiser(network, kept=masks)
    ids = torch.randint(5, 8000, (2, 32), generator=torch.Generator().manual_seed(0))
    network.logits(network.hidden(ids)).logsumexp(-1).mean().backward()
    optimiser.step(1.0)
    after = network.state_dict()
    assert all(torch.equal(after[name][mask], before[name][mask]) for name, mask in masks.items())
    assert not torch.equal(
        after["model.layers.0.self_attn.q_proj.weight"], before["model.layers.0.self_attn.q_proj.weight"]
    )
    assert not torch.equal(
        after["model.layers.2.self_attn.q_proj.weight"], before["model.layers.2.self_attn.q_proj.weight"]
    )


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="hidden size 256"):
        wire(Network(Shape(hidden=128, heads=2)))


def test_transformers_computes_the_same(wired: Network) -> None:
    assert largest_difference(wired, as_transformers(wired), list(range(5, 90))) < 1e-3


def test_orthogonal_update_has_singular_values_near_one() -> None:
    values = torch.linalg.svdvals(orthogonalise(torch.randn(24, 64, generator=torch.Generator().manual_seed(0))))
    assert 0.4 < float(values.min()) <= float(values.max()) < 1.4


def test_a_step_lowers_the_loss() -> None:
    torch.manual_seed(0)
    network = Network(Shape(vocabulary=64, hidden=32, layers=1, heads=1, head=32, feed_forward=64, positions=32))
    optimiser, ids = Optimiser(network, embedding_rate=1e-3), torch.randint(0, 64, (4, 16))

    def loss() -> torch.Tensor:
        logits = network.logits(network.hidden(ids[:, :-1]))
        return torch.nn.functional.cross_entropy(logits.reshape(-1, 64), ids[:, 1:].reshape(-1))

    before = loss().item()
    for _ in range(20):
        optimiser.zero()
        loss().backward()
        optimiser.step(1.0)
    assert loss().item() < before - 0.5


def test_stages_are_read_from_the_command_line() -> None:
    assert _stages("1:0.25,2:1") == (("1", 0.25), ("2", 1.0))
    with pytest.raises(ValueError):
        _stages("1")
