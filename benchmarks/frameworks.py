"""Training with and without labeltrack in each framework, step by step about 10 ms; and sharing labels between ranks.

Steps with and without take turns within one epoch of one model: where memory lies, and what else the machine does,
makes epochs several percent faster or slower, but not neighbours.

Run from the root of the repository, with the frameworks installed::

    python benchmarks/frameworks.py

With and without labeltrack, the C library of Linux hands memory of language models back to the system after some steps,
which costs them up to 0.4 ms; ``MALLOC_TRIM_THRESHOLD_=1073741824 MALLOC_MMAP_THRESHOLD_=33554432`` before the command
leaves that out.
"""

from __future__ import annotations

import argparse
import gc
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
DISTINCT = 32  # batches, which come again
LAG = 1  # step after a change that is not counted: some loaders fetch a batch ahead
READ = 60  # steps with labeltrack after which what waits is recorded, between two steps
SYNCS = 20  # rounds at most
DOMAINS = ("code", "math", "web")
CLOCKS: dict[str, Callable[[], float]] = {"processor": time.process_time, "wall": time.perf_counter}


class Case:
    """A training with and without labeltrack in turn.

    Attributes:
        on: Whether it is with labeltrack now.
        tracker: What it is tracked with.
        times: What the clocks showed when the step before each batch had ended, and when the batch began; in between,
            what waits is recorded, where labeltrack stops.
        plan: Whether each step is with labeltrack; after the last one, all are as it is.
    """

    tracker: Any
    rate = 0.01
    batch = 64

    def __init__(self, width: int) -> None:
        import torch  # noqa: PLC0415 (which may be missing)

        torch.set_num_threads(1)  # so that processor time is wall time
        torch.manual_seed(0)
        self.torch, self.width = torch, width
        self.x = torch.randn(DISTINCT * self.batch, FEATURES)
        self.y = torch.randint(0, CLASSES, (len(self.x),))
        self.on = True
        self.unread = 0  # steps with labeltrack since what waits was recorded
        self.times: list[list[list[float]]] = []
        self.plan: list[bool] = []

    @property
    def samples(self) -> int:
        """How many values an epoch of all batches has."""
        return len(self.x)

    def model(self) -> Any:
        """Return a model."""
        self.torch.manual_seed(1)
        nn = self.torch.nn
        layers = [nn.Linear(FEATURES, self.width), nn.ReLU(), nn.Linear(self.width, self.width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(self.width, CLASSES))

    def begin(self) -> Any:
        """Return a fresh model and its optimizer."""
        model = self.model()
        return model, self.torch.optim.SGD(model.parameters(), lr=self.rate)

    def loader(self, times: int) -> Any:
        """Return the batches, so many times."""
        data = self.torch.utils.data
        pairs = data.Subset(data.TensorDataset(self.x, self.y), list(range(len(self.x))) * times)
        return data.DataLoader(pairs, batch_size=self.batch, collate_fn=partial(self.collated, data.default_collate))

    def collated(self, collate: Callable[[Any], Any], samples: Any) -> Any:
        """Return a batch, and keep when it began: the step before it has ended."""
        ended = [now() for now in CLOCKS.values()]
        step = len(self.times)
        on = self.plan[step] if step < len(self.plan) else self.on
        self.unread += self.on
        if self.on and not on and self.unread >= READ:
            self.unread = 0
            _ = self.tracker.pending  # records what waits
        began = [now() for now in CLOCKS.values()]
        self.times.append([ended, began])
        if on is not self.on:
            self.on = on
            self.switch()
        return collate(samples)

    def switch(self) -> None:
        """Begin or stop to track, in a framework that is to be told."""

    def losses(self, logits: Any, targets: Any) -> tuple[Any, Any]:
        """Return the mean loss, as it is without labeltrack, and those of samples, as docs/frameworks/torch.md does."""
        functional = self.torch.nn.functional
        log_probs = functional.log_softmax(logits, dim=1)
        each = functional.nll_loss(log_probs.detach(), targets, reduction="none")
        return functional.nll_loss(log_probs, targets), each

    def run(self, times: int) -> None:
        """Train for an epoch of all batches, so many times."""
        raise NotImplementedError

    def check(self) -> None:
        """Compare what is tracked with what the model computes, if it does not learn."""
        self.rate = 0.0
        self.run(1)
        (stats,) = (found for _, found in self.tracker.history.items())
        assert stats.total().count == self.samples
        np.testing.assert_allclose(stats.total().mean, self.expected(), rtol=1e-5)
        self.rate = 0.01

    def expected(self) -> float:
        """Return the mean loss of the model that `run` begins with."""
        with self.torch.no_grad():
            return float(self.torch.nn.functional.cross_entropy(Case.model(self)(self.x).double(), self.y))


class Plain(Case):
    """A loop."""

    padded = False  # whether batches may be

    def run(self, times: int) -> None:
        """Train for an epoch."""
        from labeltrack.integrations.torch import unpadded  # noqa: PLC0415 (torch may be missing)

        cross_entropy = self.torch.nn.functional.cross_entropy
        model, optimizer = self.begin()
        tracker = self.tracker = lt.LabelTracker("y", "ce")
        loader = self.loader(times)
        batches = iter(loader)
        real = unpadded(batches)
        for _ in loader.batch_sampler:
            (x, y), n = next(real) if self.on and self.padded else (next(batches), None)
            optimizer.zero_grad()
            if self.on:
                loss, losses = self.losses(model(x), y)
                tracker.update(*((y, losses) if n is None else (y[:n], losses[:n])))
            else:
                loss = cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
        tracker.end_epoch(1)


class Unpadded(Plain):
    """A loop of one of several processes."""

    padded = True


class Lightning(Case):
    """Lightning's Trainer."""

    callbacks: list[Any]

    def switch(self) -> None:
        """Add the callback, or take it away."""
        self.callbacks[:] = [each for each in self.callbacks if each is not self.callback]
        if self.on:
            self.callbacks.append(self.callback)

    def run(self, times: int) -> None:
        """Train for an epoch."""
        from lightning.pytorch import LightningModule, Trainer  # noqa: PLC0415 (which may be missing)

        from labeltrack.integrations.lightning import LabelTrackCallback  # noqa: PLC0415 (likewise)

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        cross_entropy = self.torch.nn.functional.cross_entropy
        net, optimizer = self.begin()
        case = self

        class Module(LightningModule):  # type: ignore[misc]  # is Any where Lightning is not installed
            def __init__(self) -> None:
                super().__init__()
                self.net = net

            def training_step(self, batch: Any, _: int) -> Any:
                x, y = batch
                if not case.on:
                    return cross_entropy(self.net(x), y)
                loss, losses = case.losses(self.net(x), y)
                return {"loss": loss, "per_sample_loss": losses}

            def configure_optimizers(self) -> Any:
                return optimizer

        self.callback = LabelTrackCallback(label=1)
        self.tracker = self.callback.tracker
        quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        quiet |= {"accelerator": "cpu", "enable_model_summary": False}
        trainer = Trainer(max_epochs=1, callbacks=[self.callback], **quiet)
        self.callbacks = trainer.callbacks
        trainer.fit(Module(), self.loader(times))


class Ignite(Case):
    """Ignite's engine."""

    handlers: list[Any]
    of_steps: list[Any]

    def switch(self) -> None:
        """Add what is called after each step, or take it away."""
        self.of_steps[:] = self.handlers if self.on else []

    def run(self, times: int) -> None:
        """Train for an epoch."""
        from ignite.engine import Engine, Events  # noqa: PLC0415 (which may be missing)

        from labeltrack.integrations.ignite import LabelTrackHandler  # noqa: PLC0415 (likewise)

        cross_entropy = self.torch.nn.functional.cross_entropy
        model, optimizer = self.begin()

        def step(_: Any, batch: Any) -> Any:
            x, y = batch
            optimizer.zero_grad()
            loss, losses = self.losses(model(x), y) if self.on else (cross_entropy(model(x), y), None)
            loss.backward()
            optimizer.step()
            return {"per_sample_loss": losses} if self.on else None

        engine, handler = Engine(step), LabelTrackHandler(label=1)
        self.tracker = handler.tracker
        handler.attach(engine)
        self.of_steps = engine._event_handlers[Events.ITERATION_COMPLETED]  # noqa: SLF001 (no other way is as cheap)
        self.handlers = list(self.of_steps)
        engine.run(self.loader(times), max_epochs=1)


class Keras(Case):
    """Keras on PyTorch, whose own metric of the loss is there without labeltrack."""

    def run(self, times: int) -> None:
        """Train for an epoch."""
        os.environ.setdefault("KERAS_BACKEND", "torch")
        import keras  # noqa: PLC0415 (which may be missing)

        from labeltrack.integrations.keras import LabelTrackCallback, LabelTrackMetric  # noqa: PLC0415 (likewise)

        case = self
        own = keras.metrics.SparseCategoricalCrossentropy(from_logits=True)

        class Metric(LabelTrackMetric):
            def update_state(self, *batch: Any, **options: Any) -> Any:
                return super().update_state(*batch, **options) if case.on else own.update_state(*batch, **options)

        layers = [keras.layers.Input((FEATURES,)), *(keras.layers.Dense(self.width, "relu") for _ in range(2))]
        model = keras.Sequential([*layers, keras.layers.Dense(CLASSES)])
        linear = [layer for layer in self.model() if hasattr(layer, "weight")]
        model.set_weights([part.detach().numpy().T for layer in linear for part in (layer.weight, layer.bias)])
        metric = Metric(partial(keras.losses.sparse_categorical_crossentropy, from_logits=True), name="ce")
        optimizer = keras.optimizers.SGD(self.rate)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer=optimizer, loss=loss, metrics=[metric])
        self.tracker = metric.tracker
        model.fit(self.loader(times), epochs=1, verbose=0, callbacks=[LabelTrackCallback(metric)])


