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


def lr_at(epoch, epochs):
    return 0.05 * 0.1 ** sum(epoch > epochs * mark for mark in (150 / 240, 180 / 240, 210 / 240))


def spread(temperature):
    """The five quantiles of a per-row policy around its mean."""
    return [round(temperature * factor, 4) for factor in (0.72, 0.88, 0.99, 1.12, 1.36)]


def accuracy_at(epoch, epochs, final, rng):
    drops = sum(epoch > epochs * mark for mark in (150 / 240, 180 / 240))
    rise = (final - 12) * (1 - math.exp(-8 * epoch / epochs)) + 6 * drops
    return min(rise + rng.gauss(0, 0.9 if drops == 0 else 0.15), final)


def metrics_rows(policy, epochs, final, validation, every, rng, terms):
    for epoch in range(1, epochs + 1):
        temperature = temperature_at(policy, epoch - 0.5, epochs, rng)
        decay = math.exp(-2.2 * epoch / epochs)
        row = {"epoch": epoch, "step": epoch * 200, "lr": lr_at(epoch, epochs)}
        row |= {f"train_{name}": base * (0.3 + decay) for name, base in terms.items()}
        row["train_loss"] = sum(row[f"train_{name}"] for name in terms)
        row |= {"lambda": lambda_at(epoch) if policy in ("global", "instance") else None}
        row |= {"images_per_s": 812.5, "grad_norm": 1.3, "temperature": None}
        row |= {"temperature_low": None, "temperature_high": None}
        if policy is not None:
            low = 0.7 * temperature if policy == "instance" else temperature
            high = 1.4 * temperature if policy == "instance" else temperature
            first = temperature_at(policy, epoch - 1, epochs, rng)
            row |= {"temperature": temperature}
            row |= {"temperature_low": low, "temperature_high": max(high, first)}
        if epoch % every == 0 or epoch == epochs:
            row["test_top1"] = round(accuracy_at(epoch, epochs, final, rng), 2)
            row["test_top5"], row["test_loss"] = row["test_top1"] + 20, 1.2 + 2 * decay
            if validation:
                row["validation_top1"] = row["test_top1"] - rng.uniform(0, 0.6)
            if policy is not None:
                row |= {"t_star": peak_at(epoch / epochs), "regret": 0.002}
            if policy == "instance":
                names = ("q05", "q25", "q50", "q75", "q95")
                quantiles = zip(names, spread(temperature), strict=True)
                row |= {f"temperature_{name}": value for name, value in quantiles}
        yield row


def landscape_rows(policy, epochs, every, rng):
    for epoch in [0, *range(every, epochs + 1, every)]:
        peak = peak_at(epoch / epochs)
        temperature = temperature_at(policy, epoch, epochs, rng)
        yield {
            "epoch": epoch,
            "temperatures": GRID,
            "losses": [loss_at(point, peak) for point in GRID],
            "t_star": peak,
            "loss_star": loss_at(peak, peak),
            "temperature": temperature,
            "regret": 1 - loss_at(temperature, peak) / loss_at(peak, peak),
            "quantiles": spread(temperature) if policy == "instance" else None,
            "bounds": [1.0, 21.0] if policy != "constant" else None,
        }


def trace_lines(policy, epochs, rng, steps_per_epoch=200):
    yield "step,epoch,temperature,low,high,lambda"
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
    policy, epochs, every = given["policy"], given["epochs"], given["every"]
    (folder / "settings.json").write_text(json.dumps(settings_of(given)))
    final = given["last"] + given["gap"]
    rows = metrics_rows(policy, epochs, final, given["validation"], every, rng, given["terms"])
    write_lines(folder / "metrics.jsonl", map(json.dumps, rows))
    if policy is not None:
        lines = map(json.dumps, landscape_rows(policy, epochs, every, rng))
        write_lines(folder / "landscape.jsonl", lines)
        write_lines(folder / "temperature.csv", trace_lines(policy, epochs, rng))
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
    best = given["last"] + given["gap"]
    summary = {
        "finished": True,
        "name": given["name"],
        "dataset": "cifar100",
        "student": given["student"],
        "teacher": given["teacher"] if given["policy"] is not None else None,
        "seed": given["seed"],
        "epochs": given["epochs"],
        "primary": "test_top1",
        "teacher_top1": 72.63 if given["policy"] is not None else None,
        "teacher_claimed": None,
        "best_top1": best,
        "best_epoch": given["epochs"] - 1,
        "last_top1": given["last"],
        "images_per_s": 812.5,
        "seconds": 100.0,
        "steps": given["epochs"] * 200,
    }
    if given["validation"]:
        summary |= {"chosen_top1": best - 0.1, "chosen_epoch": given["epochs"] - 2}
    return summary


def write_lines(path, lines):
    path.write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def workdir(tmp_path):
    """Builds a work directory `tmp_path/<place>` from the choices of `build`."""

    def make(place="run", **choices):
        return build(tmp_path / place, **choices)

    return make
