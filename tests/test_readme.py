"""The README's commands, run as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(sh|python)\n(.*?)^```", README, flags=re.M | re.S)


def hub(folder, model):
    """Random weights in the layout of the Hugging Face cache, so that the real download code finds them there."""
    import timm

    torch.manual_seed(0)
    place = folder / f"models--timm--{model}"
    snapshot = place / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    network = timm.create_model(model, pretrained=False)
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, snapshot / "model.safetensors")


def waterbirds(folder):
    """A miniature of the official folder: four images of each of the twelve groups."""
    folder.mkdir()
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for i in range(48):
        y, place, split = i % 2, i // 2 % 2, i // 4 % 3
        name = f"{i % 4:03d}.Bird/{i:04d}.jpg"
        (folder / name).parent.mkdir(exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 90, (60, 80, 3)) + 80 * np.array([y, place, 0])
        Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
        lines.append(f"{i + 1},{name},{y},{split},{place},/p/{i}.jpg")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")


def mine(folder):
    folder.mkdir()
    for i in range(24):
        Image.new("RGB", (32, 32), (i * 9, 90 * (i % 2), 0)).save(folder / f"{'ab'[i % 2]}_{'xy'[i // 6 % 2]}_{i}.png")


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_every_command_of_the_readme_runs(tmp_path):
    waterbirds(tmp_path / "waterbird_complete95_forest2water2")
    mine(tmp_path / "my_images")
    commands = []
    for language, text in BLOCKS:
        if language == "python":
            name = text.partition("\n")[0].removeprefix("# ")
            assert name.endswith(".py"), f"a Python block of the README begins with its file name, not {name!r}"
            (tmp_path / name).write_text(text)
        else:
            commands += text.strip().splitlines()
    for model in sorted(set(re.findall(r"timm:([\w.]+_in\d+k)", "\n".join(commands)))):
        hub(tmp_path / "hub", model)
    bin_folder = str(Path(sys.executable).parent)
    environment = {
        **os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "HF_HUB_CACHE": str(tmp_path / "hub"),
        "HF_HUB_OFFLINE": "1",
    }  # fmt: skip
    assert any(c.startswith("embedx compare") for c in commands)
    for command in commands:
        # CI runs `make demo` and `make test` themselves; here: do the targets exist?
        make = command.startswith("make ")
        line, where = (command.replace("make ", "make --dry-run ", 1), ROOT) if make else (command, tmp_path)
        done = subprocess.run(line, shell=True, cwd=where, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "results" / "waterbirds" / "report.html").exists()
    assert (tmp_path / "cache" / "waterbirds" / "timm-convnext_base.fb_in22k.h5").exists()


def test_the_readme_names_every_command_and_the_make_targets_exist():
    from embedx.cli import main
    from embedx.studies.engine.file import names as studies

    for name in main.list_commands(None):  # pyright: ignore[reportArgumentType]
        assert f"embedx {name}" in README
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.M))
    targets |= {f"study-{name}" for name in studies()}  # of the pattern study-%
    assert set(re.findall(r"`make ([a-z0-9-]+)", README)) <= targets
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


def test_the_tests_that_the_table_of_inputs_names_are_there():
    named = re.findall(r"`(tests/\w+\.py)?::(\w+)`", (ROOT / "docs" / "input.md").read_text(encoding="utf-8"))
    assert len(named) > 60
    file = ""
    for path, name in named:
        file = path or file
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), (file, name)