class HuggingFace(Case):
    """The Trainer of Hugging Face, which classifies."""

    def rows(self) -> list[dict[str, Any]]:
        """Return the dataset."""
        rng = np.random.default_rng(0)
        domains = rng.choice(DOMAINS, len(self.x)).tolist()
        columns = zip(self.x, self.y, domains, strict=True)
        return [{"x": x, "labels": y, "domain": domain} for x, y, domain in columns]

    def model(self) -> Any:
        """Return a model as the Trainer takes it."""
        import transformers  # noqa: PLC0415 (which may be missing)

        torch, net = self.torch, super().model()

        class Classifier(torch.nn.Module):  # type: ignore[misc, name-defined]  # is Any where torch is not installed
            def __init__(self) -> None:
                super().__init__()
                self.config = transformers.PretrainedConfig()
                self.net = net

            def forward(self, x: Any, labels: Any) -> dict[str, Any]:
                logits = self.net(x)
                return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}

        return Classifier()

    def run(self, times: int) -> None:
        """Train for an epoch."""
        import transformers  # noqa: PLC0415 (which may be missing)

        from labeltrack.integrations.huggingface import track  # noqa: PLC0415 (likewise)

        transformers.logging.set_verbosity_error()
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

            model = self.model()
            trainer = Silent(model, arguments, transformers.default_data_collator, train_dataset=self.rows() * times)
            own = trainer._get_collator_with_removed_columns(trainer.data_collator), trainer.compute_loss  # noqa: SLF001
            self.tracker = track(trainer)
            ours = trainer.data_collator, trainer.compute_loss
            hooks: dict[Any, Any] = {}

            def collate(samples: Any) -> Any:
                return (ours if self.on else own)[0](samples)

            def compute_loss(model: Any, inputs: Any, *more: Any, **options: Any) -> Any:
                there = model._forward_hooks  # noqa: SLF001 (no other way is as cheap)
                if "labeltrack" in inputs:
                    there.update(hooks)
                    return ours[1](model, inputs, *more, **options)
                hooks.update(there)
                there.clear()
                return own[1](model, inputs, *more, **options)

            trainer.data_collator, trainer.compute_loss = partial(self.collated, collate), compute_loss
            trainer.train()


