"""Means and deviations over the seeds of a multirun."""

from __future__ import annotations

from clic.cli.seed_table import last_numbers, seed_table

JOBS = [["seed=0", "optim.lr=1"], ["seed=1", "optim.lr=1"], ["seed=0", "optim.lr=2"],
        ["seed=1", "optim.lr=2"]]  # fmt: skip


def test_last_numbers() -> None:
    records = [
        {"step": 1, "loss": 3.0}, {"step": 1, "s/mean/itt": 1.0, "s/a/itt": 2.0, "s/mean/n": 9.0},
        {"step": 2, "loss": 2.0}, {"step": 2, "s/mean/itt": 4.0, "s/a/itt": 5.0, "s/mean/n": 9.0},
    ]  # fmt: skip
    assert last_numbers(records) == {"loss": 2.0, "s/mean/itt": 4.0}
    assert last_numbers([]) == {}
    recalls = [{"step": 1, "r/i2t@1": 7.0, "r/i2t@5": 8.0, "r/n_images": 3.0}]
    assert last_numbers(recalls) == {"r/i2t@1": 7.0}
    assert last_numbers([{"step": 1, "z/shape": 7.0}]) == {"z/shape": 7.0}


def test_runs_that_differ_in_their_seed_alone_make_a_row() -> None:
    numbers = [{"loss": 1.0}, {"loss": 3.0}, {"loss": 5.0}, {"loss": 5.0}]
    assert seed_table(JOBS, numbers).splitlines() == [
        "settings    number  mean  deviation  seeds",
        "optim.lr=1  loss       2        1.4      2",
        "optim.lr=2  loss       5          0      2",
    ]


def test_one_setting_needs_no_name() -> None:
    jobs = [[f"seed={n}", f"train.run_name=a-{n}"] for n in range(3)]
    numbers = [{"loss": 1.0, "s/mean/itt": 50.0 + n} for n in range(3)]
    assert seed_table(jobs, numbers).splitlines() == [
        "number      mean  deviation  seeds",
        "loss           1          0      3",
        "s/mean/itt    51          1      3",
    ]


def test_runs_that_failed_are_left_out() -> None:
    assert seed_table(JOBS[:2], [{"loss": 1.0}, {}]) == ""
    assert seed_table([["optim.lr=1"], ["optim.lr=2"]], [{"loss": 1.0}] * 2) == ""
    assert seed_table([], []) == ""
