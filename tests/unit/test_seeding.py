"""A generator depends on what is drawn, and on nothing else."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import torch

from clic.seeding import generator, seed_torch

DRAW = "from clic.seeding import generator; print(generator(7, 'partners', 3, 5).integers(2**62))"


def test_same_in_another_process_whatever_the_hash_seed() -> None:
    expected = generator(7, "partners", 3, 5).integers(2**62)
    for hash_seed in ("0", "1"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        done = subprocess.run(
            [sys.executable, "-c", DRAW], env=environment, capture_output=True, check=True
        )
        assert int(done.stdout) == expected


def test_stream_is_pinned() -> None:
    # Runs are resumed with newer versions: the numbers may never change.
    assert generator(0, "permutation").integers(1000, size=6).tolist() == [
        406,
        978,
        140,
        736,
        899,
        398,
    ]
    assert generator(1, "x", 2, 3).integers(1000, size=6).tolist() == [325, 883, 920, 624, 89, 235]


def test_the_key_is_given_to_philox_as_it_is() -> None:
    key = np.frombuffer(hashlib.blake2b(b"1/x", digest_size=16).digest(), dtype=np.uint64)
    plain = np.random.Philox(key=key, counter=[0, 0, 3, 2]).state
    assert str(generator(1, "x", 2, 3).bit_generator.state) == str(plain)
    generator(1, "x", 2, 3).random(100)  # neither a draw nor a copy changes the next one
    copy = pickle.loads(pickle.dumps(generator(1, "x", 2, 3)))
    assert copy.random() == generator(1, "x", 2, 3).random()


def test_every_argument_matters() -> None:
    keys = [
        (seed, purpose, step, slot)
        for seed in (0, 1, -1)
        for purpose in ("a", "b")
        for step in (0, 1, 2**40)
        for slot in (0, 1)
    ]
    first = {key: generator(*key).integers(2**62, size=4).tobytes() for key in keys}
    assert len(set(first.values())) == len(keys)


def test_streams_do_not_overlap() -> None:
    # A long stream of one slot holds nothing of the next slot's, nor of the next step's.
    long = generator(0, "a").integers(2**62, size=100_000)
    for step, slot in ((0, 1), (1, 0)):
        assert not np.isin(generator(0, "a", step, slot).integers(2**62, size=8), long).any()


def test_global_state_is_not_touched() -> None:
    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    generator(0, "a").random(10)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_before)


def test_seed_torch() -> None:
    with torch.random.fork_rng():
        seed_torch(3)
        first = torch.rand(4)
        seed_torch(3)
        assert torch.equal(torch.rand(4), first)
