"""Training with and without labeltrack in each framework, step by step about 10 ms; and sharing labels between ranks.

Run from the root of the repository, with the frameworks installed::

    python benchmarks/frameworks.py
"""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from harness import facts, summary
from report import add_output, publish

import labeltrack as lt

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

WITH, WITHOUT = "with labeltrack", "without"
CLASSES, FEATURES, TOKENS, VOCABULARY = 10, 256, 64, 2000
DOMAINS = ("code", "math", "web")
CLOCKS: dict[str, Callable[[], float]] = {"processor": time.process_time, "wall": time.perf_counter}


class Case:
    """A training that can be run again and again, for an epoch each.

    Attributes:
        tracker: What the last one with labeltrack was tracked with.
        began: What the clocks showed when each batch began.
    """

    tracker: Any
    rate = 0.01

    def __init__(self, steps: int, width: int) -> None:
        import torch  # noqa: PLC0415 (which may be missing)

        torch.set_num_threads(1)  # so that processor time is wall time
        torch.manual_seed(0)
        self.torch, self.steps, self.batch, self.width = torch, steps, 64, width
        self.x = torch.randn(steps * self.batch, FEATURES)
        self.y = torch.randint(0, CLASSES, (steps * self.batch,))
        self.began: list[list[float]] = []

    @property
    def samples(self) -> int:
        """How many values an epoch has."""
        return len(self.x)

    def model(self) -> Any:
        """Return a model."""
        nn = self.torch.nn
        layers = [nn.Linear(FEATURES, self.width), nn.ReLU(), nn.Linear(self.width, self.width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(self.width, CLASSES))

    def loader(self) -> Any:
        """Return the batches."""
        data = self.torch.utils.data
        pairs = data.TensorDataset(self.x, self.y)
        return data.DataLoader(pairs, batch_size=self.batch, collate_fn=partial(self.collated, data.default_collate))

    def collated(self, collate: Callable[[Any], Any], samples: Any) -> Any:
        """Return a batch, and keep when it began: the step before it has ended."""
        self.began.append([now() for now in CLOCKS.values()])
        return collate(samples)

    def run(self, *, tracked: bool) -> None:
        """Train for an epoch."""
        raise NotImplementedError

    def check(self) -> None:
        """Compare what is tracked with what the model computes, if it does not learn."""
        self.rate = 0.0
        self.run(tracked=True)
        (stats,) = (found for _, found in self.tracker.history.items())
        assert stats.total().count == self.samples
        np.testing.assert_allclose(stats.total().mean, self.expected(), rtol=1e-5)
        self.rate = 0.01

    def expected(self) -> float:
        """Return the mean loss of the model that `run` begins with."""
        self.torch.manual_seed(1)
        with self.torch.no_grad():
            return float(self.torch.nn.functional.cross_entropy(self.model()(self.x).double(), self.y))

    def begin(self) -> Any:
        """Return a fresh model and its optimizer."""
        self.torch.manual_seed(1)
        model = self.model()
        return model, self.torch.optim.SGD(model.parameters(), lr=self.rate)


class Plain(Case):
    """A loop."""

    def run(self, *, tracked: bool) -> None:
        """Train for an epoch."""
        cross_entropy = self.torch.nn.functional.cross_entropy
        model, optimizer = self.begin()
        tracker = self.tracker = lt.LabelTracker("y", "ce")
        for x, y in self.loader():
            optimizer.zero_grad()
            if tracked:
                losses = cross_entropy(model(x), y, reduction="none")
                loss = losses.mean()
                tracker.update(y, losses)
            else:
                loss = cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        if tracked:
            tracker.end_epoch(1)


class Lightning(Case):
    """Lightning's Trainer."""

    def run(self, *, tracked: bool) -> None:
        """Train for an epoch."""
        from lightning.pytorch import LightningModule, Trainer  # noqa: PLC0415 (which may be missing)

        from labeltrack.integrations.lightning import LabelTrackCallback  # noqa: PLC0415 (likewise)

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        cross_entropy = self.torch.nn.functional.cross_entropy
        net, optimizer = self.begin()

        class Module(LightningModule):  # type: ignore[misc]  # is Any where Lightning is not installed
            def __init__(self) -> None:
                super().__init__()
                self.net = net

            def training_step(self, batch: Any, _: int) -> Any:
                x, y = batch
                if not tracked:
                    return cross_entropy(self.net(x), y)
                losses = cross_entropy(self.net(x), y, reduction="none")
                return {"loss": losses.mean(), "per_sample_loss": losses}

            def configure_optimizers(self) -> Any:
                return optimizer

        callback = LabelTrackCallback(label=1)
        self.tracker = callback.tracker
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        callbacks = [callback] if tracked else []
        trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, callbacks=callbacks, **quiet)
        trainer.fit(Module(), self.loader())


