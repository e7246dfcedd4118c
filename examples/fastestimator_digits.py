"""On which digit is a classifier worst? Training in FastEstimator, tracked by class.

Run it with ``python fastestimator_digits.py [DIRECTORY [EPOCHS]]`` on Python 3.11 with ``labeltrack[fastestimator]``
installed. It writes graphs to the directory (by default the current one), and a PDF report if Graphviz and LaTeX are
installed.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

# FastEstimator was written for torch 2.3. The samplers of later versions take no data source …
torch.utils.data.Sampler.__init__ = lambda self, data_source=None: None  # noqa: ARG005

import fastestimator as fe
from fastestimator.dataset.dataloader import InfiniteSampler
from fastestimator.op.tensorop import LambdaOp
from fastestimator.op.tensorop.loss import CrossEntropy
from fastestimator.op.tensorop.model import ModelOp, UpdateOp
from fastestimator.trace.io import ImageSaver, Traceability
from sklearn.datasets import load_digits

from labeltrack.integrations.fastestimator import LabelTracker
from labeltrack.plot import plot_history
from labeltrack.report import history_table, show

# … and restart at every batch when an iterator is its own iterable, so that only the first batch would be seen.
begin = InfiniteSampler.__iter__
InfiniteSampler.__iter__ = lambda self: iter(begin(self).__next__, None)

out = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 20
out.mkdir(parents=True, exist_ok=True)

torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
columns = {"x": (pixels / 16).astype("float32"), "y": digits}


def part(start: int, end: int | None) -> fe.dataset.NumpyDataset:
    """Return some of the digits, which are ordered by writer: the last were written by other people than the first."""
    return fe.dataset.NumpyDataset({key: column[start:end] for key, column in columns.items()})


layers = [torch.nn.Linear(64, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)]
model = fe.build(lambda: torch.nn.Sequential(*layers), optimizer_fn=lambda w: torch.optim.Adam(w, lr=0.01))
network = fe.Network(
    [
        ModelOp(model=model, inputs="x", outputs="scores"),
        CrossEntropy(inputs=("scores", "y"), outputs="ce", from_logits=True, average_loss=False),  # per sample
        LambdaOp(fn=lambda ce: ce.mean(), inputs="ce", outputs="loss"),
        UpdateOp(model=model, loss_name="loss"),
    ]
)
tracker = LabelTracker(label="y", metric="ce", bounds=None, mode=["train", "eval"], split_ds=True)
alike = LabelTracker(
    "y", "ce", {"one": 1, "seven": 7}, bounds=["std", "range"], mode=["train", "eval"], outputs="one_and_seven"
)
pictures = ImageSaver(inputs=tracker.outputs + alike.outputs, mode=["train", "eval"], save_dir=str(out))
traces = [tracker, alike, pictures]
missing = [tool for tool in ("dot", "latexmk", "pdflatex") if shutil.which(tool) is None]
if missing:
    print(f"No report: Traceability needs {', '.join(missing)} (docs/fastestimator.md says how to install them)")
else:
    traces.append(Traceability(save_path=str(out)))

estimator = fe.Estimator(
    pipeline=fe.Pipeline(
        train_data=part(0, 1200), eval_data={"early": part(1200, 1500), "late": part(1500, None)}, batch_size=32
    ),
    network=network,
    epochs=epochs,
    traces=traces,
    log_steps=None,
)
estimator.fit("digits")

show(history_table(tracker.history))
plot_history(tracker.history, bounds="std", modes=["eval"]).savefig(out / "ce_by_y.png", dpi=150)
print("Worst of the last writers:", tracker.history.worst(3, ds_id="late"))
