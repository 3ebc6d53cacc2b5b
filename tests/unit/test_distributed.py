"""One process, and the choice of a device; tests/distributed has several processes."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist

from clic import distributed
from clic.errors import ConfigError


def test_one_process_needs_no_group() -> None:
    assert not distributed.is_initialised()
    assert (distributed.rank(), distributed.world_size()) == (0, 1)
    assert distributed.is_main()
    distributed.barrier()
    value = {"run": "name"}
    assert distributed.broadcast_object(value) is value


def test_gather_on_one_process_is_the_tensor_itself() -> None:
    local = torch.ones(3, 2, requires_grad=True)
    assert distributed.all_gather(local) is local


def test_sum_on_one_process_is_a_copy_without_gradient() -> None:
    local = torch.ones(3, requires_grad=True)
    total = distributed.all_reduce_sum(local)
    assert not total.requires_grad
    total.add_(1)
    assert local.tolist() == [1, 1, 1]


def test_choose_device() -> None:
    assert distributed.choose_device("cpu") == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert distributed.choose_device().type == expected


def test_choose_device_takes_the_gpu_of_the_local_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert distributed.choose_device("auto") == torch.device("cuda", 2)
    assert distributed.choose_device("cuda") == torch.device("cuda", 2)
    assert distributed.choose_device("cuda:3") == torch.device("cuda", 3)
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(ConfigError, match=r"GPU number 4, and torch sees 4 GPU.*device=cpu"):
        distributed.choose_device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "", "meta", "mps"])
def test_choose_device_refuses_what_is_none(name: str) -> None:
    with pytest.raises(ConfigError, match="choices: auto, cpu, cuda"):
        distributed.choose_device(name)


def test_choose_device_without_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match="torch sees 0 GPU"):
        distributed.choose_device("cuda")


@pytest.mark.parametrize("world", [None, "1"])
def test_no_process_group_for_one_process(
    world: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if world is not None:
        monkeypatch.setenv("WORLD_SIZE", world)
    with distributed.process_group(torch.device("cpu")):
        assert not distributed.is_initialised()


def test_process_group_is_left_even_on_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: calls.append(backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("left"))
    with pytest.raises(KeyError), distributed.process_group(torch.device("cpu")):
        raise KeyError
    assert calls == ["gloo", "left"]
