"""The loop of the small networks, and the learning rate of everything."""

import pytest
import torch

from condmix import CondmixError
from condmix.training.learning_rate import share
from condmix.training.loop import Plan, fit


def test_the_rate_rises_stays_and_falls_to_zero():
    rates = [share(step, 100, warmup=0.1, decay=0.5) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and rates[9:51] == [1.0] * 42
    assert rates[75] == pytest.approx(0.5) and rates[-1] == pytest.approx(1 / 50)


def test_without_a_plateau_the_fall_follows_the_rise():
    rates = [share(step, 100, warmup=0.1) for step in range(101)]
    assert max(rates) == rates[9] == rates[10] == 1 and rates[100] == 0
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert share(0, 1, 0.1) == 1 and share(0, 1, 1.0, 1.0) == 1
    assert [share(step, 4, 0.0) for step in range(4)] == [1, 1, 2 / 3, 1 / 3]


def plan(**changes):
    return Plan(**{"what": "net", "setting": "net.lr", "steps": 7, "lr": 0.1, "warmup": 0.3, **changes})


def test_the_loop_is_gradient_descent_at_the_rate_of_each_step():
    """On |w|^2 / 2, SGD multiplies w by 1 - rate."""
    w = torch.nn.Parameter(torch.tensor([3.0, -4.0]))
    losses = fit(plan(), [torch.optim.SGD([w], lr=9.0)], lambda: w.square().sum() / 2)
    left = torch.tensor([1 - 0.1 * share(step, 7, 0.3) for step in range(7)])
    torch.testing.assert_close(w.detach(), torch.tensor([3.0, -4.0]) * left.prod())
    before = torch.cat([torch.ones(1), left.cumprod(0)[:-1]])
    torch.testing.assert_close(torch.tensor(losses), 12.5 * before**2)


def test_gradients_are_clipped_and_what_comes_after_a_step_runs():
    w, after = torch.nn.Parameter(torch.tensor([30.0, -40.0])), []
    fit(plan(steps=1, clip_norm=1.0), [torch.optim.SGD([w], lr=9.0)], lambda: w.square().sum() / 2,
        noted=lambda loss: 2 * loss.detach(), after=lambda: after.append(w.clone()))  # fmt: skip
    torch.testing.assert_close(w.detach(), torch.tensor([30 - 0.06, -40 + 0.08]))
    assert torch.equal(after[0], w)


def test_a_loss_that_is_not_finite_names_the_setting_to_lower():
    w = torch.nn.Parameter(torch.ones(1))
    with pytest.raises(CondmixError, match=r"the net's loss became inf at step 0: lower net.lr \(0.1\)"):
        fit(plan(), [torch.optim.SGD([w], lr=1.0)], lambda: w.sum() * float("inf"))
