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


def see(monkeypatch: pytest.MonkeyPatch, gpus: int, **environment: str) -> None:
    """Let torch see some GPUs, and the process be one of several."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("name", ["cuda:0", "cuda:1"])
@pytest.mark.parametrize("ranks", [{"LOCAL_WORLD_SIZE": "2"}, {"WORLD_SIZE": "2"}])
def test_one_gpu_by_number_is_refused_for_several_ranks(
    monkeypatch: pytest.MonkeyPatch, name: str, ranks: dict[str, str]
) -> None:
    see(monkeypatch, 2, LOCAL_RANK="1", **ranks)
    with pytest.raises(ConfigError, match=rf"device='{name}' would put all 2 ranks.*device=cuda"):
        distributed.choose_device(name)


def test_one_gpu_by_number_serves_a_rank_alone_on_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    see(monkeypatch, 2, WORLD_SIZE="4", LOCAL_WORLD_SIZE="1", LOCAL_RANK="0")
    assert distributed.choose_device("cuda:1") == torch.device("cuda", 1)


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_task_that_sees_one_gpu_takes_it_whatever_its_local_rank(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    see(monkeypatch, 1, WORLD_SIZE="4", LOCAL_WORLD_SIZE="4", LOCAL_RANK="3")
    assert distributed.choose_device(name) == torch.device("cuda", 0)


class NoHeartbeat:
    """Stands for the signs of life of ranks that are not there."""

    def __init__(self, *_: object) -> None: ...

    def start(self) -> None: ...

    stop = wait_for_others = start

    def silent(self) -> list[int]:
        return []


def fake_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what a process group needs of other ranks."""
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", object)
    monkeypatch.setattr(dist, "barrier", lambda group=None: None)
    monkeypatch.setattr(distributed, "_make_host_group", lambda timeout: None)
    monkeypatch.setattr(distributed, "Heartbeat", NoHeartbeat)


@pytest.mark.parametrize("uuids", [("a", "a"), ("a", "b")])
def test_ranks_that_share_their_one_gpu_are_refused(
    monkeypatch: pytest.MonkeyPatch, uuids: tuple[str, str]
) -> None:
    from types import SimpleNamespace

    see(monkeypatch, 1, WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", LOCAL_RANK="1")
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=uuids[1])
    )
    monkeypatch.setattr(dist, "init_process_group", lambda backend, timeout: None)
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    monkeypatch.setattr(dist, "new_group", lambda backend: backend)
    fake_ranks(monkeypatch)
    monkeypatch.setattr(distributed, "world_size", lambda group=None: 2)

    def gather(into: list[object], own: tuple[str, str], group: str) -> None:
        assert group == "gloo"
        into[:] = [(own[0], uuids[0]), own]

    monkeypatch.setattr(dist, "all_gather_object", gather)
    entered = []

    def enter() -> None:
        with distributed.process_group(torch.device("cuda", 0)):
            entered.append(1)

    if uuids[0] == uuids[1]:
        with pytest.raises(ConfigError, match="ranks 0, 1 see one and the same GPU"):
            enter()
    else:
        enter()
    assert bool(entered) == (uuids[0] != uuids[1])


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
    fake_ranks(monkeypatch)
    with pytest.raises(KeyError), distributed.process_group(torch.device("cpu")):
        raise KeyError
    assert calls == ["gloo", "left"]