class Ignite(Case):
    """Ignite's engine."""

    def run(self, *, tracked: bool) -> None:
        """Train for an epoch."""
        from ignite.engine import Engine  # noqa: PLC0415 (which may be missing)

        from labeltrack.integrations.ignite import LabelTrackHandler  # noqa: PLC0415 (likewise)

        cross_entropy = self.torch.nn.functional.cross_entropy
        model, optimizer = self.begin()

        def step(_: Any, batch: Any) -> Any:
            x, y = batch
            optimizer.zero_grad()
            losses = cross_entropy(model(x), y, reduction="none" if tracked else "mean")
            (losses.mean() if tracked else losses).backward()
            optimizer.step()
            return {"per_sample_loss": losses} if tracked else None

        engine, handler = Engine(step), LabelTrackHandler(label=1)
        self.tracker = handler.tracker
        if tracked:
            handler.attach(engine)
        engine.run(self.loader(), max_epochs=1)


class Keras(Case):
    """Keras on PyTorch, whose own metric of the loss is there without labeltrack."""

    def run(self, *, tracked: bool) -> None:
        """Train for an epoch."""
        os.environ.setdefault("KERAS_BACKEND", "torch")
        import keras  # noqa: PLC0415 (which may be missing)

        from labeltrack.integrations.keras import LabelTrackCallback, LabelTrackMetric  # noqa: PLC0415 (likewise)

        layers = [keras.layers.Input((FEATURES,)), *(keras.layers.Dense(self.width, "relu") for _ in range(2))]
        model = keras.Sequential([*layers, keras.layers.Dense(CLASSES)])
        self.torch.manual_seed(1)
        first = self.model()
        linear = [layer for layer in first if hasattr(layer, "weight")]
        model.set_weights([part.detach().numpy().T for layer in linear for part in (layer.weight, layer.bias)])
        each = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
        metric = LabelTrackMetric(each, name="ce")
        own = keras.metrics.SparseCategoricalCrossentropy(from_logits=True)
        optimizer = keras.optimizers.SGD(self.rate)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=optimizer, loss=loss, metrics=[metric if tracked else own])
        self.tracker = metric.tracker
        callbacks = [LabelTrackCallback(metric)] if tracked else []
        model.fit(self.loader(), epochs=1, verbose=0, callbacks=callbacks)


