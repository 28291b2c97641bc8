"""Muon by its definition, by torch's own, and as the trainer uses it."""

import copy

import pytest
import torch
from torch import nn

from condmix.training.muon import QUINTIC, SMALLEST, TURNS, Muon, orthogonalised, takes


def by_definition(x):
    a, b, c = QUINTIC
    x = x / (x.norm() + 1e-7)
    for _ in range(TURNS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


@pytest.mark.parametrize("shape", [(16, 16), (16, 144), (144, 16), (64, 576)])
def test_few_products_give_what_the_definition_gives(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    matrices[1] = matrices[1, :, :1] @ matrices[1, :1] + 1e-4 * matrices[2]  # nearly of rank 1
    for result, matrix in zip(orthogonalised(matrices), matrices, strict=True):
        expected = by_definition(matrix.double() if shape[0] <= shape[1] else matrix.double().T)
        expected = expected if shape[0] <= shape[1] else expected.T
        torch.testing.assert_close(result.double(), expected, rtol=0, atol=1e-4)


def test_singular_values_become_about_one_and_their_vectors_stay():
    matrix = torch.randn(32, 288, generator=torch.Generator().manual_seed(1))
    u, values, v = torch.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonalised(matrix[None])[0] @ v.T
    assert ((inside.diagonal() > 0.6) & (inside.diagonal() < 1.25)).all()
    assert (inside - inside.diagonal().diag()).abs().max() < 1e-4


def test_it_takes_the_steps_of_torch_s_own():
    generator = torch.Generator().manual_seed(2)
    start, gradients = torch.randn(24, 40, generator=generator), torch.randn(4, 24, 40, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    options = {"lr": 1e-2, "momentum": 0.95, "weight_decay": 0.1}
    pair = (Muon([ours], **options), torch.optim.Muon([theirs], adjust_lr_fn="match_rms_adamw", **options))
    for gradient in gradients:
        for weight, optimizer in zip((ours, theirs), pair, strict=True):
            weight.grad = gradient.clone()
            optimizer.step()
    moved, apart = (theirs - start).norm(), (ours - theirs).norm()
    assert apart < 0.02 * moved  # theirs is rounded to bf16


def test_a_convolution_is_the_matrix_of_its_weights_in_either_layout():
    start = torch.randn(16, 8, 3, 3, generator=torch.Generator().manual_seed(3))
    weights = [
        nn.Parameter(start.clone(memory_format=layout)) for layout in (torch.contiguous_format, torch.channels_last)
    ]
    flat = nn.Parameter(start.flatten(1).clone())
    for weight in (*weights, flat):
        optimizer = Muon([weight], lr=1e-2)
        for turn in range(3):
            gradient = torch.randn(16, 72, generator=torch.Generator().manual_seed(turn)).view(start.shape)
            weight.grad = gradient.flatten(1) if weight is flat else gradient.to(memory_format=layout_of(weight))
            optimizer.step()
    torch.testing.assert_close(weights[0], weights[1], rtol=0, atol=1e-6)
    torch.testing.assert_close(weights[0].flatten(1), flat, rtol=0, atol=1e-6)
    assert layout_of(weights[1]) is torch.channels_last


def layout_of(weight):
    contiguous = weight.is_contiguous()
    return torch.contiguous_format if contiguous else torch.channels_last


def test_it_leaves_weights_without_a_gradient_and_state_survives_a_round_trip():
    weights = [nn.Parameter(torch.randn(16, 16)) for _ in range(2)]
    before = weights[1].detach().clone()
    optimizer = Muon(weights, lr=1e-2)
    weights[0].grad = torch.randn(16, 16)
    optimizer.step()
    assert torch.equal(weights[1], before) and not optimizer.state[weights[1]]["momentum"].any()
    twins = [nn.Parameter(weight.detach().clone()) for weight in weights]
    other = Muon(twins, lr=1e-2)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for weight in (*weights, *twins):
        weight.grad = torch.ones(16, 16)
    optimizer.step()
    other.step()
    for weight, twin in zip(weights, twins, strict=True):
        assert torch.equal(weight, twin)


@pytest.mark.parametrize(
    ("shape", "taken"),
    [((SMALLEST, SMALLEST), True), ((32, 3, 3, 3), True), ((3, 32, 3, 3), False), ((64,), False),
     ((1, 32, 16, 16), False), ((SMALLEST - 1, 64), False), ((4, 16, 16), False)],
)  # fmt: skip
def test_it_takes_matrices_of_some_size(shape, taken):
    assert takes(torch.empty(shape)) is taken
