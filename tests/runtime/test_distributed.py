from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn

from msnas_optuna.models.sync_batchnorm import CPUSyncBatchNorm2d, convert_sync_batchnorm
from msnas_optuna.runtime.distributed import (
    ALONE,
    PeerLostError,
    Ranks,
    _store_of_this_start,
    resolve_device,
    torchrun_ranks,
)

CPU, GPU = torch.device("cpu"), torch.device("cuda")
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR")


@pytest.fixture
def group_of_one() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_one_process_talks_to_nobody():
    assert ALONE.first
    assert ALONE.any(True)
    assert not ALONE.any(False)
    assert ALONE.broadcast("this") == "this"
    assert ALONE.sum(torch.ones(2)).tolist() == [1, 1]
    with ALONE.rank_zero_first():
        ALONE.wait()


def test_ranks_are_those_that_torchrun_sets(monkeypatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert torchrun_ranks() is ALONE
    for name, value in zip(VARIABLES, ("5", "8", "1", "4", "host"), strict=True):
        monkeypatch.setenv(name, value)
    assert torchrun_ranks() == Ranks(rank=5, size=8, local_rank=1, local_size=4)
    monkeypatch.setenv("RANK", "five")
    with pytest.raises(ValueError, match=r"must be as torchrun sets them: .*'five'"):
        torchrun_ranks()


def test_a_batch_is_split_evenly_or_not_at_all():
    Ranks(size=4).require_shares(8, "supernet.batch_size")
    with pytest.raises(
        ValueError,
        match=r"supernet.batch_size is the batch of all processes together and must be a multiple "
        r"of their number, got 8 for 3 processes; start 1, 2, 4, 8 processes",
    ):
        Ranks(size=3).require_shares(8, "supernet.batch_size")


def test_each_process_has_the_gpu_of_its_local_rank(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    ranks = Ranks(rank=6, size=8, local_rank=2, local_size=4)
    assert resolve_device("auto", ranks) == resolve_device("cuda", ranks) == torch.device("cuda:2")
    assert resolve_device("cpu", ranks) == CPU
    assert resolve_device("auto") == GPU
    with pytest.raises(ValueError, match=r"needs a GPU of its own, got runtime.device = 'cuda:1'"):
        resolve_device("cuda:1", ranks)
    with pytest.raises(ValueError, match="for 5 processes and 4 GPUs"):
        resolve_device("auto", Ranks(rank=1, size=5, local_rank=1, local_size=5))


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.BatchNorm2d(4), nn.ReLU()))


@pytest.mark.parametrize(("device", "kind"), [(GPU, nn.SyncBatchNorm), (CPU, CPUSyncBatchNorm2d)])
def test_every_batch_norm_becomes_a_synchronized_one_of_the_device(device, kind):
    model = network()
    before = dict(model.named_parameters())
    assert convert_sync_batchnorm(model, device) is model
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert [type(norm) for norm in norms] == [kind]
    assert list(model.state_dict()) == list(network().state_dict())
    assert all(before[name] is value for name, value in model.named_parameters())


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_synchronized_norm_of_one_rank_is_batch_norm(group_of_one, momentum):
    torch.manual_seed(0)
    plain = nn.BatchNorm2d(3, momentum=momentum)
    nn.init.uniform_(plain.weight)
    synced = CPUSyncBatchNorm2d.of(deepcopy(plain))
    for _ in range(3):
        x = (100 + torch.randn(4, 3, 5, 5)).requires_grad_()  # far from zero
        y = x.detach().clone().requires_grad_()
        expected, got = plain(x), synced(y)
        assert torch.allclose(got, expected, atol=1e-4)
        weights = torch.randn_like(expected)
        (expected * weights).sum().backward()
        (got * weights).sum().backward()
        assert torch.allclose(y.grad, x.grad, atol=1e-4)
    for name, value in plain.state_dict().items():
        assert torch.allclose(synced.state_dict()[name], value, atol=1e-4)
    assert torch.allclose(synced.weight.grad, plain.weight.grad, atol=1e-3)
    plain.load_state_dict(synced.state_dict())
    assert torch.equal(synced.eval()(x), plain.eval()(x))


def test_a_restart_does_not_read_what_dead_processes_wrote():
    store = dist.HashStore()
    for _ in range(3):  # the same store for every start
        with ThreadPoolExecutor() as pool:
            parts = list(pool.map(lambda r: _store_of_this_start(store, Ranks(r, 3)), range(3)))
        assert not parts[0].check(["address"])
        parts[1].set("address", "here")
        assert parts[0].get("address") == parts[2].get("address") == b"here"


def test_a_rank_that_does_not_start_is_named(monkeypatch):
    monkeypatch.setattr("msnas_optuna.runtime.distributed.TIMEOUT", timedelta(seconds=0.05))
    with pytest.raises(PeerLostError, match=r"rank 1 did not start within 0:00:00\.05"):
        _store_of_this_start(dist.HashStore(), Ranks(0, 2))
