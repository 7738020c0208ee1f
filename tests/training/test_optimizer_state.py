import pytest
import torch
from torch import nn

from transfergen.training.muon import Muon
from transfergen.training.optimizer_state import check_and_regroup, optimized_names


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Parameter(torch.full((size,), float(size))) for size in (1, 2, 3))

    def grouped(self, *groups, kind=torch.optim.Adam, **settings):
        return kind([{"params": [getattr(self, name) for name in group]} for group in groups], **settings)


def saved(network, optimizer):
    """After a step: the optimizer's state, and our own part of a checkpoint."""
    for p in network.parameters():
        p.grad = p.detach().clone()
    optimizer.step()
    own = {"optimized": optimized_names(network, [optimizer]), "config": {"transfer": {"generator_lr_scale": 1.0}}}
    return [optimizer.state_dict()], own | {"optimizers": [type(optimizer).__name__]}


@pytest.mark.parametrize("groups", [("abc",), ("b", "ac"), ("cb", "a"), ("c", "b", "a")])
def test_the_state_of_each_weight_follows_it_to_another_group_whose_settings_are_those_of_now(groups):
    network = Network()
    states, own = saved(network, network.grouped("abc", lr=0.1))
    here = network.grouped(*groups, lr=0.2)
    check_and_regroup(states, own, [here], optimized_names(network, [here]), {})
    here.load_state_dict(states[0])
    assert [group["lr"] for group in here.param_groups] == [0.2] * len(groups)
    for p in network.parameters():
        torch.testing.assert_close(here.state[p]["exp_avg"], 0.1 * p.grad)


def test_a_weight_without_state_stays_without():
    network = Network()
    optimizer = network.grouped("abc")
    network.b.requires_grad_(False)
    states, own = saved(network, optimizer)
    del states[0]["state"][1]
    here = network.grouped("b", "ac")
    check_and_regroup(states, own, [here], optimized_names(network, [here]), {})
    assert states[0]["state"].keys() == {1, 2}


@pytest.mark.parametrize(
    ("before", "now", "line"),
    [
        ({}, {"kind": torch.optim.RMSprop}, "the checkpoint's optimizers are Adam, this run's RMSprop"),
        ({}, {"groups": ["ab"]}, r"hold other weights.*the run's own transfer\.generator_lr_scale"),
        ({}, {"amsgrad": True}, r"optimizer\.generator\.amsgrad=true: .* has the state of false"),
        *(
            ({"kind": torch.optim.RMSprop} | before, {"kind": torch.optim.RMSprop} | now, line)
            for before, now, line in (
                ({}, {"momentum": 0.9}, r"optimizer\.generator\.momentum=0\.9: .* has the state of 0;"),
                ({}, {"centered": True}, r"optimizer\.generator\.centered=true"),
            )
        ),
        ({"kind": Muon}, {"kind": Muon, "fallback_output": True}, r"optimizer\.generator\.fallback_output=true"),
    ],
)
def test_optimizers_that_would_keep_another_state_are_refused(before, now, line):
    network = Network()
    states, own = saved(network, network.grouped("abc", **before))
    here = network.grouped(*now.pop("groups", ["abc"]), **now)
    with pytest.raises(ValueError, match=line):
        check_and_regroup(
            states, own, [here], optimized_names(network, [here]), {"transfer": {"generator_lr_scale": 2}}
        )


def test_momentum_may_change_while_there_is_some():
    network = Network()
    states, own = saved(network, network.grouped("abc", kind=torch.optim.RMSprop, momentum=0.9))
    here = network.grouped("abc", kind=torch.optim.RMSprop, momentum=0.5)
    check_and_regroup(states, own, [here], optimized_names(network, [here]), {})
    assert states[0]["param_groups"][0]["momentum"] == 0.5