class HuggingFace(Case):
    """The Trainer of Hugging Face, which classifies."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the dataset."""
        rng = np.random.default_rng(0)
        domains = rng.choice(DOMAINS, len(self.x)).tolist()
        columns = zip(self.x, self.y, domains, strict=True)
        return [{"x": x, "labels": y, "domain": domain} for x, y, domain in columns]

    def network(self) -> Any:
        """Return a model as the Trainer takes it."""
        import transformers  # noqa: PLC0415 (which may be missing)

        torch, net = self.torch, self.model()

        class Classifier(torch.nn.Module):  # type: ignore[misc, name-defined]  # is Any where torch is not installed
            def __init__(self) -> None:
                super().__init__()
                self.config = transformers.PretrainedConfig()
                self.net = net

            def forward(self, x: Any, labels: Any) -> dict[str, Any]:
                logits = self.net(x)
                return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

        return Classifier()

    def run(self, *, tracked: bool) -> None:
        """Train for an epoch."""
        import transformers  # noqa: PLC0415 (which may be missing)

        from labeltrack.integrations.huggingface import track  # noqa: PLC0415 (likewise)

        transformers.logging.set_verbosity_error()
        self.torch.manual_seed(1)
        with tempfile.TemporaryDirectory() as folder:
            quiet = {"report_to": [], "save_strategy": "no", "disable_tqdm": True, "logging_strategy": "no"}
            arguments = transformers.TrainingArguments(
                folder,
                num_train_epochs=1,
                per_device_train_batch_size=self.batch,
                learning_rate=self.rate,
                use_cpu=True,
                optim="sgd",
                **quiet,
            )

            class Silent(transformers.Trainer):  # type: ignore[misc]  # likewise
                def log(self, *_: Any, **__: Any) -> None:
                    pass

            collator = partial(self.collated, transformers.default_data_collator)
            trainer = Silent(self.network(), arguments, collator, train_dataset=self.rows())
            if tracked:
                self.tracker = track(trainer)
            trainer.train()


class Tokens(HuggingFace):
    """The same with a language model, whose tokens count."""

    def __init__(self, steps: int, width: int) -> None:
        super().__init__(steps, width)
        self.batch = 4
        self.ids = self.torch.randint(0, VOCABULARY, (steps * self.batch, TOKENS))

    @property
    def samples(self) -> int:
        """How many values an epoch has."""
        return len(self.ids) * (TOKENS - 1)

    def rows(self) -> list[dict[str, Any]]:
        """Return the dataset."""
        return [{"input_ids": ids, "labels": ids, "domain": DOMAINS[n % 3]} for n, ids in enumerate(self.ids)]

    def network(self) -> Any:
        """Return a language model."""
        import transformers  # noqa: PLC0415 (which may be missing)

        sizes = {"hidden_size": self.width, "intermediate_size": self.width, "num_hidden_layers": 1}
        config = transformers.LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=2, **sizes)
        return transformers.LlamaForCausalLM(config)

    def expected(self) -> float:
        """Return the mean loss of the model that `run` begins with."""
        self.torch.manual_seed(1)
        network = self.network()
        with self.torch.no_grad():
            found = [float(network(input_ids=ids, labels=ids).loss) for ids in self.ids.split(self.batch)]
        return float(np.mean(found))


CASES: dict[str, tuple[type[Case], int]] = {  # and the width of a model whose step takes about 10 ms
    "plain loop": (Plain, 1024),
    "Lightning": (Lightning, 1024),
    "Ignite": (Ignite, 1024),
    "Keras on PyTorch": (Keras, 1024),
    "Hugging Face, classes": (HuggingFace, 1024),
    "Hugging Face, tokens": (Tokens, 64),
}


def measured(name: str, steps: int, rounds: int) -> dict[str, Any]:
    """Measure the steps of epochs with and without labeltrack in turn; return times per step, and their ratio."""
    of, width = CASES[name]
    case = of(steps, width)
    rng = np.random.default_rng(0)
    found: dict[str, list[Any]] = {WITH: [], WITHOUT: []}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of frameworks
        case.check()
        case.run(tracked=False)
        for _ in range(rounds):
            for which in rng.permutation([WITH, WITHOUT]).tolist():
                case.began.clear()
                case.run(tracked=which == WITH)
                found[which].append([*case.began[-steps:], [now() for now in CLOCKS.values()]])
    result: dict[str, Any] = {"case": name, "steps": steps, "rounds": rounds}
    for place, clock in enumerate(CLOCKS):
        each = {which: np.diff(np.array(times)[:, :, place]) for which, times in found.items()}
        # The first step finds cold caches; after the last one, the epoch ends.
        of_steps = {which: summary(seconds[:, 1:-1].ravel().tolist()) for which, seconds in each.items()}
        ends = {which: float(np.median(seconds[:, -1])) for which, seconds in each.items()}
        result[clock] = {
            "times": of_steps,
            "ratio": of_steps[WITH]["median_s"] / of_steps[WITHOUT]["median_s"],
            "ratio_low_quartiles": of_steps[WITH]["quartile_low_s"] / of_steps[WITHOUT]["quartile_low_s"],
            "extra_s_per_step": of_steps[WITH]["median_s"] - of_steps[WITHOUT]["median_s"],
            "extra_s_last_step_and_end": ends[WITH] - ends[WITHOUT],
        }
    return result


