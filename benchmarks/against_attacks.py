"""Measure `evaluate` beside the attacks of torchattacks and adv-lib, on the same torch models.

python benchmarks/against_attacks.py                       all tables: about three hours on two cores
python benchmarks/against_attacks.py --only bounds norms   some of: bounds, norms, defences, time, workers
python benchmarks/against_attacks.py --data digits --kind linf --samples 40
python benchmarks/against_attacks.py --only norms --write  into against_attacks.json and docs/robustness.md

The models are convolutional networks for 8 x 8 digits and for crops of photographs, plain and adversarially
trained, made here in a minute each. A sample counts as broken by a peer if any of its attacks breaks it.
"""

import argparse
import json
import re
import sys
import time
import types
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from preshield import (
    FeatureSqueezing,
    GaussianAugmentation,
    GaussianBlur,
    JpegCompression,
    PixelDeflection,
    SpatialSmoothing,
    TotalVarMin,
    WaveletDenoising,
    as_torch_module,
    evaluate,
)
from preshield.evaluation.bounded_attack import bounded_attack
from preshield.evaluation.classifiers import as_classifier
from preshield.evaluation.defended import DefendedModel
from preshield.evaluation.gradients import gradient_variants
from preshield.evaluation.oracle import Oracle
from preshield.evaluation.photographs import bundled_photographs, cut_crops

nn = torch.nn
UNIT = (0.0, 1.0)
BOUNDS = {
    ("digits", "linf"): 0.1767,
    ("digits", "l2"): 0.97,
    ("crops", "linf"): 8 / 255,
    ("crops", "l2"): 0.5,
}
AUTOATTACK = 1900  # gradients that the published suite asks for, for a sample that it does not break
BUDGET = 100
OF_DEFENCES = 64  # samples behind defences
STORE = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs/robustness.md"
BETWEEN = re.compile(r"(?<=<!-- against -->\n).*(?=<!-- /against -->)", re.DOTALL)
# Memory that a model frees stays with the process: Dask's own setting would return it at each call.
OF_WORKERS = {"MALLOC_MMAP_THRESHOLD_": 2**25, "MALLOC_TRIM_THRESHOLD_": 2**28, "OMP_NUM_THREADS": 1}
SWITCHED_OFF = {"verbose": False, "columns": ["adaptive"]}


def peers() -> tuple[Any, Any]:
    """The packages torchattacks and adv_lib; what they import for other purposes may be missing."""
    for name, members in (("torchvision", ("models", "transforms", "datasets")), ("visdom", ("Visdom",))):
        try:
            __import__(name)
        except (ImportError, RuntimeError):  # the latter of a build for another torch
            stand_in = types.ModuleType(name)
            for member in members:
                setattr(stand_in, member, types.SimpleNamespace())
            for loaded in [key for key in sys.modules if key.split(".")[0] == name]:
                del sys.modules[loaded]
            sys.modules[name] = stand_in
    import adv_lib.attacks
    import torchattacks

    return torchattacks, adv_lib.attacks


# Models