class Tokens(HuggingFace):
    """The same with a language model, whose tokens count."""

    batch = 4

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.ids = self.torch.randint(0, VOCABULARY, (DISTINCT * self.batch, TOKENS))

    @property
    def samples(self) -> int:
        """How many values an epoch has."""
        return len(self.ids) * (TOKENS - 1)

    def rows(self) -> list[dict[str, Any]]:
        """Return the dataset."""
        return [{"input_ids": ids, "labels": ids, "domain": DOMAINS[n % 3]} for n, ids in enumerate(self.ids)]

    def model(self) -> Any:
        """Return a language model."""
        import transformers  # noqa: PLC0415 (which may be missing)

        self.torch.manual_seed(1)
        sizes = {"hidden_size": self.width, "intermediate_size": self.width, "num_hidden_layers": 1}
        config = transformers.LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=2, **sizes)
        return transformers.LlamaForCausalLM(config)

    def expected(self) -> float:
        """Return the mean loss of the model that `run` begins with."""
        model = self.model()
        with self.torch.no_grad():
            found = [float(model(input_ids=ids, labels=ids).loss) for ids in self.ids.split(self.batch)]
        return float(np.mean(found))


CASES: dict[str, tuple[type[Case], int]] = {  # and the width of a model whose step takes about 10 ms
    "plain loop": (Plain, 1200),
    "plain loop, unpadded": (Unpadded, 1200),
    "Lightning": (Lightning, 1200),
    "Ignite": (Ignite, 1200),
    "Keras on PyTorch": (Keras, 1024),
    "Hugging Face, classes": (HuggingFace, 1200),
    "Hugging Face, tokens": (Tokens, 88),
}