SYNC = """
import sys, time, numpy as np, torch, labeltrack as lt
from torch import distributed
from labeltrack.integrations.torch import sync
rank, store, labels, rounds, kind = int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
distributed.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=2)
rng = np.random.default_rng(rank)
keys = rng.permutation(labels) + (rank * labels if kind == "different" else 0)
values = rng.standard_exponential(labels, dtype=np.float32)
for step in range(rounds + 1):
    tracker = lt.LabelTracker("y", "ce")
    tracker.update(keys, values)
    distributed.barrier()
    began = time.perf_counter()
    sync(tracker)
    seconds = time.perf_counter() - began
    stats = tracker.end_epoch(step)
    total = [torch.tensor(0.0, dtype=torch.float64) for _ in range(2)]
    distributed.all_gather(total, torch.tensor(values.astype(np.float64).sum()))
    assert len(stats) == labels * (2 if kind == "different" else 1) and stats.count.sum() == 2 * labels
    assert abs(stats.total().sum - float(sum(total))) < 1e-9 * float(sum(total))
    if step and rank == 0:
        print(seconds)
distributed.destroy_process_group()
"""


def shared(labels: int, rounds: int) -> dict[str, Any]:
    """Measure `sync` of so many labels on each of two ranks, the same ones on both or different ones."""
    found: dict[str, Any] = {"labels": labels}
    for kind in ("same", "different"):
        with tempfile.TemporaryDirectory() as folder:
            commands = [
                [sys.executable, "-c", SYNC, str(rank), f"{folder}/store", str(labels), str(rounds), kind]
                for rank in range(2)
            ]
            ranks = [
                subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 (this Python, and code of ours)
                for command in commands
            ]
            outputs = [rank.communicate()[0] for rank in ranks]
        assert not any(rank.returncode for rank in ranks)
        found[kind] = summary([float(line) for line in outputs[0].splitlines()])
    return found


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the benchmark; return the results."""
    parser = argparse.ArgumentParser(description="Measure what tracking costs in each framework.")
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--labels", type=int, default=1_000_000)
    add_output(parser, "frameworks", None)
    options = parser.parse_args(arguments)
    names = ["numpy", "numba", "torch", "transformers", "lightning", "pytorch-ignite", "keras"]
    results: dict[str, Any] = {"facts": facts(names), "cases": [], "sync": shared(options.labels, options.rounds)}
    lines = [
        "case | ms per step | with / without labeltrack, median and low quartile: processor | wall | more us, end ms"
    ]
    for name in options.cases:
        row = measured(name, options.steps, options.rounds)
        results["cases"].append(row)
        ratios = (f"{row[clock]['ratio']:.4f}, {row[clock]['ratio_low_quartiles']:.4f}" for clock in CLOCKS)
        first = row["processor"]
        extra = f"{first['extra_s_per_step'] * 1e6:.0f}, {first['extra_s_last_step_and_end'] * 1e3:.2f}"
        lines.append(f"{name} | {first['times'][WITHOUT]['median_s'] * 1e3:.2f} | {' | '.join(ratios)} | {extra}")
    for kind in ("same", "different"):
        took, what = results["sync"][kind], f"sync, two ranks with {options.labels:,} {kind} labels"
        lines.append(f"{what}: {took['median_s']:.3f} s, best {took['best_s']:.3f} s")
    publish(results, "\n".join(lines), options)
    return results


if __name__ == "__main__":
    main()
