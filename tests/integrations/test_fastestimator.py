"""The FastEstimator trace beside the original one, in the real FastEstimator."""

from __future__ import annotations

import copy
import doctest
import importlib.util
import inspect
import itertools
import os
import pickle
import shutil
import subprocess
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
from exact import expected_by_label, rows
from test_interrupts import At, stride

import labeltrack as lt

REQUIRED = os.environ.get("LABELTRACK_REQUIRE_FASTESTIMATOR") == "1"

if importlib.util.find_spec("fastestimator") is None and not REQUIRED:
    pytest.skip(
        "FastEstimator is not installed: `nox -s fastestimator` does that, as it needs old versions of much",
        allow_module_level=True,
    )

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of what FastEstimator imports
    import torch

    # FastEstimator was written for torch 2.3. The samplers of later ones take no data source …
    torch.utils.data.Sampler.__init__ = lambda self, data_source=None: None  # noqa: ARG005
    import fastestimator as fe
    import tensorflow as tf
    from fastestimator.dataset.dataloader import InfiniteSampler
    from fastestimator.op.tensorop import LambdaOp, TensorOp
    from fastestimator.op.tensorop.loss import CrossEntropy
    from fastestimator.op.tensorop.model import ModelOp, UpdateOp
    from fastestimator.summary.logs.log_plot import plot_logs
    from fastestimator.summary.system import System
    from fastestimator.trace import Trace
    from fastestimator.trace.io import ImageSaver, ImageViewer, RestoreWizard, Traceability
    from fastestimator.trace.xai import LabelTracker as Original
    from fastestimator.util import Data
    from fastestimator.util.traceability_util import traceable

    from labeltrack.integrations import fastestimator as module
    from labeltrack.integrations.fastestimator import LabelTracker

# … and begin anew at every batch with an iterator that is its own: only the samples of the first would be seen.
begin = InfiniteSampler.__iter__
InfiniteSampler.__iter__ = lambda self: iter(begin(self).__next__, None)

fe.record_history(False)  # no database in the home directory

TOOLS = {"dot": "graphviz", "latexmk": "latexmk", "pdflatex": "texlive-latex-extra", "pdftotext": "poppler-utils"}


# -- what is compared ---------------------------------------------------------------------------------------------


def contents(summaries):
    """Everything that is in summaries, in their order, as plain values."""
    return [
        (
            type(summary),
            type(summary.name),
            summary.name,
            [(mode, list(keys)) for mode, keys in summary.history.items()],
            {
                mode: {
                    key: {step: value.as_tuple() if hasattr(value, "as_tuple") else value for step, value in of.items()}
                    for key, of in keys.items()
                }
                for mode, keys in summary.history.items()
            },
        )
        for summary in summaries
    ]


def by_name(tracker):
    return {name: history for _, _, name, _, history in contents(tracker.label_summaries.values())}


def system(**options):
    """A system of FastEstimator without Keras model or LambdaOp: on Python 3.11 it cannot restore those."""
    data = fe.dataset.NumpyDataset({"x": np.zeros((4, 2), np.float32)})
    network = fe.Network([ByEpoch(inputs="x", outputs="z")])
    options = {"mode": "train", "total_epochs": 9} | options
    return System(network=network, pipeline=fe.Pipeline(train_data=data), traces=[], **options)


def of(tracker, **options):
    """The same tracker, in a system."""
    tracker.system = system(**options)
    tracker.system.traces.append(tracker)
    return tracker


def samples(n, seed=0, classes=5):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, n).astype(np.int32), rng.gamma(2.0, size=n).astype(np.float32)


def epoch(tracker, batches, *, step, mode="train", ds_id="", label="y", metric="ce"):
    """Call a tracker as an estimator does in one epoch."""
    tracker.system.mode, tracker.system.ds_id, tracker.system.global_step = mode, ds_id, step
    for labels, values in batches:
        tracker.on_batch_end(Data({label: labels, metric: values}))
    tracker.on_epoch_end(Data())


# -- side by side in an estimator -----------------------------------------------------------------------------------

ALL = [None, "std", "range"]
BOTH = ["train", "eval"]
PAIRS = {
    "as it comes": {},
    "no bounds": {"bounds": None, "mode": BOTH},
    "std": {"bounds": "std", "mode": BOTH},
    "range": {"bounds": "range", "mode": BOTH},
    "all bounds": {"bounds": ALL, "mode": BOTH},
    "a tuple of bounds": {"bounds": ("range", "std"), "mode": BOTH},
    "an empty list of bounds": {"bounds": [], "mode": BOTH},
    "a mapping": {"label_mapping": {"three": 3, "eight": 8, "never": 77}, "bounds": ALL, "mode": BOTH},
    "an empty mapping": {"label_mapping": {}, "mode": BOTH},
    "a mapping of numpy values": {"label_mapping": {"three": np.int64(3), "four": np.float32(4)}, "mode": BOTH},
    "every mode": {"mode": None, "bounds": ALL},
    "not train": {"mode": "!train"},
    "test": {"mode": "test", "bounds": ALL},
    "dataset a": {"ds_id": "a", "bounds": ALL},
    "dataset b": {"ds_id": "b", "bounds": ALL},
    "not dataset a": {"ds_id": "!a", "bounds": ALL, "mode": None},
    "columns": {"label": "column", "metric": "ce_column", "bounds": ALL, "mode": BOTH},
    "a column and a row": {"label": "column", "bounds": ALL, "mode": BOTH},
    "hits": {"metric": "hit", "bounds": ALL, "mode": BOTH},
    "labels that are reals": {"label": "half", "bounds": ALL, "mode": BOTH},
    "labels that are bools": {"label": "big", "label_mapping": {"big": True, "small": False}, "mode": BOTH},
    "a mapped dataset": {"label_mapping": {"three": 3}, "ds_id": ["a", "b"], "bounds": ALL},
}


