"""Work directories as a run would write them, with plausible numbers and no training."""

import json
import math
import random
from pathlib import Path

import pytest

GRID = [round(1.0 * 21 ** (i / 40), 5) for i in range(41)]


def loss_at(temperature, peak):
    """A loss with its interior maximum at `peak`, and a plateau towards large temperatures."""
    width = 0.75 if temperature < peak else 1.0
    plateau = 0.0 if temperature < peak else 0.35
    bump = math.exp(-((math.log(temperature / peak) / width) ** 2) / 2)
    return 2.4 * (plateau + (1 - plateau) * bump)


def peak_at(progress):
    """Where the adversary wants to go: it falls with the first steps, and rises at the end."""
    return 2.8 + 2.5 * math.exp(-progress * 60) + 0.8 / (1 + math.exp(-(progress - 0.66) * 25))


def temperature_at(policy, epoch, epochs, rng):
    """The policy's mean temperature after `epoch` epochs: a plunge from 15.6, then jitter."""
    if policy == "constant":
        return 4.0
    near = peak_at(epoch / epochs)
    jitter = 0.18 if epoch < 0.6 * epochs else 0.04
    return near + (15.6 - near) * math.exp(-epoch * 4) + rng.gauss(0, jitter) * min(1, epoch)


def lambda_at(epoch):
    return 0.5 * (1 - math.cos(math.pi * min(epoch, 10) / 10))


def spread(temperature):
    """The five quantiles of a per-row policy around its mean."""
    return [round(temperature * factor, 4) for factor in (0.72, 0.88, 0.99, 1.12, 1.36)]


def metrics_rows(given, rng):
    policy, epochs = given["policy"], given["epochs"]
    for epoch in range(1, epochs + 1):
        decay = math.exp(-2.2 * epoch / epochs)
        row = {"epoch": epoch, "step": epoch * 200, "lr": 0.05 if epoch <= 0.6 * epochs else 0.005}
        row |= {f"train_{name}": base * (0.3 + decay) for name, base in given["terms"].items()}
        row["train_loss"] = sum(row[f"train_{name}"] for name in given["terms"])
        row |= {"lambda": lambda_at(epoch) if policy in ("global", "instance") else None}
        row |= {"images_per_s": 812.5, "grad_norm": 1.3}
        row |= dict.fromkeys(("temperature", "temperature_low", "temperature_high"))
        evaluated = epoch % given["every"] == 0 or epoch == epochs
        if evaluated:
            rise = math.exp(-8 * epoch / epochs) + rng.uniform(0, 0.02)
            row["test_top1"] = round((given["last"] + given["gap"]) * (1 - rise), 2)
            row["test_loss"] = 1.2 + 2 * decay
            if given["validation"]:
                row["validation_top1"] = row["test_top1"] - rng.uniform(0, 0.6)
        if policy is not None:
            temperature = temperature_at(policy, epoch - 0.5, epochs, rng)
            low, high = (0.7, 1.4) if policy == "instance" else (1, 1)
            first = temperature_at(policy, epoch - 1, epochs, rng)
            row |= {"temperature": temperature, "temperature_low": low * temperature}
            row["temperature_high"] = max(high * temperature, first)
            row |= {"t_star": peak_at(epoch / epochs), "regret": 0.002} if evaluated else {}
        yield row


def landscape_rows(given, rng):
    policy, epochs, every = given["policy"], given["epochs"], given["every"]
    for epoch in [0, *range(every, epochs + 1, every)]:
        peak, temperature = peak_at(epoch / epochs), temperature_at(policy, epoch, epochs, rng)
        yield {
            "epoch": epoch,
            "temperatures": GRID,
            "losses": [loss_at(point, peak) for point in GRID],
            "t_star": peak,
            "temperature": temperature,
            "quantiles": spread(temperature) if policy == "instance" else None,
            "bounds": [1.0, 21.0] if policy != "constant" else None,
        }


def trace_lines(given, rng, steps_per_epoch=200):
    yield "step,epoch,temperature,low,high,lambda"
    policy, epochs = given["policy"], given["epochs"]
    for step in range(min(3, epochs) * steps_per_epoch):
        epoch = step / steps_per_epoch
        temperature = temperature_at(policy, epoch, epochs, rng)
        low, high = (0.72, 1.36) if policy == "instance" else (1, 1)
        lambda_ = lambda_at(int(epoch) + 1) if policy != "constant" else ""
        yield f"{step},{epoch},{temperature},{low * temperature},{high * temperature},{lambda_}"


def build(folder, **choices):
    """Writes one work directory; `choices` override the numbers that a test is about."""
    given = {
        "name": "ctkd",
        "seed": 0,
        "epochs": 12,
        "every": 1,
        "policy": "global",  # or "instance", "constant", None for a run without a teacher
        "student": "resnet20",
        "teacher": "resnet56",
        "validation": False,
        "finished": True,
        "last": 71.0,
        "gap": 0.3,  # best − last
        "method": {},
        "recipe": {},
        "terms": {"ce": 1.1, "kd": 6.0},
        "summary": {},
    } | choices
    folder = Path(folder)
    folder.mkdir(parents=True)
    rng = random.Random(given["seed"])
    (folder / "settings.json").write_text(json.dumps(settings_of(given)))
    files = {"metrics.jsonl": map(json.dumps, metrics_rows(given, rng))}
    if given["policy"] is not None:
        files["landscape.jsonl"] = map(json.dumps, landscape_rows(given, rng))
        files["temperature.csv"] = trace_lines(given, rng)
    for name, lines in files.items():
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    if given["finished"]:
        (folder / "summary.json").write_text(json.dumps(summary_of(given) | given["summary"]))
    return folder


def settings_of(given):
    recipe = {
        "Recipe.student": f"@{given['student']}",
        "Recipe.dataset": "@cifar100",
        "Recipe.epochs": given["epochs"],
        "Sgd.lr": 0.05,
    }
    method = {"Method.policy": f"@{given['policy']}", "Objective.kd_weight": 0.9}
    if given["policy"] is not None:
        recipe |= {"Teacher.network": f"@{given['teacher']}", "Teacher.fingerprint": "a1b2"}
    return {
        "name": given["name"],
        "method": method | given["method"],
        "recipe": {k: v for k, v in (recipe | given["recipe"]).items() if v != "absent"},
        "seed": {"Seed.seed": given["seed"]},
        "runtime": {"Runtime.device": "cpu"},
    }


def summary_of(given):
    best, taught = given["last"] + given["gap"], given["policy"] is not None
    summary = {"finished": True, "dataset": "cifar100", "primary": "test_top1"}
    summary |= {key: given[key] for key in ("name", "student", "seed", "epochs")}
    summary |= {"teacher": given["teacher"] if taught else None, "teacher_claimed": None}
    summary |= {"teacher_top1": 72.63 if taught else None, "steps": given["epochs"] * 200}
    summary |= {"last_top1": given["last"], "best_top1": best, "best_epoch": given["epochs"] - 1}
    if given["validation"]:
        summary |= {"chosen_top1": best - 0.1, "chosen_epoch": given["epochs"] - 2}
    return summary


@pytest.fixture
def workdir(tmp_path):
    """Builds a work directory `tmp_path/<path>` from the choices of `build`."""

    def make(path="run", **choices):
        return build(tmp_path / path, **choices)

    return make
