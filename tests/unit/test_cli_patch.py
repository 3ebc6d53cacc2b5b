"""`clic-patch` as a user types it: folders, sweeps with their plot, mistakes."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import open_clip
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from safetensors.torch import load_file, save_file

from clic import models, runs, shapes
from clic.cli.patch import main
from clic.config.patch_settings import parse_sweep
from clic.errors import ConfigError
from clic.evaluation.benchmarks.sugarcrepe import PLUS_CATEGORIES
from clic.evaluation.report import alpha_sweep

Command = Callable[..., tuple[int, str, str]]
MODEL = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 24, "width": 16, "heads": 2, "layers": 1},
}
PREPROCESS = {"size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}


def write_model(folder: Path, seed: int) -> None:
    """Write a tiny open_clip model; all seeds share the vision tower."""
    folder.mkdir(parents=True)
    torch.manual_seed(0)
    model = open_clip.model.CLIP(**MODEL)
    generator = torch.Generator().manual_seed(seed)
    state = {name: value.contiguous() for name, value in model.state_dict().items()}
    for name in ("token_embedding.weight", "text_projection"):
        state[name] = torch.randn(state[name].shape, generator=generator) / 4
    save_file(state, folder / runs.OPEN_CLIP_WEIGHTS)
    config = {"model_cfg": MODEL, "preprocess_cfg": PREPROCESS}
    (folder / runs.OPEN_CLIP_CONFIG).write_text(json.dumps(config))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run that keeps its own base, in the current folder's runs/."""
    folder = tmp_path / "runs" / "shapes-1"
    write_model(folder / runs.BASE, seed=1)
    write_model(folder / runs.MODEL, seed=2)
    (folder / runs.CONFIG_FILE).write_text("name: shapes\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    return folder


@pytest.fixture
def clic_patch(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stopped:
            main(words)
        captured = capsys.readouterr()
        assert isinstance(stopped.value.code, int)
        return stopped.value.code, captured.out, captured.err

    return call


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / runs.OPEN_CLIP_WEIGHTS)


def test_the_newest_run_is_patched(clic_patch: Command, run: Path) -> None:
    code, out, err = clic_patch("--alpha", "0.5")
    assert code == 0
    assert "wrote runs/shapes-1/patched/alpha-0.50" in out
    assert "runs/shapes-1, the newest finished one" in err
    base, tuned, mixed = (
        weights(run / name)["text_projection"] for name in ("base", "model", "patched/alpha-0.50")
    )
    assert torch.equal(mixed, 0.5 * base + 0.5 * tuned)


def test_ends_are_the_models_themselves(clic_patch: Command, run: Path) -> None:
    code, _, _ = clic_patch("--run", "runs/shapes-1", "--alpha", "0,1")
    assert code == 0
    for alpha, name in ((0, runs.BASE), (1, runs.MODEL)):
        mixed = run / runs.PATCHED / runs.alpha_folder(alpha) / runs.OPEN_CLIP_WEIGHTS
        assert mixed.read_bytes() == (run / name / runs.OPEN_CLIP_WEIGHTS).read_bytes()


def test_two_models_and_a_folder(clic_patch: Command, run: Path, tmp_path: Path) -> None:
    pair = ("--base", str(run / runs.BASE), "--tuned", "runs/shapes-1")
    assert clic_patch(*pair, "--out", "one", "--alpha", "0.5")[0] == 0
    assert clic_patch(*pair, "--out", "two", "--alpha", "0.5", "--alpha", "0.75")[0] == 0
    half = weights(tmp_path / "one")
    assert torch.equal(
        half["text_projection"], weights(tmp_path / "two/alpha-0.50")["text_projection"]
    )
    assert (tmp_path / "two" / "alpha-0.75" / runs.OPEN_CLIP_CONFIG).is_file()


@pytest.mark.parametrize(("mode", "written"), [("squash", True), ("longest", False)])
def test_a_folder_for_transformers_or_nothing(
    clic_patch: Command, run: Path, tmp_path: Path, mode: str, written: bool
) -> None:
    """What transformers cannot do with images is refused before a patch is written."""
    for name in (runs.BASE, runs.MODEL):
        path = run / name / runs.OPEN_CLIP_CONFIG
        config = json.loads(path.read_text())
        config["preprocess_cfg"]["resize_mode"] = mode
        path.write_text(json.dumps(config))
    code, _, err = clic_patch("--alpha", "1", "--to", "hf", "--out", "hf")
    assert (tmp_path / "hf" / "config.json").is_file() == written
    assert (tmp_path / "hf").exists() == written
    assert code == (0 if written else 2)
    assert ("resize_mode=longest" in err) != written


def test_a_report_of_other_weights_is_refused_before_a_patch_is_written(
    clic_patch: Command, run: Path, tmp_path: Path
) -> None:
    assert clic_patch("--alpha", "0.5", "--out", "hub")[0] == 0
    sha256 = models.identity(models.create(str(tmp_path / "hub")))["weights_sha256"]
    form = {"model": {"name": "mine", "weights_sha256": sha256},
            "provenance": {"name": "mine", "benchmarks": {}}, "benchmarks": {}}  # fmt: skip
    (tmp_path / "mine.json").write_text(json.dumps(form))
    card = ("--card", "--results", "mine.json")
    for out in ("hub", "new"):  # an earlier patched model, and a folder that is not there
        code, _, err = clic_patch("--alpha", "0.75", "--out", out, *card)
        assert code == 2 and f"of other weights than {out} would have" in err
    assert not (tmp_path / "new").exists() and not (tmp_path / "hub" / "README.md").exists()
    assert models.identity(models.create(str(tmp_path / "hub")))["weights_sha256"] == sha256
    code, _, err = clic_patch("--alpha", "0.5,0.75", "--out", "new", *card)
    assert code == 2 and "give one alpha" in err and not (tmp_path / "new").exists()
    assert clic_patch("--alpha", "0.5", "--out", "hub", *card)[0] == 0
    assert "\n# hub\n" in (tmp_path / "hub" / "README.md").read_text()


def test_a_card_is_written_with_the_model(
    clic_patch: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clic_patch("--alpha", "1", "--out", "hub", "--card", "--to", "hf")[0] == 0
    assert "library_name: transformers" in (tmp_path / "hub" / "README.md").read_text()
    code, _, err = clic_patch("--alpha", "1", "--out", "new", "--card", "--results", "no.json")
    assert code == 2 and "no.json" in err and not (tmp_path / "new").exists()
    code, _, err = clic_patch("--alpha", "1", "--out", "new", "--results", "no.json")
    assert code == 2 and "--results has no effect without --card" in err
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = clic_patch("--alpha", "1", "--out", "new", "--to", "onnx")
    assert code == 2 and "clic[onnx]" in err and not (tmp_path / "new").exists()


def test_a_run_whose_base_is_elsewhere_takes_a_named_one(
    clic_patch: Command, run: Path, tmp_path: Path
) -> None:
    (run / runs.BASE).rename(tmp_path / "base")
    (run / runs.PROVENANCE_FILE).write_text(json.dumps({"base": str(tmp_path / "gone")}))
    code, _, err = clic_patch("--alpha", "0")
    assert code == 2
    assert "gone, which no longer exists" in err and "--base" in err
    assert clic_patch("--alpha", "0", "--base", "base")[0] == 0
    written = run / runs.PATCHED / runs.alpha_folder(0) / runs.OPEN_CLIP_WEIGHTS
    assert written.read_bytes() == (tmp_path / "base" / runs.OPEN_CLIP_WEIGHTS).read_bytes()


def test_a_sweeps_folder_is_tried_before_the_evaluation(clic_patch: Command, run: Path) -> None:
    (run / "file").touch()
    code, _, err = clic_patch("--sweep", "0,1", "--bench", "shapes++", "--out", f"{run}/file/out")
    assert code == 2
    assert "is not a folder; name another one" in err.splitlines()[-1]


def test_sweep(clic_patch: Command, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "triplets", partial(shapes.triplets, per_category=20))
    code, out, _ = clic_patch("--sweep", "0:1:0.5", "--bench", "shapes", "--batch-size", "200")
    assert code == 0
    assert "ITT" in out and "P1" in out and "alpha" in out
    assert "image_to_text@1" in out
    assert max(map(len, out.splitlines())) <= 80
    content = json.loads((run / runs.SWEEP_FILE).read_text())
    assert [entry["alpha"] for entry in content["alphas"]] == [0, 0.5, 1]
    assert content["base"] == str(Path("runs/shapes-1") / runs.BASE)
    hashes = {entry["model"]["weights_sha256"] for entry in content["alphas"]}
    assert len(hashes) == 3
    assert all(entry["benchmarks"]["shapes++"]["mean"]["n"] == 120 for entry in content["alphas"])
    for name in (runs.SWEEP_PICTURE, runs.TRADE_OFF_PICTURE):
        with Image.open(run / name) as picture:
            assert picture.width > 600 and picture.height > 400
        assert "</svg>" in (run / name).with_suffix(".svg").read_text()
    lines = list(csv.DictReader((run / runs.SWEEP_TABLE).read_text().splitlines()))
    assert {line["model"] for line in lines} == {"alpha 0.00", "alpha 0.50", "alpha 1.00"}
    assert not list(run.glob(".sweep-*"))


def test_a_sweep_may_go_beyond_the_tuned_model(
    clic_patch: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alphas from 0 to 1 stand beside the one that needs the flag; a step may be above 1, too."""
    monkeypatch.setattr(shapes, "triplets", partial(shapes.triplets, per_category=20))
    for sweep, alphas in (("0:1.5:0.75", [0, 0.75, 1.5]), ("0:2:2", [0, 2])):
        words = ("--sweep", sweep, "--extrapolate", "--bench", "shapes++", "--batch-size", "200")
        assert clic_patch(*words)[0] == 0
        content = json.loads((run / runs.SWEEP_FILE).read_text())
        assert [entry["alpha"] for entry in content["alphas"]] == alphas


def test_several_alphas_of_which_one_is_beyond(clic_patch: Command, run: Path) -> None:
    assert clic_patch("--alpha", "0.5,1.5", "--extrapolate")[0] == 0
    assert {path.name for path in (run / runs.PATCHED).iterdir()} >= {"alpha-0.50", "alpha-1.50"}


def test_a_sweep_chooses_by_one_split_and_reports_another(
    clic_patch: Command, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "triplets", partial(shapes.triplets, per_category=20))
    monkeypatch.setattr(shapes, "retrieval", partial(shapes.retrieval, size=40))
    words = ("--sweep", "0:1:0.5", "--no-cache", "--select", "shapes++@val,shapes-retrieval@val")
    report = ("--report", "shapes++,shapes-retrieval", "--max-drop", "100", "--keep-best")
    code, out, _ = clic_patch(*words, *report)
    assert code == 0
    content = json.loads((run / runs.SWEEP_FILE).read_text())
    choice = content["choice"]
    points = {point["alpha"]: point for point in choice["points"]}
    best = max(points, key=lambda alpha: (points[alpha]["composed"], -alpha))
    assert choice["alpha"] == best
    for entry in content["alphas"]:
        numbers = entry["benchmarks"]
        point = points[entry["alpha"]]
        assert point["composed"] == numbers["shapes++@val"]["mean"]["itt"]
        recall = [numbers["shapes-retrieval@val"][f"{way}@1"] for way in
                  ("image_to_text", "text_to_image")]  # fmt: skip
        assert point["kept"] == pytest.approx(sum(recall) / 2)
    assert 0 < choice["certainty"] <= 1 and choice["low"] <= best <= choice["high"]
    assert f"chosen: alpha {best:g}, the largest gain" in out
    kept = run / runs.PATCHED / runs.alpha_folder(best)
    assert json.loads((kept / "patch.json").read_text())["alpha"] == best


def test_a_sweep_with_a_missing_model_leaves_no_folder(
    clic_patch: Command, run: Path, tmp_path: Path
) -> None:
    words = ("--sweep", "0,1", "--bench", "shapes++", "--out", "new/sweep", "--tuned", "gone")
    code, _, err = clic_patch(*words, "--base", str(run / runs.BASE))
    assert code == 2 and "gone" in err
    assert not (tmp_path / "new").exists()


def test_parts_are_listed_and_need_a_folder(clic_patch: Command, run: Path, tmp_path: Path) -> None:
    words = ("--alpha-text", "0.5", "--alpha-vision", "0", "--alpha", r"mlp\.c_fc,{0,1}=1")
    code, _, err = clic_patch(*words)
    assert code == 2 and "needs --out DIR" in err
    code, out, _ = clic_patch(*words, "--out", "parts")
    assert code == 0
    table = [line.split() for line in out.splitlines()]
    assert [row[:2] for row in table if row[:1] == ["vision"]] == [["vision", "0"]]
    tensors = [int(row[-2]) for row in table if len(row) >= 4 and row[-2].isdecimal()]
    assert sum(tensors) == len(weights(tmp_path / "parts"))
    code, _, err = clic_patch("--alpha", "0.5", "--alpha", "nowhere=1", "--out", "other")
    assert code == 2 and "'nowhere' takes no tensor" in err
    assert not (tmp_path / "other").exists()


def test_a_soup(clic_patch: Command, run: Path, tmp_path: Path) -> None:
    pair = (str(run / runs.BASE), "runs/shapes-1")
    code, out, _ = clic_patch("--soup", *pair, "out=soup")
    assert (code, out) == (0, "wrote soup\n")
    base, tuned, mixed = (
        weights(folder)["text_projection"] for folder in (run / "base", run / "model", Path("soup"))
    )
    assert torch.allclose(mixed, 0.5 * base + 0.5 * tuned, atol=1e-7)
    words = ("--method", "weights", "--weights", "0.25,0.75", "--out", "soup")
    assert clic_patch("--soup", *pair, *words)[0] == 0
    assert torch.allclose(weights(Path("soup"))["text_projection"], 0.25 * base + 0.75 * tuned)
    assert json.loads((tmp_path / "soup" / "patch.json").read_text())["weights"] == [0.25, 0.75]


def test_a_greedy_soup(
    clic_patch: Command, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shapes, "triplets", partial(shapes.triplets, per_category=20))
    words = ("--method", "greedy", "--select", "shapes++@val", "--no-cache", "--out", "soup")
    code, out, _ = clic_patch("--soup", str(run / runs.BASE), "runs/shapes-1", *words)
    assert code == 0
    steps = json.loads((tmp_path / "soup" / "patch.json").read_text())["steps"]
    assert steps[0]["taken"] and len(steps) == 2
    assert steps[0]["alone"] >= steps[1]["alone"]
    assert steps[1]["taken"] == (steps[1]["together"] >= steps[0]["together"])
    assert f"{steps[0]['alone']:.1f} alone" in out and out.endswith("wrote soup\n")


def test_lines_of_a_picture() -> None:
    triplets = {"a_b": {"itt": 1.0, "tot": 2.0, "n": 5}, "mean": {"itt": 3.0, "tot": 4.0, "n": 5}}
    lines = alpha_sweep.lines_of([triplets, triplets], ["mean"])
    assert [(line.label, line.values) for line in lines] == [
        ("mean ITT", [3.0, 3.0]),
        ("mean TOT", [4.0, 4.0]),
    ]
    retrieval = {"image_to_text@1": 5.0, "image_to_text@5": 6.0, "n_images": 7}
    assert [line.label for line in alpha_sweep.lines_of([retrieval])] == ["image to text@1"]
    assert [line.name for line in alpha_sweep.lines_of([retrieval])] == ["image_to_text@1"]
    zero_shot = {"shape": 5.0, "pair": 6.0, "n_images": 7}
    assert [line.label for line in alpha_sweep.lines_of([zero_shot])] == ["shape", "pair"]


def test_categories_of_one_word_are_no_means(tmp_path: Path) -> None:
    """`shapes-relations` has a category `above`, and more categories than there are colours."""
    entry = {"itt": 3.0, "tot": 4.0, "p1": 5.0, "n": 5}
    names = [f"word{i}" for i in range(9)]
    numbers = {"relations": dict.fromkeys([*names, "phrases", "mean"], entry)}
    groups = {"phrases": names, "mean": names}
    result = {
        "alpha": 0.5,
        "benchmarks": numbers,
        "provenance": {"benchmarks": {"relations": {"groups": groups}}},
    }
    (table,) = alpha_sweep.tables([result])
    headers = ["alpha", "ITT mean", "TOT mean", "ITT phrases", "TOT phrases", "P1 mean"]
    assert [str(column.header).replace("\n", " ") for column in table.columns] == headers
    alpha_sweep.draw([result], "title", tmp_path / "sweep.png")
    assert len(alpha_sweep.lines_of([numbers["relations"]], [*names, "mean"])) == 20


def test_tables_of_a_sweep_name_measures_as_the_evaluation_does() -> None:
    entry = {"itt": 3.0, "tot": 4.0, "p1": 5.0, "n": 5}
    numbers = {"a++": {"a_b": entry, "swap": entry, "mean": entry}, "r": {"text_to_image@1": 6.0}}
    sources = {"a++": {"groups": {"swap": ["a_b"], "mean": ["a_b"]}}, "r": {}}
    provenance = {"benchmarks": sources}
    triplets, retrieval = alpha_sweep.tables(
        [{"alpha": 0.5, "benchmarks": numbers, "provenance": provenance}]
    )
    headers = ["alpha", "ITT mean", "TOT mean", "ITT swap", "TOT swap", "P1 mean"]
    assert [str(column.header).replace("\n", " ") for column in triplets.columns] == headers
    assert list(triplets.columns[-1].cells) == ["5.0"]
    assert [column.header for column in retrieval.columns] == ["alpha", "text_to_image@1"]


def test_markers_at_100_percent_have_head_room() -> None:
    axis = Figure().subplots()
    numbers = {"shape": 100.0, "n_images": 7}
    alpha_sweep._panel(axis, "zero-shot", [0.0], alpha_sweep.lines_of([numbers]))
    assert axis.get_ylim()[1] > 100
    assert max(axis.get_yticks()) == 100


def test_a_sweep_leaves_out_rows_of_missing_images(
    clic_patch: Command, run: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    (data / "coco" / "val2017").mkdir(parents=True)
    (data / "sugarcrepe_pp").mkdir()
    Image.new("RGB", (8, 8)).save(data / "coco" / "val2017" / "here.jpg")
    captions = {"caption": "a cat", "caption2": "one cat", "negative_caption": "a dog"}
    rows = [{"filename": f"{name}.jpg", **captions} for name in ("here", "gone")]
    for category in PLUS_CATEGORIES:
        (data / "sugarcrepe_pp" / f"{category}.json").write_text(json.dumps(rows))
    words = ("--sweep", "0,1", "--bench", "sugarcrepe++", "--data", str(data))
    code, _, err = clic_patch(*words)
    assert code == 2
    assert "--allow-missing" in err and "clic-eval --text-only" in err
    code, out, _ = clic_patch(*words, "--allow-missing")
    assert code == 0
    assert "a covered subset of 5 rows of 10; 1 images missing or broken" in out


@pytest.mark.parametrize(
    ("parts", "alphas"),
    [
        (["0:1:0.25"], [0, 0.25, 0.5, 0.75, 1]),
        (["0:0.3:0.1"], [0, 0.1, 0.2, 0.3]),
        (["1", "0", "0.5", "0.5"], [0, 0.5, 1]),
        (["0.2:0.9:0.5", "1"], [0.2, 0.7, 1]),
    ],
)
def test_alphas_of_a_sweep(parts: list[str], alphas: list[float]) -> None:
    assert parse_sweep(parts) == alphas


@pytest.mark.parametrize("part", ["0:1", "0:1:0", "1:0:0.5", "0:2:0.5", "a", "0:1:0.1:2"])
def test_wrong_sweeps(part: str) -> None:
    with pytest.raises(ConfigError, match="sweep"):
        parse_sweep([part])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing to do"),
        (["--alpha", "1.5"], "alpha=1.5 lies outside 0..1"),
        (["--alpha", "-0.1"], "alpha=-0.1 lies outside 0..1"),
        (["--alpha", "nan"], "outside 0..1"),
        (["--alpha", "half"], "alpha=half is not a number"),
        (["--soup", "a", "b"], "--soup needs --out DIR"),
        (["--soup", "a", "b", "--out", "o", "--alpha", "1"], "alpha=1 has no effect with --soup"),
        (["--soup", "a", "b", "--out", "o", "--bench", "shapes"], "bench=shapes has no effect wi"),
        (["--alpha", "0.5", "--method", "ties"], "method=ties has no effect without --soup"),
        (["--soup", "a", "b", "--out", "o", "--method", "tise"], "did you mean 'ties'"),
        (["--alpha", "x=half"], "alpha=x=half is not a number"),
        (["--alpha-text", "2", "--out", "o"], "alpha_text=2.0 lies outside 0..1"),
        (["--alpha-depth", "0.5", "--out", "o"], "alpha_depth=0.5 is not first:last"),
        (["--alpha", "0.5", "--extrapolate"], "extrapolate has no effect"),
        (["--alpha", "0.5,1", "--extrapolate"], "extrapolate has no effect"),
        (["--sweep", "0:1:-0.5", "--bench", "shapes", "--extrapolate"], "step be above 0"),
        (["--alpha", "0.5", "--keep-best"], "keep_best=True has no effect without --sweep"),
        (["--sweep", "0,1", "--bench", "shapes", "--report", "shapes"], "report=shapes has no eff"),
        (["--sweep", "0,1", "--bench", "shapes", "--select", "shapes"], "bench has no effect besi"),
        (["--sweep", "0,1", "--select", "shapes++", "--report", "shapes"], "are the same rows"),
        (["--sweep", "0,1", "--select", "shapes-retrieval@val"], "is preserved alone"),
        (["--sweep", "0.5,1", "--select", "shapes@val"], "needs alpha 0 in the sweep"),
        (["--sweep", "0,1", "--select", "shapes++", "--max-drop", "2"], "max_drop has no effect"),
        (["--sweep", "0,1", "--select", "shapes++", "--max-drop", "-1"], "max_drop=-1.0 must be"),
        (["--sweep", "0,1", "--select", "shapes/mean/itt"], "is a group; name one of its members"),
        (["alpha=2"], "alpha=2 lies outside"),
        (["--sweep", "0:1:0.5"], "--sweep needs --bench"),
        (["--alpha", "0.5", "--bench", "shapes"], "bench=shapes has no effect without --sweep"),
        (["--alpha", "0.5", "--allow-missing"], "allow_missing=True has no effect without --sweep"),
        (["--alpha", "0.5", "--tuned", "x"], "--tuned needs --base and --out"),
        (["--alpha", "0.5", "--run", "runs/shapes-2"], "did you mean 'shapes-1'"),
        (["--alpha", "0.5", "--run", "runs/shapes-1/model"], "is a model and not a run"),
        (["--sweep", "0:1:0.5", "--bench", "shape"], "did you mean 'shapes'"),
        (["--alhpa", "0.5"], "did you mean '--alpha'"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    clic_patch: Command, run: Path, words: list[str], message: str
) -> None:
    code, out, err = clic_patch(*words)
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("clic-patch: error: ")
    assert message in last
    assert not (run / runs.PATCHED).exists()


def test_without_a_run_it_says_what_to_do(
    clic_patch: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = clic_patch("--alpha", "0.5")
    assert code == 2
    assert "no finished run" in err and "clic-train" in err and "--base" in err