class Samples(Trace):
    """Keeps every sample, for an independent reckoning."""

    def __init__(self):
        super().__init__(inputs=["y", "ce"])
        self.kept = {}

    def on_batch_end(self, data):
        kept = self.kept.setdefault((self.system.mode, self.system.ds_id, self.system.epoch_idx), ([], []))
        for column, key in zip(kept, ["y", "ce"], strict=True):
            column.extend(np.asarray(data[key].numpy()).tolist())


def model(framework):
    if framework == "torch":
        torch.manual_seed(1)
        layers = [torch.nn.Linear(64, 24), torch.nn.ReLU(), torch.nn.Linear(24, 10), torch.nn.Softmax(dim=1)]
        return fe.build(lambda: torch.nn.Sequential(*layers), optimizer_fn="adam")
    tf.random.set_seed(1)
    dense = tf.keras.layers.Dense
    layers = [dense(24, activation="relu", input_shape=(64,)), dense(10, activation="softmax")]
    return fe.build(lambda: tf.keras.Sequential(layers), optimizer_fn="adam")


def network(framework):
    net = model(framework)
    return fe.Network(
        [
            ModelOp(model=net, inputs="x", outputs="p"),
            CrossEntropy(inputs=("p", "y"), outputs="ce", average_loss=False),
            LambdaOp(fn=lambda ce: ce[:, None], inputs="ce", outputs="ce_column"),
            LambdaOp(
                fn=lambda p, y: p.argmax(1) == y if framework == "torch" else tf.argmax(p, axis=1) == y,
                inputs=["p", "y"],
                outputs="hit",
            ),
            LambdaOp(
                fn=lambda ce: ce.mean() if framework == "torch" else tf.reduce_mean(ce), inputs="ce", outputs="loss"
            ),
            UpdateOp(model=net, loss_name="loss"),
        ]
    )


def digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype(np.float32)

    def part(start, end):
        here = y[start:end]
        columns = {"x": x[start:end], "y": here, "column": here[:, None]}
        return fe.dataset.NumpyDataset(columns | {"half": (here / 2).astype(np.float32), "big": here > 4})

    return fe.Pipeline(
        train_data=part(0, 700),
        eval_data={"a": part(700, 900), "b": part(900, 1200)},
        test_data=part(1200, 1400),
        batch_size=64,
    )


