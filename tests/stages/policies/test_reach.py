"""Actions are cut off at [-1, 1], and where demonstrations went beyond it, as joint angles do, at their extremes."""

import numpy as np
import torch

from stages.policies.reach import Reach
from stages.policies.statistics import Moments


def test_numbers_of_a_unit_box_are_cut_off_at_it_and_joint_angles_where_demonstrations_ended():
    rows = np.array([[-0.3, 2.5, 0.0], [0.4, -1.7, 0.1]])
    reach = Reach(Moments.of(rows))
    asked = torch.tensor([[-3.0, 3.0, 1.5], [3.0, -3.0, -0.5]])
    assert torch.equal(reach(asked), torch.tensor([[-1.0, 2.5, 1.0], [1.0, -1.7, -0.5]]))


def test_published_statistics_without_extremes_go_by_their_quantiles():
    reach = Reach(Moments.from_json({"q01": [-2.0, -0.5], "q99": [0.5, 0.5]}))
    assert torch.equal(reach(torch.tensor([-9.0, -9.0])), torch.tensor([-2.0, -1.0]))
    assert torch.equal(reach(torch.tensor([9.0, 9.0])), torch.tensor([1.0, 1.0]))