def measured(name: str, steps: int, rounds: int) -> dict[str, Any]:
    """Measure so many steps with and without labeltrack in turn; return times per step, their ratio and difference."""
    of, width = CASES[name]
    case = of(width)
    size = steps + LAG
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of frameworks
        case.check()
        case.times.clear()
        case.plan = [on for _ in range(rounds) for on in (True, False) for _ in range(size)]
        gc.collect()
        case.run(-(-(len(case.plan) + 1) // DISTINCT))
    times = np.array(case.times[: len(case.plan) + 1])
    result: dict[str, Any] = {"case": name, "steps": steps, "rounds": rounds}
    for place, clock in enumerate(CLOCKS):
        ended, began = times[:, :, place].T
        typical = np.median((ended[1:] - began[:-1]).reshape(-1, size)[:, LAG:], axis=1)
        of_steps = dict(zip((WITH, WITHOUT), typical.reshape(rounds, 2).T.copy(), strict=True))
        of_steps[WITH] += (began - ended).sum() / (rounds * size)
        result[clock] = {
            "times": {which: summary(seconds.tolist()) for which, seconds in of_steps.items()},
            "ratio": quartiles(of_steps[WITH] / of_steps[WITHOUT]),
            "extra_s": quartiles(of_steps[WITH] - of_steps[WITHOUT]),
        }
    return result


def quartiles(some: Any) -> dict[str, float]:
    """Return median and quartiles of rounds."""
    low, median, high = np.quantile(some, (0.25, 0.5, 0.75)).tolist()
    return {"median": median, "quartile_low": low, "quartile_high": high}


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
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=600)
    parser.add_argument("--labels", type=int, default=1_000_000)
    add_output(parser, "frameworks", None)
    options = parser.parse_args(arguments)
    names = ["numpy", "numba", "torch", "transformers", "lightning", "pytorch-ignite", "keras"]
    sync = shared(options.labels, min(options.rounds, SYNCS))
    results: dict[str, Any] = {"facts": facts(names), "cases": [], "sync": sync}
    lines = ["case | ms per step | with / without labeltrack (quartiles): processor | wall | more us (quartiles)"]
    for name in options.cases:
        row = measured(name, options.steps, options.rounds)
        results["cases"].append(row)
        spread = "{median:.4f} ({quartile_low:.4f}–{quartile_high:.4f})"
        ratios = " | ".join(spread.format(**row[clock]["ratio"]) for clock in CLOCKS)
        extra = {of: seconds * 1e6 for of, seconds in row["processor"]["extra_s"].items()}
        more = "{median:.0f} ({quartile_low:.0f}–{quartile_high:.0f})".format(**extra)
        without = row["processor"]["times"][WITHOUT]["median_s"] * 1e3
        lines.append(f"{name} | {without:.2f} | {ratios} | {more}")
    for kind in ("same", "different"):
        took, what = results["sync"][kind], f"sync, two ranks with {options.labels:,} {kind} labels"
        lines.append(f"{what}: {took['median_s']:.3f} s, best {took['best_s']:.3f} s")
    publish(results, "\n".join(lines), options)
    return results


if __name__ == "__main__":
    main()