def quietly(function, *arguments):
    """Call FastEstimator, which warns of many things; a warning of ours is still an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", lt.LabelTrackWarning)
        warnings.filterwarnings("ignore", ".* labels that never occurred: 77", lt.LabelTrackWarning)
        return function(*arguments)


@pytest.fixture(scope="module", name="trained", params=["torch", "tensorflow"])
def _trained(request, tmp_path_factory):
    """One training with every pair of traces in it."""
    folder = tmp_path_factory.mktemp(request.param)
    pairs = {
        name: tuple(
            cls(**{"label": "y", "metric": "ce", "outputs": f"{cls.__module__[0]}_{i}"} | options)
            for cls in (Original, LabelTracker)
        )
        for i, (name, options) in enumerate(PAIRS.items())
    }
    split = LabelTracker("y", "ce", bounds=ALL, mode=None, split_ds=True)
    quantiles = LabelTracker("y", "ce", bounds=[None, "iqr", ("quantile", 0.1, 0.9)], mode=None, outputs="quantiles")
    written = Written(sorted(trace.outputs[0] for pair in pairs.values() for trace in pair))
    kept = Samples()
    shown = pairs["all bounds"]
    estimator = fe.Estimator(
        pipeline=digits(),
        network=network(request.param),
        epochs=3,
        traces=[
            *(trace for pair in pairs.values() for trace in pair),
            *(split, quantiles, kept, written),
            ImageSaver(inputs=[trace.outputs[0] for trace in (*shown, split)], save_dir=str(folder), mode="eval"),
        ],
        log_steps=0,
    )
    quietly(estimator.fit)
    after_fit = dict(written.seen)
    graphs = dict(estimator.system.custom_graphs)
    quietly(estimator.test)
    return SimpleNamespace(
        pairs=pairs,
        split=split,
        quantiles=quantiles,
        kept=kept.kept,
        seen=after_fit,
        graphs=graphs,
        folder=folder,
        estimator=estimator,
    )


class Written(Trace):
    """Keeps what other traces wrote when training ended."""

    def __init__(self, keys):
        super().__init__(inputs="*")  # to be the last
        self.keys = keys
        self.seen = {}

    def on_end(self, data):
        self.seen = {key: data[key] for key in self.keys if key in data}


@pytest.mark.parametrize("name", PAIRS)
def test_every_summary_equals_that_of_the_original(trained, name):
    theirs, ours = trained.pairs[name]
    wanted = contents(theirs.label_summaries.values())
    assert wanted
    assert contents(ours.label_summaries.values()) == wanted


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_written_and_drawn_at_the_end_equals_that_of_the_original(trained, name):
    theirs, ours = (trace.outputs[0] for trace in trained.pairs[name])
    if name != "test":  # which does not run in training
        assert contents(trained.seen[ours]) == contents(trained.seen[theirs])
        assert contents(trained.graphs[ours]) == contents(trained.graphs[theirs])
    graphs = trained.estimator.system.custom_graphs
    assert contents(graphs[ours]) == contents(graphs[theirs])


def test_datasets_kept_apart_equal_the_original_run_on_each(trained):
    split = by_name(trained.split)
    for ds_id in ("a", "b"):
        for label, history in by_name(trained.pairs[f"dataset {ds_id}"][0]).items():
            assert len(history["eval"]) == 3
            for key, steps in history["eval"].items():
                assert split[label]["eval"][f"{key}|{ds_id}"] == steps
    everything = by_name(trained.pairs["every mode"][0])
    for label, history in split.items():
        assert history["train"] == everything[label]["train"]  # one dataset without a name: the plain keys
        assert all("|" in key for key in history["eval"])


def test_every_sample_of_every_dataset_counts(trained):
    from sklearn.datasets import load_digits

    _, y = load_digits(return_X_y=True)
    history = trained.split.history
    for mode, ds_id, part in (("train", "", y[:700]), ("eval", "a", y[700:900]), ("eval", "b", y[900:1200])):
        for step in history.steps(mode):
            assert history.at(step, mode, ds_id).count.tolist() == np.bincount(part).tolist()


def test_the_history_has_the_exact_statistics_of_every_mode_dataset_and_step(trained):
    history = trained.split.history
    assert len(history) == len(trained.kept) == 3 + 2 * 3 + 1
    steps = {"train": history.steps("train"), "eval": history.steps("eval"), "test": 3 * history.steps("test")}
    for (mode, ds_id, number), (labels, values) in trained.kept.items():
        assert rows(history.at(steps[mode][number - 1], mode, ds_id)) == expected_by_label(labels, values)


def test_quantiles_of_a_mode_are_those_of_all_its_samples(trained):
    summaries = by_name(trained.quantiles)
    checked = 0
    for mode in ("train", "eval"):
        for number, step in enumerate(trained.quantiles.history.steps(mode), 1):
            parts = [kept for (of, _, epoch), kept in trained.kept.items() if (of, epoch) == (mode, number)]
            labels, values = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
            for label, history in summaries.items():
                low, middle, high = np.quantile(values[labels == label].astype(np.float64), [0.1, 0.5, 0.9])
                shown = history[mode]["ce ($Q_{10\\%}, Q_{50\\%}, Q_{90\\%}$)"][step]
                assert tuple(shown) == (low, middle, high)
                assert list(history[mode]) == ["ce ($Q_1, Q_2, Q_3$)", "ce ($Q_{10\\%}, Q_{50\\%}, Q_{90\\%}$)", "ce"]
                checked += 1
    assert checked == 60


def test_image_saver_draws_the_picture_of_the_original(trained):
    theirs, ours = (trace.outputs[0] for trace in trained.pairs["all bounds"])
    pictures = {path.name.split("_train")[0]: path.read_bytes() for path in trained.folder.glob("*.png")}
    assert set(pictures) == {theirs, ours, "ce_by_y"}
    assert pictures[ours] == pictures[theirs]
    import matplotlib.image

    drawn = matplotlib.image.imread(trained.folder / f"{ours}_train_epoch_3.png")[::10, ::10, :3]
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 20  # lines and bands of ten colours


def test_image_viewer_shows_the_picture_of_the_original(monkeypatch):
    shown = []
    monkeypatch.setattr("plotly.basedatatypes.BaseFigure.show", lambda figure, **_: shown.append(figure.to_dict()))
    for cls in (Original, LabelTracker):
        tracker = of(cls("y", "ce", bounds=ALL, mode="train"))
        for step in (1, 2, 3):
            epoch(tracker, [samples(50, step)], step=step)
        data = Data()
        tracker.on_end(data)
        quietly(ImageViewer(inputs=tracker.outputs).on_end, data)
    theirs, ours = shown
    assert len(ours["data"]) >= 3 * 5
    assert repr(ours) == repr(theirs)


def test_datasets_kept_apart_are_lines_of_their_own(trained):
    def lines(tracker):
        figure = quietly(plot_logs, list(tracker.label_summaries.values()))
        return {trace.name for trace in figure.data if trace.name}

    assert {"3 (a eval)", "3 (b eval)", "3 (train)"} <= lines(trained.split)
    assert not {line for line in lines(trained.pairs["all bounds"][1]) if "(a" in line}


def test_traceability_writes_its_report_with_the_graph_in_it(tmp_path):
    missing = {package for tool, package in TOOLS.items() if shutil.which(tool) is None}
    if missing and not REQUIRED:
        pytest.skip(f"Traceability needs the Debian packages {', '.join(sorted(missing))}")
    tracker = LabelTracker("y", "ce", {"three": 3, "eight": 8}, bounds=ALL, mode=BOTH, split_ds=True)
    pipeline = digits()
    traces = [tracker, Traceability(save_path=str(tmp_path))]
    estimator = fe.Estimator(pipeline=pipeline, network=network("torch"), epochs=2, traces=traces, log_steps=0)
    quietly(estimator.fit, "digits")
    report = tmp_path / "digits.pdf"
    text = subprocess.run(["pdftotext", "-layout", report, "-"], capture_output=True, text=True, check=True).stdout
    assert "labeltrack.integrations.fastestimator.LabelTracker" in text
    described = {line.split()[0]: line.split(maxsplit=1)[1] for line in text.splitlines() if len(line.split()) > 1}
    assert described["split_ds"] == "True"
    assert "three" in described["label_mapping"]
    assert r"resources/digits_custom_graph_0.png" in (tmp_path / "digits.tex").read_text(encoding="utf-8")
    images = subprocess.run(["pdfimages", "-list", report], capture_output=True, text=True, check=True).stdout
    assert images.count("image") >= 2  # logs, and the graph of the tracker


# -- interrupted runs ---------------------------------------------------------------------------------------------


@traceable(blacklist="epoch")
class Power(Trace):
    """Fails at the beginning of an epoch."""

    def __init__(self, epoch):
        super().__init__(mode="train")
        self.epoch = epoch

    def on_epoch_begin(self, data):  # noqa: ARG002
        if self.system.epoch_idx == self.epoch:
            msg = "the power is gone"
            raise RuntimeError(msg)


@traceable()
class ByEpoch(TensorOp):
    """A metric that depends on sample and epoch alone, so that a run can be compared with another."""

    def forward(self, data, state):
        return data / (1 + tf.cast(state["epoch"], tf.float32))


def steady(traces, folder=None, fails=None):
    """An estimator of five epochs that can be interrupted."""
    labels, values = samples(300, classes=10)

    def dataset(start, end):
        return fe.dataset.NumpyDataset({"y": labels[start:end], "v": values[start:end]})

    traces = [*traces, *([RestoreWizard(folder), Power(fails)] if folder else [])]
    pipeline = fe.Pipeline(
        train_data=dataset(0, 192), eval_data={"a": dataset(192, 250), "b": dataset(250, 300)}, batch_size=32
    )
    net = fe.Network([ByEpoch(inputs="v", outputs="ce")])
    return fe.Estimator(pipeline=pipeline, network=net, epochs=5, traces=traces, log_steps=0)


def test_a_run_restored_by_restore_wizard_goes_on_with_the_same_history(tmp_path, monkeypatch):
    # FastEstimator gives a class its own __getstate__ only if there is none. Since Python 3.11 there always is one,
    # which returns everything, and RestoreWizard cannot load even its own state. This is what they would be given.
    for cls in (Trace, TensorOp, fe.dataset.NumpyDataset):
        monkeypatch.setattr(cls, "__getstate__", fe.util.traceability_util.__getstate__, raising=False)
    options = {"bounds": ALL, "mode": BOTH}
    original, whole = Original("y", "ce", **options), LabelTracker("y", "ce", record_to=tmp_path / "whole", **options)
    quietly(steady([original, whole]).fit)
    folder = str(tmp_path / "state")
    first = LabelTracker("y", "ce", record_to=tmp_path / "resumed", **options)
    with pytest.raises(RuntimeError, match="the power is gone"):
        quietly(steady([first], folder, fails=4).fit)
    first.close()
    resumed = LabelTracker("y", "ce", record_to=tmp_path / "resumed", **options)
    estimator = steady([resumed], folder)
    quietly(estimator.fit)
    assert resumed.system is estimator.system
    assert contents(whole.label_summaries.values()) == contents(original.label_summaries.values())
    assert by_name(resumed) == by_name(whole)
    assert dict_of(resumed.history) == dict_of(whole.history)
    for name, live in (("whole", whole), ("resumed", resumed)):
        run = lt.open_run(tmp_path / name)  # complete as soon as the training has ended
        recomputed = run.recompute(progress=False)
        assert dict_of(recomputed) == dict_of(live.history)
        assert (recomputed.bounds, run.info()["sessions"]) == (live.history.bounds, 1 + (name == "resumed"))
        live.close()
        assert run.verify(progress=False).ok
    steps = {step for history in by_name(resumed).values() for steps in history["eval"].values() for step in steps}
    assert steps == {6, 12, 18, 24, 30}
    assert contents(estimator.system.custom_graphs["ce_by_y"]) == contents(resumed.label_summaries.values())


def dict_of(history):
    return {key: rows(stats) for key, stats in history.items()}


def test_a_state_saved_in_the_middle_of_an_epoch_has_the_samples_so_far(tmp_path):
    options = {"bounds": ALL, "label_mapping": {"one": 1, "two": 2}}
    parts = [samples(50, seed) for seed in range(4)]
    original, first, second = (
        of(Original("y", "ce", **options)),
        *(of(LabelTracker("y", "ce", **options)) for _ in "ab"),
    )
    for tracker in (original, first):
        epoch(tracker, parts[:2], step=2)
        tracker.on_batch_end(Data({"y": parts[2][0], "ce": parts[2][1]}))
    first.system.save_state(str(tmp_path))
    mine = second.system
    second.system.load_state(str(tmp_path))
    assert second.system is mine
    for tracker in (original, second):
        epoch(tracker, parts[3:], step=4)
    assert contents(second.label_summaries.values()) == contents(original.label_summaries.values())
    labels, values = (np.concatenate([part[i] for part in parts[2:]]) for i in (0, 1))
    kept = np.isin(labels, [1, 2])
    assert rows(second.history.at(4)) == expected_by_label(labels[kept].tolist(), values[kept].tolist())


def test_a_saved_run_is_not_loaded_into_a_tracker_of_something_else(tmp_path):
    first, second = of(LabelTracker("y", "ce")), of(LabelTracker("y", "acc"))
    epoch(first, [samples(20)], step=1)
    first.system.save_state(str(tmp_path))
    with pytest.raises(ValueError, match="'ce' cannot be loaded into a tracker of 'acc'"):
        second.system.load_state(str(tmp_path))


def test_a_run_of_the_original_is_not_taken_for_one_of_ours(tmp_path):
    first, second = of(Original("y", "ce")), of(LabelTracker("y", "ce"))
    epoch(first, [samples(20)], step=1)
    first.system.save_state(str(tmp_path))
    epoch(second, [samples(20)], step=1)
    with pytest.raises(ValueError, match=r"fastestimator\.trace\.xai has to go on with it"):
        second.system.load_state(str(tmp_path))
    assert second.history.steps() == [1]


def test_a_restored_tracker_keeps_the_arguments_of_the_script(tmp_path):
    first, second = of(LabelTracker("y", "ce", bounds="std")), of(LabelTracker("y", "ce", bounds="range"))
    epoch(first, [samples(20)], step=1)
    first.system.save_state(str(tmp_path))
    second.system.load_state(str(tmp_path))
    epoch(second, [samples(20)], step=2)
    keys = {key: list(steps) for key, steps in by_name(second)[0]["train"].items()}
    assert keys == {"ce ($\\mu \\pm \\sigma$)": [1], "ce ($min, \\mu, max$)": [2]}
    assert second.history.steps() == [1, 2]


@pytest.mark.parametrize("again", [lambda tracker: pickle.loads(pickle.dumps(tracker)), copy.deepcopy])
def test_a_copied_tracker_goes_on_by_itself(again):
    tracker = of(LabelTracker("y", "ce", {"zero": 0, "one": 1}, bounds=ALL, mode="train", split_ds=True))
    parts = [samples(40, seed) for seed in range(3)]
    epoch(tracker, parts[:1], step=1, ds_id="a")
    tracker.on_batch_end(Data({"y": parts[1][0], "ce": parts[1][1]}))
    other = of(again(tracker))
    other.system.ds_id = "a"
    for each in (tracker, other):
        epoch(each, parts[2:], step=2, ds_id="a")
    assert contents(other.label_summaries.values()) == contents(tracker.label_summaries.values())
    assert (other.inputs, other.outputs, other.mode) == (tracker.inputs, tracker.outputs, tracker.mode)
    assert other.fe_summary() is not None
    epoch(other, parts[2:], step=3)
    assert 3 not in tracker.history.steps()


def means(trace):
    """The means in the history, as they have to be in the summaries."""
    found = {}
    for (mode, _, step), stats in trace.history.items():
        pooled = stats if len(trace.history.datasets(step, mode)) == 1 else trace.history.at(step, mode)
        for label, mean in zip(pooled.labels.tolist(), pooled.mean.tolist(), strict=True):
            found.setdefault(label, {}).setdefault(mode, {})[step] = mean
    return found


def shown(trace):
    return {
        label: {mode: keys["ce"] for mode, keys in modes.items() if "ce" in keys}
        for label, modes in by_name(trace).items()
    }


def recorded(trace):
    """How many samples the running epoch has, from a copy."""
    other = pickle.loads(pickle.dumps(trace))
    other.system = SimpleNamespace(mode=trace.system.mode, ds_id=trace.system.ds_id, global_step=10**9)
    other.on_epoch_end(Data())
    return sum(int(stats.count.sum()) for stats in other.history.datasets(10**9, trace.system.mode).values())


def new_labels(n, seed):
    """A batch of labels of which some are new, in an order of its own."""
    labels = np.random.default_rng(seed).permutation([*range(4), 10 + 2 * n, 11 + 2 * n])
    return Data({"y": labels, "ce": labels / 8 + seed})


def both_in(mode, **options):
    both = [of(cls("y", "ce", bounds=ALL, mode=None, **options), mode=mode) for cls in (Original, LabelTracker)]
    both[0].system = both[1].system
    return both


@pytest.mark.parametrize("then", ["a look", "a batch", "the end", "a copy"])
@pytest.mark.parametrize("again", [False, True], ids=["new steps", "a step done again"])
def test_an_interrupt_at_any_line_of_the_end_of_an_epoch_leaves_no_summary_behind_the_history(then, again):
    original, trace = both_in("train")
    for number, n in enumerate(itertools.count(0, stride(37, 19)), 1):
        step = trace.system.global_step = 1 if again else number
        for ds_id in ("b", "a"):
            trace.system.ds_id = ds_id
            batch = new_labels(0 if again else number, 2 * number + (ds_id == "a"))
            original.on_batch_end(batch)
            trace.on_batch_end(batch)
        before = shown(trace)
        original.on_epoch_end(Data())
        with At(n) as at:
            trace.on_epoch_end(Data())
        ended = means(trace) != before
        assert ended or at.raised
        if then == "a look" or not ended:
            assert shown(trace) == means(trace)
        if not ended:
            trace.on_epoch_end(Data())
        if then == "a copy":
            trace, trace.system = pickle.loads(pickle.dumps(trace)), trace.system
        elif then == "a batch":
            trace.system.mode, trace.system.ds_id = "eval", "c"
            for each in (original, trace):
                epoch(each, [samples(5, n, classes=2)], step=step, mode="eval", ds_id="c")
            trace.system.mode = "train"
        elif then == "the end":
            data = Data()
            with At(n // 8):
                trace.on_end(data)
            trace.on_end(data)
            assert contents(data["ce_by_y"]) == contents(original.label_summaries.values())
        if not at.raised:
            break
    assert contents(trace.label_summaries.values()) == contents(original.label_summaries.values())
    assert n > 100


def test_an_interrupt_at_any_line_of_a_batch_leaves_all_of_it_or_nothing():
    original, trace = both_in("train")
    for step, n in enumerate(itertools.count(0, stride(13, 5)), 1):
        trace.system.global_step, raised, rows_ = step, False, 0
        for i, ds_id in enumerate(("b", "a", "b")):
            trace.system.ds_id = ds_id
            batch = new_labels(2 * step + i % 2, 2 * step + i % 2)  # what is new comes one dataset after the other
            with At(n) as at:
                trace.on_batch_end(batch)
            raised |= at.raised
            if not at.raised or recorded(trace) > rows_:
                original.on_batch_end(batch)
                rows_ += 6
            assert recorded(trace) == rows_
        batch = new_labels(2 * step, 0)
        for each in (original, trace):
            each.on_batch_end(batch)
            each.on_epoch_end(Data())
        if not raised:
            break
    assert contents(trace.label_summaries.values()) == contents(original.label_summaries.values())
    assert n > 10


# -- behaviour of the original that its own tests pin down ---------------------------------------------------------


@pytest.mark.parametrize("cls", [Original, LabelTracker])
class TestWhatTheOriginalPromises:
    epochs = ((samples(30, 1, 3), samples(30, 2, 3)), (samples(30, 3, 3), samples(30, 4, 3)))

    def run(self, cls, **options):
        tracker = of(cls(label="y", metric="ce", outputs="out", **options))
        for number, batches in enumerate(self.epochs, start=1):
            epoch(tracker, batches, step=2 * number)
        data = Data()
        tracker.on_end(data)
        return tracker, data

    def means(self, number):
        labels, values = (np.concatenate([batch[i] for batch in self.epochs[number]]) for i in (0, 1))
        return {label: row[2] for label, row in expected_by_label(labels.tolist(), values.tolist()).items()}

    def test_summaries_are_written_under_the_output_and_registered_with_the_system(self, cls):
        tracker, data = self.run(cls, bounds=None)
        assert data["out"] == tracker.system.custom_graphs["out"]
        assert "out" not in data.read_logs()
        assert [type(summary).__name__ for summary in data["out"]] == ["Summary"] * 3

    def test_a_saved_state_has_the_summaries_of_all_epochs(self, cls, tmp_path):
        tracker, _ = self.run(cls, bounds=[None, "range"])
        tracker.system.save_state(str(tmp_path))
        fresh = of(cls(label="y", metric="ce", outputs="out", bounds=[None, "range"]))
        kept = fresh.system
        kept.load_state(str(tmp_path))
        loaded = list(kept.traces[-1].label_summaries.values())
        for number in (0, 1):
            step = 2 * number + 2
            assert {s.name: s.history["train"]["ce"][step] for s in loaded} == self.means(number)

    def test_the_output_is_named_after_metric_and_label(self, cls):
        assert cls("y", "ce").outputs == ["ce_by_y"]
        assert cls("y", "ce", outputs="out").outputs == ["out"]

    def test_the_keys_are_readable_and_are_the_inputs(self, cls):
        tracker = cls("y", "ce")
        assert (tracker.label_key, tracker.metric_key, tracker.inputs) == ("y", "ce", ["y", "ce"])

    def test_it_runs_in_eval_unless_told_otherwise(self, cls):
        assert cls("y", "ce").mode == {"eval"}
        assert cls("y", "ce", mode="!train").mode == {"eval", "test", "infer"}
        assert cls("y", "ce", ds_id=["a", "b"]).ds_id == {"a", "b"}

    def test_arguments_are_readable(self, cls):
        tracker = cls("y", "ce", {"zero": 0}, bounds=["std", None])
        assert (tracker.label_mapping, tracker.bounds) == ({0: "zero"}, {"std", None})
        assert cls("y", "ce", {}).label_mapping is None

    def test_an_unknown_bound_is_refused(self, cls):
        with pytest.raises(ValueError, match="'std'"):
            cls("y", "ce", bounds="stdev")

    def test_labels_that_appear_late_get_a_summary_of_the_later_steps(self, cls):
        tracker = of(cls("y", "ce", bounds=None))
        epoch(tracker, [(np.array([1, 1]), np.array([1.0, 3.0]))], step=1)
        epoch(tracker, [(np.array([7, 1]), np.array([4.0, 5.0]))], step=2)
        assert by_name(tracker) == {1: {"train": {"ce": {1: 2.0, 2: 5.0}}}, 7: {"train": {"ce": {2: 4.0}}}}

    def test_one_sample_of_a_label_has_no_spread(self, cls):
        tracker = of(cls("y", "ce"))
        epoch(tracker, [(np.array([1]), np.array([0.1]))], step=1)
        assert by_name(tracker) == {1: {"train": {"ce ($\\mu \\pm \\sigma$)": {1: (0.1, 0.1, 0.1)}}}}

    def test_an_epoch_without_samples_leaves_no_trace(self, cls):
        tracker = of(cls("y", "ce"))
        epoch(tracker, [], step=1)
        data = Data()
        tracker.on_end(data)
        assert data["ce_by_y"] == []

    def test_a_step_done_again_replaces_its_values(self, cls):
        tracker = of(cls("y", "ce", bounds=None))
        for factor in (1.0, 2.0):
            epoch(tracker, [(np.array([1, 2]), np.array([1.0, 3.0]) * factor)], step=5, mode="eval")
        assert by_name(tracker) == {1: {"eval": {"ce": {5: 2.0}}}, 2: {"eval": {"ce": {5: 6.0}}}}

    def test_a_test_without_training_has_no_step(self, cls):
        tracker = of(cls("y", "ce", bounds=None))
        epoch(tracker, [(np.array([1]), np.array([0.5]))], step=None, mode="test")
        assert by_name(tracker) == {1: {"test": {"ce": {None: 0.5}}}}


def test_the_signature_begins_with_that_of_the_original():
    def plain(cls):
        return [(p.name, p.default, p.kind) for p in inspect.signature(cls).parameters.values()]

    assert plain(LabelTracker)[:7] == plain(Original)
    assert all(kind is inspect.Parameter.KEYWORD_ONLY for _, _, kind in plain(LabelTracker)[7:])


def test_the_example_of_the_docstring_runs():
    assert doctest.testmod(module).attempted >= 2
    assert doctest.testmod(module).failed == 0


# -- batches ------------------------------------------------------------------------------------------------------


KINDS = {
    "numpy": np.copy,
    "torch": torch.from_numpy,
    "tensorflow": tf.constant,
    "half precision torch": lambda a: torch.from_numpy(a).half() if a.dtype.kind == "f" else torch.from_numpy(a),
    "half precision tensorflow": lambda a: tf.cast(a, tf.bfloat16) if a.dtype.kind == "f" else tf.constant(a),
    "with gradients": lambda a: torch.from_numpy(a).requires_grad_(a.dtype.kind == "f"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("label_shape", [(-1,), (-1, 1)])
@pytest.mark.parametrize("value_shape", [(-1,), (-1, 1)])
def test_batches_of_any_framework_and_shape_equal_the_original(kind, label_shape, value_shape):
    original, ours = of(Original("y", "ce", bounds=ALL)), of(LabelTracker("y", "ce", bounds=ALL))
    make = KINDS[kind]
    parts = [samples(n, n) for n in (32, 32, 32, 7)]
    for tracker in (original, ours):
        epoch(tracker, [(make(y.reshape(label_shape)), make(v.reshape(value_shape))) for y, v in parts], step=1)
    assert contents(ours.label_summaries.values()) == contents(original.label_summaries.values())


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int16", "int64", "uint64", "float32", "float64", "U3"])
def test_labels_of_any_type_are_named_as_in_the_original(dtype):
    original, ours = of(Original("y", "ce", bounds=ALL)), of(LabelTracker("y", "ce", bounds=ALL))
    parts = [
        ((labels % 2 if dtype == "bool" else labels).astype(dtype), v) for labels, v in [samples(60), samples(60, 1)]
    ]
    for tracker in (original, ours):
        epoch(tracker, parts, step=1)
    assert contents(ours.label_summaries.values()) == contents(original.label_summaries.values())


def test_summaries_are_in_the_order_in_which_labels_appeared():
    labels = np.concatenate([np.full(3000, 5), [2], np.full(5000, 5), [9, 0], np.full(10_000, 2), [7]])
    values = np.linspace(0.0, 1.0, labels.shape[0])
    batches = [(labels[at : at + 250], values[at : at + 250]) for at in range(0, labels.shape[0], 250)]
    late = [(np.array([3, 9, 1]), np.ones(3))]
    original = of(Original("y", "ce", bounds=ALL))
    ours = of(LabelTracker("y", "ce", bounds=ALL))
    folded = of(LabelTracker("y", "ce", bounds=ALL, max_buffer_bytes=40_000))
    for tracker in (original, ours, folded):
        epoch(tracker, batches, step=1, mode="eval", ds_id="b")
        epoch(tracker, late, step=1, mode="train")
        epoch(tracker, batches[::-1], step=2, mode="eval", ds_id="a")
    assert [summary.name for summary in original.label_summaries.values()] == [5, 2, 9, 0, 7, 3, 1]
    assert contents(ours.label_summaries.values()) == contents(original.label_summaries.values())
    assert contents(folded.label_summaries.values()) == contents(original.label_summaries.values())


def test_a_dataset_of_a_stopped_epoch_that_does_not_come_again_counts_too():
    tracker = of(LabelTracker("y", "ce", bounds=None))
    tracker.system.ds_id = "gone"
    tracker.on_batch_end(Data({"y": np.array([8]), "ce": np.array([2.0])}))
    epoch(tracker, [(np.array([1]), np.array([3.0]))], step=1, mode="eval", ds_id="here")
    epoch(tracker, [(np.array([1]), np.array([4.0]))], step=2, mode="train", ds_id="here")
    assert by_name(tracker) == {
        1: {"eval": {"ce": {1: 3.0}}, "train": {"ce": {2: 4.0}}},
        8: {"train": {"ce": {2: 2.0}}},
    }


def test_a_plain_dict_is_a_batch_too():
    tracker = of(LabelTracker("y", "ce", bounds=None))
    tracker.on_batch_end({"y": np.array([1, 1]), "ce": np.array([1.0, 2.0])})
    with pytest.raises(KeyError, match="'ce'"):
        tracker.on_batch_end({"y": np.array([1, 1])})
    epoch(tracker, [], step=1)
    assert by_name(tracker) == {1: {"train": {"ce": {1: 1.5}}}}


TYPES = {
    "integers": ("uint8", "int8", "int16", "uint16", "int32", "int64", "uint64"),
    "reals": ("float16", "float32", "float64"),
    "bools": ("bool",),
    "words": ("U4",),
}


def random_batches(rng, kind):
    """Batches of changing size, shape, dtype and framework."""
    choose = lambda *options: options[rng.integers(len(options))]  # noqa: E731
    for _ in range(rng.integers(0, 10)):
        n = choose(32, 32, 32, 0, 1, 7, 500)
        dtype = choose(*TYPES[kind])
        labels = rng.integers(0, 2 if kind == "bools" else 90, n)
        labels = (labels / 2 if kind == "reals" else labels).astype(dtype)
        values = np.clip(rng.normal(size=n) * 10.0 ** rng.integers(-6, 5), -6e4, 6e4)
        values = values.astype(choose("float16", "float32", "float64", "int32", "bool"))
        labels, values = (choose(array, array, array[:, None]) for array in (labels, values))
        make = choose(np.copy, torch.from_numpy, tf.constant)
        # Words come as numpy has them, and torch has not every unsigned type.
        plain = kind == "words" or (make is torch.from_numpy and dtype in ("uint16", "uint64"))
        yield (labels if plain else make(labels)), make(values)


@pytest.mark.filterwarnings("ignore:no sample has a label of label_mapping")
@pytest.mark.parametrize("seed", range(40))
def test_whatever_comes_in_whatever_order_equals_the_original(seed):
    rng = np.random.default_rng(seed)
    kind = list(TYPES)[seed % 4]
    mapping = {"integers": {"a": 3, "b": 88}, "words": {"a": "3", "b": "8"}}.get(kind) if seed % 3 == 0 else None
    options = {"label_mapping": mapping, "bounds": [None, "std", "range"][: seed % 4]}
    original = of(Original("y", "ce", **options))
    ours = of(LabelTracker("y", "ce", max_buffer_bytes=int(rng.choice([2**28, 20_000, 3_000])), **options))
    for step in (1, 2, 2, 3):
        mode = rng.choice(["train", "eval"])
        for ds_id in rng.permutation(["", "a", "b"])[: rng.integers(1, 4)]:
            for labels, values in random_batches(rng, kind):
                for tracker in (original, ours):
                    tracker.system.mode, tracker.system.ds_id = mode, ds_id
                    tracker.on_batch_end(Data({"y": labels, "ce": values}))
            if rng.random() < 0.2:
                ours = of(pickle.loads(pickle.dumps(ours)))
        for tracker in (original, ours):
            epoch(tracker, [], step=step, mode=mode)
    assert contents(ours.label_summaries.values()) == contents(original.label_summaries.values())


def test_samples_of_an_epoch_that_was_stopped_early_count_to_the_next_as_in_the_original():
    original, ours = of(Original("y", "ce", bounds=ALL)), of(LabelTracker("y", "ce", bounds=ALL))
    for tracker in (original, ours):
        tracker.on_batch_end(Data({"y": np.array([1, 2]), "ce": np.array([1.0, 2.0])}))
        tracker.on_end(Data())
        epoch(tracker, [samples(20)], step=1)
    assert contents(ours.label_summaries.values()) == contents(original.label_summaries.values())


# -- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0.5, np.float32(0.5)])
def test_an_averaged_loss_is_told_to_use_average_loss_false(value):
    tracker = of(LabelTracker("y", "ce", bounds=None))
    good = Data({"y": np.array([0, 1]), "ce": np.array([1.0, 2.0])})
    tracker.on_batch_end(good)
    for scalar in (value, np.array(value), torch.tensor(value), tf.constant(value)):
        with pytest.raises(ValueError, match="average_loss=False"):
            tracker.on_batch_end(Data({"y": np.array([0, 1]), "ce": scalar}))
    epoch(tracker, [], step=1)
    assert by_name(tracker) == {0: {"train": {"ce": {1: 1.0}}}, 1: {"train": {"ce": {1: 2.0}}}}


def test_a_training_with_an_averaged_loss_is_told_what_to_do():
    net = model("torch")
    ops = [ModelOp(model=net, inputs="x", outputs="p"), CrossEntropy(inputs=("p", "y"), outputs="ce")]
    estimator = fe.Estimator(
        pipeline=digits(), network=fe.Network(ops), epochs=1, traces=[LabelTracker("y", "ce")], log_steps=0
    )
    with pytest.raises(ValueError, match="average_loss=False in FastEstimator"):
        quietly(estimator.fit)


def test_a_missing_key_lists_those_that_are_there():
    tracker = of(LabelTracker("y", "ce"))
    with pytest.raises(KeyError, match=r"'ce'.*'y'"):
        tracker.on_batch_end(Data({"y": np.array([0, 1]), "cross": np.array([1.0, 2.0])}))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"label_mapping": {0: "zero"}}, TypeError, "wrong way round"),
        ({"label_mapping": {"a": 0, "b": 0}}, ValueError, "two names"),
        ({"bounds": ["std", "iqd"]}, ValueError, "'iqd'"),
        ({"bounds": 3}, ValueError, "allowed are"),
        ({"nan_policy": "drop"}, ValueError, "nan_policy"),
        ({"missing": "drop"}, ValueError, "missing"),
        ({"max_buffer_bytes": 0}, ValueError, "max_buffer_bytes"),
        ({"mode": "training"}, AssertionError, "Invalid modes"),
        ({"mode": ["!train", "eval"]}, AssertionError, "cannot mix"),
        ({"ds_id": ["!a", "b"]}, AssertionError, "cannot mix"),
        ({"label": 3}, TypeError, "label must be a string"),
    ],
)
def test_wrong_arguments_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        LabelTracker(**{"label": "y", "metric": "ce"} | options)


def test_nan_are_treated_as_the_policy_says():
    labels, values = np.array([0, 0, 1]), np.array([1.0, np.nan, 4.0])
    spread = of(LabelTracker("y", "ce", bounds=ALL))
    epoch(spread, [(labels, values)], step=1)
    zero = by_name(spread)[0]["train"]
    assert np.isnan([zero["ce"][1], *zero["ce ($\\mu \\pm \\sigma$)"][1], *zero["ce ($min, \\mu, max$)"][1]]).all()
    omitting = of(LabelTracker("y", "ce", bounds=None, nan_policy="omit"))
    epoch(omitting, [(labels, values)], step=1)
    assert by_name(omitting)[0] == {"train": {"ce": {1: 1.0}}}
    raising = of(LabelTracker("y", "ce", bounds=None, nan_policy="raise"))
    with pytest.raises(ValueError, match="NaN"):
        epoch(raising, [(labels, values)], step=1)


def test_quantiles_of_samples_that_were_folded_are_an_error_once_and_training_ends_as_ever():
    tracker = of(LabelTracker("y", "ce", bounds=[None, "range", "iqr"], max_buffer_bytes=4000))
    parts = [samples(200, seed) for seed in range(5)]
    with (
        pytest.warns(lt.LabelTrackWarning, match="no quantiles"),
        pytest.raises(ValueError, match="max_buffer_bytes was full"),
    ):
        epoch(tracker, parts, step=1)
    epoch(tracker, parts[:1], step=2)
    data = Data()
    tracker.on_end(data)
    assert [list(summary.history["train"]["ce ($min, \\mu, max$)"]) for summary in data["ce_by_y"]] == [[1, 2]] * 5


@pytest.mark.parametrize("mapping", [None, {"one": 1, "two": 2}])
def test_missing_labels_are_an_error_or_left_out_or_of_a_label_of_their_own(mapping):
    labels, values = np.ma.masked_array([1, 0, 2, 0], [0, 1, 0, 1]), np.array([1.0, 2.0, 4.0, 8.0])
    refusing = of(LabelTracker("y", "ce", mapping))
    with pytest.raises(ValueError, match="2 of 4 labels are missing"):
        epoch(refusing, [(labels, values)], step=1)
    one, two = ("one", "two") if mapping else (1, 2)
    for missing, sums in (("skip", {one: 1.0, two: 4.0}), ("label", {one: 1.0, "(missing)": 5.0, two: 4.0})):
        tracker = of(LabelTracker("y", "ce", mapping, bounds=None, missing=missing))
        epoch(tracker, [(labels, values)], step=1)
        assert by_name(tracker) == {name: {"train": {"ce": {1: mean}}} for name, mean in sums.items()}
        again = pickle.loads(pickle.dumps(tracker))
        assert by_name(again) == by_name(tracker)


def test_a_mapping_that_fits_no_label_is_warned_of():
    tracker = of(LabelTracker("y", "ce", {"ninety": 90}))
    with pytest.warns(lt.LabelTrackWarning, match="90"):
        epoch(tracker, [samples(20)], step=1)
    assert tracker.label_summaries == {}


def test_labels_of_a_mapping_that_never_occurred_are_told_once_when_training_ends():
    tracker = of(LabelTracker("y", "ce", {"zero": 0, "ninety": 90}))
    for step in (1, 2):
        epoch(tracker, [samples(20)], step=step)
    with pytest.warns(lt.LabelTrackWarning, match="never occurred: 90, called 'ninety'") as told:
        tracker.on_end(Data())
        tracker.on_end(Data())
        tracker.close()
    assert len(told) == 1