def samples_of(data: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training and test samples, channels first, in another order than they come in."""
    if data == "digits":
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.images))
        x, y = (digits.images[order, None] / 16).astype(np.float32), digits.target[order]
        return x[:1300], y[:1300], x[1300:], y[1300:]
    task = cut_crops(bundled_photographs(), train_per_class=200, test_per_class=40)
    x, tested = (np.moveaxis(a, -1, 1).astype(np.float32, order="C") for a in (task.x_train, task.x_test))
    order = np.random.default_rng(0).permutation(len(tested))
    return x, np.array(task.y_train), tested[order], np.array(task.y_test)[order]


def network(channels: int, classes: int, side: int) -> Any:
    layers, width = [], channels
    for filters in (32, 64) if side < 16 else (32, 64, 64):
        layers += [nn.Conv2d(width, filters, 3, padding=1), nn.ReLU()]
        layers += [nn.Conv2d(filters, filters, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        width, side = filters, side // 2
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(width * side**2, 64), nn.ReLU(), nn.Linear(64, classes)
    )


def trained(data: str, kind: str, samples: int) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """A network, plain or trained on projected gradient descent in a norm, and test samples for it."""
    model, tested, labels = trained_once(data, kind)
    return model, tested[:samples], labels[:samples]


@cache
def trained_once(data: str, kind: str) -> tuple[Any, torch.Tensor, torch.Tensor]:
    x, y, tested, labels = samples_of(data)
    torch.manual_seed(0)
    model = network(x.shape[1], int(y.max()) + 1, x.shape[-1])
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    batch, target = torch.from_numpy(x), torch.from_numpy(y)
    for _ in range(40 if data == "digits" else 15):
        for rows in torch.randperm(len(batch)).split(64):
            seen = batch[rows]
            if kind != "plain":
                seen = descent(
                    model, seen, target[rows], kind, BOUNDS[data, kind], 7 if data == "digits" else 4
                )
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(seen), target[rows]).backward()
            optimiser.step()
    model.eval().requires_grad_(False)
    return model, torch.from_numpy(tested), torch.from_numpy(labels)


def descent(model: Any, x: torch.Tensor, y: torch.Tensor, norm: str, eps: float, steps: int) -> torch.Tensor:
    """What the network is trained on."""
    moved = x.clone()
    for _ in range(steps):
        moved.requires_grad_()
        (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(moved), y), moved)
        with torch.no_grad():
            if norm == "linf":
                delta = (moved + eps / 3 * gradient.sign() - x).clamp(-eps, eps)
            else:
                length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)[:, None, None, None]
                delta = moved + eps / 3 * gradient / length - x
                delta = (
                    delta
                    * (eps / delta.flatten(1).norm(dim=1).clamp_min(1e-12)).clamp_max(1)[:, None, None, None]
                )
            moved = (x + delta).clamp(0, 1)
    return moved.detach()


# Tables


def right(model: Any, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    with torch.no_grad():
        return (model(x).argmax(1) == y).numpy()


def left_by_autoattack(model: Any, x: torch.Tensor, y: torch.Tensor, norm: str, eps: float) -> np.ndarray:
    """Samples that AutoAttack of torchattacks does not break."""
    torchattacks, _ = peers()
    classes = model(x[:1]).shape[1]
    left = right(model, x, y)
    attack = torchattacks.AutoAttack(
        model, norm={"linf": "Linf", "l2": "L2"}[norm], eps=eps, n_classes=classes
    )
    left[left] &= right(model, attack(x[left], y[left]), y[left])
    return left


def bounds(samples: int, models: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Robust accuracy within a bound."""
    rows = []
    for data, kind in models:
        model, x, y = trained(data, kind, samples)
        for norm in ("linf", "l2") if kind == "plain" else (kind,):
            eps = BOUNDS[data, norm]
            whole = left_by_autoattack(model, x, y, norm, eps)
            _, adv_lib = peers()
            start = right(model, x, y)
            targeted = start.copy()
            moved = adv_lib.apgd_targeted(
                model, x[start], y[start], eps, {"linf": float("inf"), "l2": 2}[norm]
            )
            targeted[start] = right(model, moved, y[start])
            row = {
                "model": f"{data}, {kind}",
                "norm": norm,
                "clean": start.mean(),
                "AutoAttack": whole.mean(),
            }
            row["APGD-T, 9 x 100"] = targeted.mean()
            for budget in (BUDGET, AUTOATTACK):
                report = evaluate(
                    model, x.numpy(), y.numpy(), {}, threat=norm, eps=eps, budget=budget, **SWITCHED_OFF
                )
                ours = report["none"]
                row[f"evaluate, {budget}"] = ours.worst_case
                row[f"kept at {budget}"] = int(((ours.correct > 0) & ~whole).sum())
                row[f"broken at {budget}"] = int(((ours.correct == 0) & whole).sum())
                column = ours.columns["adaptive"]
                row[f"forward, backward at {budget}"] = [column.forward.mean(), column.backward.mean()]
            rows.append(row)
            show(row)
    return rows


def smallest(samples: int, models: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Median smallest norms: the peers at 100 gradients, and `evaluate`."""
    _, adv_lib = peers()
    rows = []
    for data, kind in models:
        model, x, y = trained(data, kind, samples)
        for norm in ("l2", "linf"):
            start = right(model, x, y)
            p = {"l2": 2, "linf": float("inf")}[norm]
            moved = {"FMN": adv_lib.fmn(model, x, y, norm=p, steps=BUDGET)}
            if norm == "l2":
                moved["DDN"] = adv_lib.ddn(model, x, y, steps=BUDGET, levels=None)
                moved["ALMA"] = adv_lib.alma(model, x, y, distance="l2", num_steps=BUDGET)
            row: dict[str, Any] = {"model": f"{data}, {kind}", "norm": norm}
            for name, points in moved.items():
                sizes = (points.detach() - x).flatten(1).norm(p=p, dim=1).numpy()
                row[name] = float(np.median(np.where(right(model, points, y), np.inf, sizes)[start]))
            for budget in (30, BUDGET, 3 * BUDGET):
                report = evaluate(
                    model, x.numpy(), y.numpy(), {}, threat=f"{norm}-minimum", budget=budget, **SWITCHED_OFF
                )
                column = report["none"].columns["adaptive"]
                row[f"evaluate, {budget}"] = float(np.median(column.norms[start]))
                row[f"forward, backward at {budget}"] = [column.forward.mean(), column.backward.mean()]
            rows.append(row)
            show(row)
    return rows


def shown_defences() -> dict[str, Any]:
    """The defences of the third table, for crops (N, 3, 32, 32) in [0, 1]."""
    first = {"channels_first": True}
    return {
        "JPEG 75": JpegCompression(UNIT, quality=75, **first),
        "JPEG 50": JpegCompression(UNIT, quality=50, **first),
        "JPEG 25": JpegCompression(UNIT, quality=25, **first),
        "squeezing, 3 bits": FeatureSqueezing(UNIT, 3),
        "median 3x3": SpatialSmoothing(3, **first),
        "blur 5x5": GaussianBlur(5, **first),
        "wavelets": WaveletDenoising(UNIT, **first),
        "deflection, 20 pixels": PixelDeflection(UNIT, 20, 3, denoiser=None, rng=0, **first),
        "noise, sigma 0.05": GaussianAugmentation(
            0.05, augmentation=False, clip_values=UNIT, apply_fit=False, apply_predict=True, rng=0
        ),
        "total variation": TotalVarMin(0.3, clip_values=UNIT, rng=0, **first),
    }


def behind_defences(samples: int, models: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Adversarially trained crops behind a defence, L-infinity 8/255: the best of APGD-CE, APGD-DLR and
    APGD-T through any of its gradients, and `evaluate` with a budget of 100; then the smallest L2 norms
    beside DDN.
    """
    torchattacks, adv_lib = peers()
    model, x, y = trained("crops", "linf", samples)
    eps, rows = BOUNDS["crops", "linf"], []
    for name, defence in shown_defences().items():
        stochastic = defence.stochastic
        left, norms = right_behind(model, defence, x, y), None
        start, norms = left.copy(), np.full(len(x), np.inf)
        for variant in gradient_variants(defence):
            defended = nn.Sequential(as_torch_module(variant), model).eval()
            for loss in ("ce", "dlr"):
                attack = torchattacks.APGD(
                    defended, norm="Linf", eps=eps, steps=100, loss=loss, eot_iter=8 if stochastic else 1
                )
                left &= right_behind(model, defence, attack(x, y), y)
            if not stochastic:
                moved = adv_lib.apgd_targeted(defended, x, y, eps, float("inf"), num_targets=9, n_iter=50)
                left &= right_behind(model, defence, moved, y)
                moved = adv_lib.ddn(defended, x, y, steps=BUDGET, levels=None).detach()
                sizes = (moved - x).flatten(1).norm(dim=1).numpy()
                norms = np.minimum(norms, np.where(right_behind(model, defence, moved, y), np.inf, sizes))
        settings = {"eot": 8, "budget": BUDGET, "clip_values": UNIT, "verbose": False}
        columns = {"columns": ["oblivious", "shared", "adaptive"]}
        report = evaluate(
            model, x.numpy(), y.numpy(), {name: defence}, threat="linf", eps=eps, **settings, **columns
        )
        ours = report[name]
        row = {"defence": name, "clean": start.mean(), "peers": left.mean(), "evaluate": ours.worst_case}
        row["broken by peers, kept"] = int(((ours.correct > 0.5) & ~left).sum())
        if not stochastic:
            small = evaluate(model, x.numpy(), y.numpy(), {name: defence}, **settings, **columns)
            row["median L2, DDN"], row["median L2, evaluate"] = (
                float(np.median(sizes[start])) for sizes in (norms, small[name].norms)
            )
            row["ratio"] = small.median_norm(name)[1]
        rows.append(row)
        show(row)
    return rows


def right_behind(model: Any, defence: Any, x: torch.Tensor, y: torch.Tensor) -> np.ndarray:
    """Which samples most of 16 draws get right behind a defence."""
    draws = 16 if defence.stochastic else 1
    votes = [right(model, torch.from_numpy(defence.transform(x.detach().numpy())), y) for _ in range(draws)]
    return np.mean(votes, axis=0) > 0.5


def timed(samples: int, models: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Time of our attack beside APGD of adv-lib, at equal gradients of samples that cannot be broken."""
    _, adv_lib = peers()
    rows = []
    for data in ("digits", "crops"):
        model, x, y = trained(data, "linf", samples)
        eps = 1e-4  # nothing is broken, and so nothing leaves
        keep = right(model, x, y)
        x, y = x[keep], y[keep]
        classifier = as_classifier(model, x[:2].numpy())
        facts = {"clip_values": UNIT, "nb_classes": classifier.nb_classes, "input_shape": tuple(x.shape[1:])}
        ours, theirs = [], []
        for _ in range(5):
            oracle = Oracle(
                DefendedModel(classifier, **facts), classifier.array(x), y.numpy(), np.arange(len(x)), (0,)
            )
            start = time.perf_counter()
            bounded_attack(oracle, norm="linf", eps=eps, budget=BUDGET)
            ours.append((time.perf_counter() - start) / oracle.backward.mean())
            start = time.perf_counter()
            adv_lib.apgd(model, x, y, eps, float("inf"), n_iter=BUDGET)
            theirs.append((time.perf_counter() - start) / BUDGET)
        row = {"model": data, "ours, ms a gradient": 1000 * median(ours), "adv-lib": 1000 * median(theirs)}
        row["ratio"] = median(ours) / median(theirs)
        rows.append(row)
        show(row)
    return rows


def workers(samples: int, models: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """Time with two workers of Dask beside one process, each on one thread, without starting them."""
    import dask
    from distributed import Client, LocalCluster

    model, x, y = trained("crops", "linf", samples)
    rows: list[Any] = [model, x.numpy(), y.numpy(), {"JPEG 50": shown_defences()["JPEG 50"]}]
    settings = {"threat": "linf", "eps": BOUNDS["crops", "linf"], "budget": BUDGET, "batch_size": 25}
    few = [model, rows[1][:50], rows[2][:50], rows[3]]
    dask.config.set({"distributed.nanny.pre-spawn-environ": OF_WORKERS})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with LocalCluster(n_workers=2, threads_per_worker=1) as cluster, Client(cluster) as client:
        evaluate(*few, **{**settings, "budget": 1}, client=client, **SWITCHED_OFF)
        seconds, reports = [], []
        for where in (None, client):
            start = time.perf_counter()
            reports.append(evaluate(*rows, **settings, client=where, **SWITCHED_OFF))
            seconds.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    row = {"model": "crops, linf", "one process, s": seconds[0], "two workers, s": seconds[1]}
    row |= {"of half the time": 2 * seconds[1] / seconds[0], "same bits": reports[0] == reports[1]}
    show(row)
    return [row]


def text(value: Any) -> str:
    if isinstance(value, list):
        return " / ".join(f"{part:.0f}" for part in value)
    return f"{value:.3f}" if isinstance(value, float | np.floating) else str(value)


def show(row: dict[str, Any]) -> None:
    print("  ".join(f"{name}: {text(value)}" for name, value in row.items()), flush=True)


def write(found: dict[str, list[dict[str, Any]]]) -> None:
    """Put rows into the stored tables, in place of those of the same model, and these into the page."""
    stored = json.loads(STORE.read_text(encoding="utf-8")) if STORE.exists() else {}
    for name, rows in found.items():
        by_model = {tuple(row.get(key) for key in KEYS): row for row in [*stored.get(name, []), *rows]}
        stored[name] = list(by_model.values())
    STORE.write_text(json.dumps(stored, indent=1, default=float) + "\n", encoding="utf-8")
    titles = {name: " ".join(str(table.__doc__).split()) for name, table in TABLES.items()}
    parts = [f"{titles[name]}\n\n{markdown(stored[name])}" for name in TABLES if name in stored]
    page = PAGE.read_text(encoding="utf-8")
    body = "\n" + "\n\n".join(parts) + "\n\n"
    PAGE.write_text(BETWEEN.sub(lambda _: body, page), encoding="utf-8")


def markdown(rows: list[dict[str, Any]]) -> str:
    names = list(dict.fromkeys(name for row in rows for name in row))
    lines = [names, ["---" if name in KEYS else "---:" for name in names]]
    lines += [[text(row.get(name, "")) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


KEYS = ("model", "norm", "defence")
TABLES = {
    "bounds": bounds,
    "norms": smallest,
    "defences": behind_defences,
    "time": timed,
    "workers": workers,
}
MODELS = [(data, kind) for data in ("digits", "crops") for kind in ("plain", "linf", "l2")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--data", choices=("digits", "crops"), help="models of this data alone")
    parser.add_argument("--kind", choices=("plain", "linf", "l2"), help="models trained in this way alone")
    parser.add_argument("--write", action="store_true", help="into the stored tables and the page")
    arguments = parser.parse_args()
    models = [
        (data, kind)
        for data, kind in MODELS
        if arguments.data in (None, data) and arguments.kind in (None, kind)
    ]
    for name in arguments.only:
        print(f"\n{TABLES[name].__doc__}")
        samples = min(arguments.samples, OF_DEFENCES) if name == "defences" else arguments.samples
        rows = [{**row, "samples": samples} for row in TABLES[name](samples, models)]
        if arguments.write:
            write({name: rows})


if __name__ == "__main__":
    main()
