"""The joint law of size, data and mean patch size."""

import numpy as np
import pytest
from planted_laws import LAWS, LOGS, grid, planted

from bltjax.science import joint, parametric
from bltjax.science.identifiability import NotIdentified


def test_laws_one_and_two_follow_from_the_joint_law():
    formula, law, _ = LAWS["joint"]
    law = np.array(law)
    pairs = grid(C=np.geomspace(5e18, 2e21, 6), T=np.array([1, 2, 4, 6, 8, 12.0]))
    n, d = joint.best(formula, law, pairs["C"], pairs["T"])
    assert 6 * n * d / pairs["T"] == pytest.approx(pairs["C"])
    one = joint.law_one(pairs["C"], pairs["T"], d)
    b = 0.34 / (0.34 + 0.28)
    assert (one.c, one.t) == pytest.approx((b, b)) and one.at(1e20, 4.0) == pytest.approx(
        joint.best(formula, law, 1e20, 4.0)[1]
    )
    best = [joint.best_patch(formula, law, flops) for flops in (1e18, 1e20, 1e22)]
    assert best[0] > best[1] > best[2] > 1
    lowest = joint.lowest(formula, law, 1e20, best[1])
    for patch in (best[1] * 0.9, best[1] * 1.1):
        n, d = joint.best(formula, law, 1e20, patch)
        assert parametric.predict(formula, law, dict(N=n, D=d, T=patch)) > lowest
    with pytest.raises(NotIdentified):
        joint.law_one(pairs["C"], pairs["C"] ** 0.1, d)


def test_held_out_budgets_choose_between_the_joint_and_the_separate_laws():
    formula, law, _ = LAWS["joint"]
    cells = grid(
        C=np.geomspace(1e18, 1e21, 4), ratio=np.geomspace(5, 500, 5), T=np.array([2, 3, 4.5, 6, 8.0])
    )
    n = np.sqrt(cells["C"] * cells["T"] / 6 / cells["ratio"])
    values = dict(N=n, D=n * cells["ratio"], T=cells["T"])
    found = joint.held_out(planted(formula, law, values, noise=0.005), cells["C"], LOGS)
    assert found.runs == 25 and set(found.errors) == {"joint, powers", "joint, log square", "separate"}
    assert found.errors["joint, powers"] < found.errors["separate"] and found.trusts.startswith("joint")
    assert found.errors["joint, powers"] == pytest.approx(0.005, rel=0.5)


def test_the_frontier_at_one_patch_size_is_the_lowest_loss_there():
    for name in ("joint", "joint, log square"):
        formula, law, _ = LAWS[name]
        parameters = np.array([law, np.array(law) * 1.03])
        found = joint.frontier(formula, parameters, 4.5, 6.0)
        for flops in (1e18, 1e20):
            lowest = joint.lowest(formula, parameters, flops, 4.5, 6.0)
            assert found[:, 0] + found[:, 1] * flops ** -found[:, 2] == pytest.approx(lowest, rel=1e-9)
