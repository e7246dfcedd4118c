"""Trainings with tiny models that the tests of `labeltrack.integrations.huggingface` run, also on several ranks.

The first token of a sample is its number, and tells which row of the dataset it is.
"""

from __future__ import annotations

import contextlib
import copy
import json
import os
import signal
import time
import warnings
from functools import partial
from pathlib import Path
from unittest.mock import patch

import datasets
import numpy as np
import tokenizers
import torch
import transformers
import trl
from integrations.accelerate_ranks import (  # noqa: F401 (ranks run these)
    accelerated,
    ends_with_accelerate,
    goes_on_with_accelerate,
    start,
)
from integrations.ranks import EPOCH
from torch.nn import functional

import labeltrack as lt
from labeltrack.integrations.huggingface import track

transformers.logging.set_verbosity_error()
datasets.disable_progress_bars()
torch.set_num_threads(1)

N, VOCABULARY = 37, 60
WORDS = ["<pad>", "<end>", *(f"word{n}" for n in range(2, VOCABULARY))]
DOMAINS = ["code", "math", "web"]


def rows_of(n, task, first=0):
    """Return the rows of a dataset; lengths, domains and labels vary."""
    rng = np.random.default_rng(n + first)
    rows = []
    for k in range(n):
        length = int(rng.integers(3, 9)) if task in ("tokens", "causal", "seq2seq", "sft") else 6
        ids = [first + k, *rng.integers(40, VOCABULARY, length - 1).tolist()]
        row = {"input_ids": ids, "attention_mask": [1] * length, "domain": DOMAINS[int(rng.integers(0, 3))]}
        row |= {"lang": int(rng.integers(0, 2)), "row": f"row {first + k}", "unused": "x"}
        if task == "classes":
            row["labels"] = int(rng.integers(0, 3))
        elif task == "regression":
            row["labels"] = float(rng.normal())
        elif task == "multi-label":
            row["labels"] = rng.integers(0, 2, 3).astype(float).tolist()
        elif task == "tokens":
            row["labels"] = [int(label) if rng.random() < 0.8 else -100 for label in rng.integers(0, 3, length)]
        elif task == "seq2seq":
            row["labels"] = rng.integers(2, VOCABULARY, int(rng.integers(1, 6))).tolist()
        else:  # the prompt does not count
            row["labels"] = [-100, *ids[1:]]
        rows.append(row)
    return rows


def as_texts(rows):
    """Return the rows as prompts, of which the losses do not count, and completions that TRL makes tokens of."""
    texts = []
    for row in rows:
        first, *others = [WORDS[token] for token in row.pop("input_ids")]
        texts.append({**row, "prompt": first, "completion": " " + " ".join(others)})
        del texts[-1]["attention_mask"], texts[-1]["labels"]
    return texts


def tokenizer():
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({word: n for n, word in enumerate(WORDS)}, WORDS[0]))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": WORDS[0], "eos_token": WORDS[1]}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words, **special)


def collate(samples):
    """Pad what is of different lengths."""
    batch = {}
    for name in samples[0]:
        column = [sample[name] for sample in samples]
        if isinstance(column[0], list):
            width, fill = max(map(len, column)), -100 if name == "labels" else 0
            column = [[*item, *[fill] * (width - len(item))] for item in column]
        batch[name] = torch.tensor(column)
    return batch


def without_columns(sample):
    return {name: sample[name] for name in ("input_ids", "attention_mask", "labels")}


def collate_what_i_know(samples):
    """Collate as users do who have their own columns."""
    batch = collate([without_columns(sample) for sample in samples])
    return batch | {"domain": [sample["domain"] for sample in samples]}


def collate_for_decoders(model, samples):
    batch = collate(samples)
    return batch | {"decoder_input_ids": model.prepare_decoder_input_ids_from_labels(batch["labels"])}


def model_for(task):
    torch.manual_seed(0)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    if task == "seq2seq":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2, "dropout_rate": 0.0}
        config = transformers.T5Config(vocab_size=VOCABULARY, decoder_start_token_id=0, **sizes)
        return transformers.T5ForConditionalGeneration(config)
    if task in ("causal", "sft"):
        config = transformers.LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, **small)
        return transformers.LlamaForCausalLM(config)
    config = transformers.BertConfig(
        vocab_size=VOCABULARY, num_labels=1 if task == "regression" else 3, **small, **still
    )
    if task == "tokens":
        return transformers.BertForTokenClassification(config)
    if task == "multi-label":
        config.problem_type = "multi_label_classification"
    return transformers.BertForSequenceClassification(config)


def plain_losses(model, inputs, task, args):
    """Return the losses of each sample of a batch, by a plain loop over its logits: ``[row, [losses]]``."""
    logits = model(
        **inputs, return_dict=True
    ).logits.detach()  # attention that needs no gradients may be another kernel
    log_probs = model(**inputs, fused_lm_head=True).log_probs.detach() if task == "sft" else None
    found = []
    for k, row in enumerate(inputs["input_ids"][:, 0].tolist()):
        labels, of = inputs["labels"][k], logits[k].float()
        if task == "regression":
            values = [(of[0] - labels) ** 2]
        elif task == "multi-label":
            values = [functional.binary_cross_entropy_with_logits(of, labels)]
        elif task == "classes":
            values = [functional.cross_entropy(of[None], labels[None])]
        else:
            if task in ("causal", "sft"):
                of, labels = of[:-1], labels[1:]
            kept = labels != -100
            values = functional.cross_entropy(of[kept], labels[kept], reduction="none")
            if log_probs is not None:
                if not args.bf16:
                    torch.testing.assert_close(values, -log_probs[k][kept], rtol=1e-4, atol=1e-5)
                values = -log_probs[k][kept]
        found.append([row, [float(value) for value in values]])
    return found


def watched(trainer_class, task, seen):
    """Return a trainer that also computes the losses of training batches in a plain loop."""

    class Watched(trainer_class):
        def compute_loss(self, model, inputs, *arguments, **options):
            assert not {"domain", "lang", "row", "unused", "labeltrack"} & set(inputs)
            if self.model.training:
                seen.append(plain_losses(model, inputs, task, self.args))
            return super().compute_loss(model, inputs, *arguments, **options)

    return Watched


def trainer_for(task, seen, **options):
    given = {
        "output_dir": "out",
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "num_train_epochs": 2,
        "learning_rate": 0.01,
        "report_to": [],
        "eval_strategy": "epoch",
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_steps": 3,
    }
    collator = {"own": collate_what_i_know}.get(options.pop("collator", ""), collate)
    names = ("several", "lists", "tuples", "texts", "metrics")
    several, plain, tuples, texts, metrics = (options.pop(name, False) for name in names)
    made = (lambda rows: rows) if plain else lambda rows: datasets.Dataset.from_list(as_texts(rows) if texts else rows)
    train = made(rows_of(N, task))
    evaluated = (
        {"a": made(rows_of(11, task, 5)), "b": made(rows_of(3, task, 20))} if several else made(rows_of(18, task, 3))
    )
    classes = {"seq2seq": (transformers.Seq2SeqTrainer, transformers.Seq2SeqTrainingArguments)}
    classes["sft"] = trl.SFTTrainer, trl.SFTConfig
    of, arguments = classes.get(task, (transformers.Trainer, transformers.TrainingArguments))
    more = {}
    if task == "sft":
        more["processing_class"] = tokenizer()
        collator = None
    args = arguments(**given | options)
    if metrics or "batch_eval_metrics" in options:
        more["compute_metrics"] = lambda _, compute_result=True: {}  # noqa: ARG005
    model = model_for(task)
    model.config.return_dict = not tuples
    if task == "seq2seq" and args.label_smoothing_factor:  # the model gets no labels to make these of
        collator = partial(collate_for_decoders, model)
    return watched(of, task, seen)(
        model=model, args=args, train_dataset=train, eval_dataset=evaluated, data_collator=collator, **more
    )


def statistics(history):
    """Return all statistics with every bit of their numbers."""
    return [
        [mode, ds_id, step, [[row.label, *map(float.hex, map(float, row[2:]))] for row in stats]]
        for (mode, ds_id, step), stats in sorted(history.items(), key=lambda item: item[0][2])
    ]


def evaluated_plainly(trainer, task):
    """Return the losses of the evaluation datasets in a plain loop, in the batches of the trainer."""
    several = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {"": trainer.eval_dataset}
    trainer.model.eval()
    found = {}
    for name, dataset in several.items():
        rows = [{k: row[k] for k in ("input_ids", "labels")} for row in dataset]
        rows = [{**row, "attention_mask": [1] * len(row["input_ids"])} for row in rows]
        found[name] = []
        for k in range(0, len(rows), 4):
            with torch.no_grad():
                found[name] += plain_losses(trainer.model, collate(rows[k : k + 4]), task, trainer.args)
    return found


def labels_of(trainer):
    """Return domain, language and name of each row, by dataset."""
    several = trainer.eval_dataset if isinstance(trainer.eval_dataset, dict) else {"": trainer.eval_dataset}
    return {
        name: {row["input_ids"][0]: [row["domain"], row["lang"], row["row"]] for row in dataset}
        for name, dataset in {"train": trainer.train_dataset, **several}.items()
    }


class Stop(transformers.TrainerCallback):
    """Interrupts the training once a checkpoint is saved, which may be that of a step."""

    def __init__(self, step=None):
        self.step = step

    def on_step_end(self, _args, state, control, **_options):
        control.should_save = control.should_save or state.global_step == self.step

    def on_save(self, *_arguments, **_options):
        raise InterruptedError


def trains(_rank, _world):
    """Train, maybe in two parts; return the tracker's statistics and what a plain loop has."""
    case = json.loads(os.environ["CASE"])
    task, group, reduce = case.pop("task"), case.pop("group", "domain"), case.pop("reduce", "token")
    stop, seen = case.pop("stop", None), []
    if stop is not None:
        case |= {"save_strategy": "steps", "save_steps": stop}
    for first in (True, False)[stop is None :]:
        trainer = trainer_for(task, seen, **case)
        tracker = track(trainer, tuple(group) if isinstance(group, list) else group, reduce)
        if first:
            trainer.add_callback(Stop())
        # The kernels of Liger are for GPUs.
        with patch("transformers.trainer.apply_liger_kernel"), contextlib.suppress(InterruptedError):
            trainer.train(resume_from_checkpoint=stop is not None and not first)
        assert bool(tracker.pending) == first
    return {
        "history": statistics(tracker.history),
        "seen": seen,
        "evaluated": evaluated_plainly(trainer, task),
        "labels": labels_of(trainer),
        "log": trainer.state.log_history,
        "steps": trainer.state.global_step,
    }


def same_training(_rank, _world):
    """Train with and without a tracker; return the columns that the collator got, and what was learned."""
    answer = {}
    for name, task, options in (
        ("dataset", "classes", {}),
        ("lists", "classes", {"lists": True}),
        ("kept", "classes", {"remove_unused_columns": False}),
        ("tokens", "causal", {"gradient_accumulation_steps": 2}),
        ("tokens of TRL", "sft", {}),
        ("columns of its own", "sft", {}),
    ):
        answer[name] = []
        for tracked in (False, True):
            columns = set()
            trainer = trainer_for(task, [], eval_strategy="no", logging_steps=1, max_steps=3, **options)

            def seeing(samples, collator=trainer.data_collator, columns=columns):
                columns.update(*samples)
                taken = set(samples[0]) & {"input_ids", "attention_mask", "labels"}
                return collator([{name: sample[name] for name in taken} for sample in samples])

            trainer.data_collator = seeing
            before = trainer.args.to_dict()
            if name == "columns of its own":  # as SFTTrainer's are in other versions
                names = ["input_ids", "labels", "seq_lengths", "lang"]
                trainer._set_signature_columns_if_needed = partial(setattr, trainer, "_signature_columns", names)
            if tracked:
                track(trainer)
            trainer.train()
            weights = [number.hex() for p in trainer.model.parameters() for number in p.flatten().tolist()[:3]]
            losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
            answer[name].append([sorted(columns), weights, losses, before == trainer.args.to_dict()])
    return answer


def goes_on(_rank, world):
    """Train until a step, which may be the last of an epoch, from a checkpoint of another number of ranks."""
    first, last = int(os.environ["FIRST"]), int(os.environ["LAST"])
    batches = []
    sizes = {"per_device_train_batch_size": 6 // world, "num_train_epochs": 3}
    trainer = trainer_for("causal", batches, eval_strategy="no", **sizes)
    tracker, labels = track(trainer), labels_of(trainer)["train"]
    if last < 3 * EPOCH:
        trainer.add_callback(Stop(last))
    with contextlib.suppress(InterruptedError):
        trainer.train(resume_from_checkpoint=f"out/checkpoint-{first}" if first else None)
    seen = [
        ("train", step // EPOCH * EPOCH + EPOCH, labels[row][0], loss, f"{row} {token}")
        for step, batch in enumerate(batches, first)
        for row, losses in batch
        for token, loss in enumerate(losses)
    ]
    return {"seen": seen, "history": statistics(tracker.history)}


def logs_and_checkpoints(_rank, _world):
    monitored = {"metric_for_best_model": "loss_by_domain/macro_max", "greater_is_better": False}
    options = {"save_strategy": "epoch", "load_best_model_at_end": True, **monitored}
    trainer = trainer_for("classes", [], **options)
    trainer.data_collator = transformers.DataCollatorWithPadding(tokenizer())  # which is saved with the model
    tracker = track(trainer)
    trainer.train()
    again = trainer.evaluate()
    predicted = trainer.predict(trainer.train_dataset)
    return {
        "log": trainer.state.log_history,
        "again": again,
        "predicted": predicted.metrics,
        "best": trainer.state.best_metric,
        "history": statistics(tracker.history),
        "files": sorted(map(str, [*Path("out").glob("*/labeltrack.pt"), *Path("out").glob("*/tokenizer.json")])),
        "evaluated": evaluated_plainly(trainer, "classes"),
        "labels": labels_of(trainer),
    }


def odd_trainings(_rank, _world):
    """Train, not from end to end of the data; return the statistics and what a plain loop has."""
    answer = {}
    for name, task, options in (
        ("steps", "causal", {"max_steps": 5, "gradient_accumulation_steps": 3}),
        ("stream", "causal", {"max_steps": 12}),
        ("drawn", "classes", {"num_train_epochs": 1}),
        ("whole batches", "classes", {"num_train_epochs": 1, "dataloader_drop_last": True}),
    ):
        seen = []
        trainer = trainer_for(task, seen, eval_strategy="no", **options)
        labels = labels_of(trainer)["train"]
        if name == "stream":
            trainer.train_dataset = trainer.train_dataset.to_iterable_dataset()
        if name == "drawn":  # more often than there are samples
            sampler = torch.utils.data.WeightedRandomSampler([1.0] * N, 50)
            trainer._get_train_sampler = lambda *_, sampler=sampler: sampler
        tracker = track(trainer)
        trainer.train()
        answer[name] = [statistics(tracker.history), seen, labels, len(tracker.pending)]
    return answer


def evaluations_by_hand(_rank, _world):
    trainer, results = trainer_for("classes", []), []
    tracker = track(trainer, sinks=[lambda result: results.append([result.mode, len(result.stats)])])
    twice = [trainer.evaluate(), trainer.evaluate()]
    other = trainer.evaluate(trainer.train_dataset, metric_key_prefix="eval_other")
    trainer.evaluate({"a": trainer.train_dataset, "b": trainer.eval_dataset})
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for dropped in (["domain"], ["domain", "labels"]):
            trainer.predict(trainer.eval_dataset.remove_columns(dropped))
        unlabelled = trainer.predict(trainer.eval_dataset.remove_columns(["labels"]), metric_key_prefix="train")
        trainer.model.train()
        trainer.compute_loss(trainer.model, collate([{"input_ids": [1, 2], "labels": 1}]))
    return {
        "history": statistics(tracker.history),
        "metrics": [{key: value for key, value in metrics.items() if "_by_" in key} for metrics in (*twice, other)],
        "evaluated": evaluated_plainly(trainer, "classes")[""],
        "labels": labels_of(trainer)[""],
        "told": [str(one.message) for one in told if one.category is lt.LabelTrackWarning],
        "sinks": results,
        "unlabelled": len(unlabelled.predictions),
    }


class Evaluates(transformers.TrainerCallback):
    """Evaluates what is trained on, and notes which metrics its evaluations have."""

    def __init__(self, trainer):
        self.trainer, self.noted = trainer, []

    def on_epoch_end(self, _args, _state, control, **_options):
        before = copy.copy(control)  # an evaluation says that none is to come
        self.trainer.evaluate(self.trainer.train_dataset, metric_key_prefix="train")
        return before

    def on_evaluate(self, *_arguments, metrics, **_options):
        step = self.trainer.state.global_step
        self.noted.append([step, *(key for key in metrics if "/macro_max" in key)])


def evaluations_of_callbacks(_rank, _world):
    """Train with a callback that is there before `track()`, and with one that is added after it."""
    answer = []
    for early in (True, False):
        seen = []
        trainer = trainer_for("classes", seen)
        trainer.eval_dataset = trainer.train_dataset
        callback = Evaluates(trainer)
        if early:
            trainer.add_callback(callback)
        tracker = callback.tracker = track(trainer)
        if not early:
            trainer.add_callback(callback)
        trainer.train()
        evaluated = evaluated_plainly(trainer, "classes")[""]
        answer.append([statistics(tracker.history), seen, callback.noted, evaluated, labels_of(trainer)[""]])
    return answer


class Shapes(torch.nn.Module):
    """A model whose labels and logits are of other shapes than those of one another."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.config, self.kind = transformers.PretrainedConfig(), kind
        self.words = torch.nn.Embedding(VOCABULARY, 2)
        if kind == "zeros":
            torch.nn.init.zeros_(self.words.weight)

    def forward(self, input_ids, labels=None, attention_mask=None):  # noqa: ARG002 (as models take it)
        first = self.words(input_ids[:, :1] if self.kind == "column" else input_ids[:, 0])
        logits = {"opposite": first - first.mean(-1, keepdim=True), "column": first[:, 0]}.get(self.kind, first)
        loss = functional.cross_entropy(logits, labels.long().view(-1), torch.tensor([1.0, 2.0]))
        return {"loss": loss + 0.1, "logits": logits}


def shapes(_rank, _world):
    """Train such models with weights of classes; return statistics and what a plain loop has."""
    answer = {}
    like = trainer_for("classes", [], eval_strategy="no", num_train_epochs=1, learning_rate=0.0)
    each, collator = partial(functional.cross_entropy, reduction="none"), collate
    for kind in ("zeros", "opposite", "column", "bytes"):
        rows = [{**row, "labels": [1]} for row in list(like.train_dataset)[:12]]
        if kind == "bytes":
            rows = [{**row, "labels": np.uint8(1)} for row in rows]
        model = Shapes(kind)
        trainer = transformers.Trainer(model, like.args, collator, train_dataset=rows)
        pick = (
            {"loss": lambda outputs, batch: each(outputs["logits"], batch["labels"].long())} if kind == "bytes" else {}
        )
        tracker = track(trainer, **pick)
        collator = trainer.data_collator  # which the next trainer gets
        collator.note = kind
        assert collate.note == collator.note == kind
        trainer.train()
        pairs = []
        for row in rows:
            logits = model(torch.tensor([row["input_ids"]]), torch.tensor([1]))["logits"]
            pairs.append([row["domain"], each(logits.view(1, 2), torch.tensor([1])).item()])
        answer[kind] = [statistics(tracker.history), pairs]
    return answer


def already_shifted(_rank, _world):
    """Evaluate a model whose labels are for the logits at the same place, though its name does not tell."""
    sizes = {"vocab_size": VOCABULARY, "d_model": 16, "decoder_layers": 1, "decoder_attention_heads": 2}
    model = transformers.BartForCausalLM(transformers.BartConfig(decoder_ffn_dim=16, **sizes))
    like = trainer_for("causal", [])
    trainer = transformers.Trainer(model, like.args, collate, like.train_dataset, like.eval_dataset)
    tracker = track(trainer)
    metrics, losses = trainer.evaluate(), []
    for k in range(0, len(like.eval_dataset), 4):
        rows = [{k: row[k] for k in ("input_ids", "attention_mask", "labels")} for row in like.eval_dataset]
        batch = collate(rows[k : k + 4])
        with torch.no_grad():
            each = functional.cross_entropy(
                model(**batch).logits.flatten(0, 1), batch["labels"].flatten(), reduction="none"
            )
        losses += each[batch["labels"].flatten() != -100].tolist()
    total = tracker.history.at(0).total()
    return [total.count, total.mean, len(losses), float(np.mean(losses)), metrics["eval_loss"]]


class Prompted(torch.nn.Module):
    """A model with learned tokens before those of the batch, as PEFT's prompt tuning makes it."""

    def __init__(self):
        super().__init__()
        self.model = model_for("causal")
        self.config, self.before = self.model.config, torch.nn.Parameter(torch.randn(1, 2, 16))

    def get_base_model(self):
        return self.model

    def forward(self, input_ids, attention_mask, labels):
        embeddings = self.model.get_input_embeddings()(input_ids)
        embeddings = torch.cat([self.before.expand(len(input_ids), -1, -1), embeddings], 1)
        labels, mask = functional.pad(labels, (2, 0), value=-100), functional.pad(attention_mask, (2, 0), value=1)
        return self.model(inputs_embeds=embeddings, attention_mask=mask, labels=labels)


def prompted(_rank, _world):
    """Evaluate such a model; return its statistics, and what a plain loop has."""
    like, model = trainer_for("causal", []), Prompted()
    trainer = transformers.Trainer(model, like.args, collate, like.train_dataset, like.eval_dataset)
    tracker = track(trainer)
    trainer.evaluate()
    pairs = []
    for row in like.eval_dataset:
        batch = collate([without_columns(row)])
        with torch.no_grad():
            logits = model(**batch).logits[0, 2:-1]
        losses = functional.cross_entropy(logits, batch["labels"][0, 1:], reduction="none")
        pairs += [[row["domain"], loss] for loss in losses.tolist()]
    return [statistics(tracker.history), pairs]


class Nameless(torch.autograd.Function):
    """The loss of a PyTorch in which autograd keeps its tensors under other names."""

    @staticmethod
    def forward(ctx, log_probs, labels):
        ctx.save_for_backward(log_probs, labels)
        return functional.nll_loss(log_probs, labels)

    @staticmethod
    def backward(ctx, grad):
        log_probs, labels = ctx.saved_tensors
        return -grad / len(labels) * functional.one_hot(labels, log_probs.shape[1]), None


Nameless._backward_cls.__name__ = "NllLossBackward0"


ANOTHER_TERM = {  # besides the cross-entropy of each token's next label
    "a term before": lambda loss, term: term + loss,
    "a term after": lambda loss, term: loss + term,
    "a sum": lambda loss, term: sum([term, loss]),
    "a stack": lambda loss, term: torch.stack([term, loss]).sum(),
    "a factor": lambda loss, term: (1 + term.detach()) * loss,
}


class Own(torch.nn.Module):
    """A model whose loss is computed in a way of its own."""

    def __init__(self, kind):
        super().__init__()
        torch.manual_seed(0)
        self.config, self.kind = transformers.PretrainedConfig(), kind
        self.words = torch.nn.Embedding(VOCABULARY, 5)

    def forward(self, input_ids, labels=None, attention_mask=None):  # noqa: ARG002 (as models take it)
        logits = self.words(input_ids)
        if self.kind == "images":  # of 2 x 3 pixels
            logits = logits.view(-1, 2, 3, 5).movedim(-1, 1)
            loss = functional.cross_entropy(logits, labels.view(-1, 2, 3))
        elif self.kind == "another softmax":
            loss = functional.nll_loss(logits.flatten(0, 1).softmax(-1).log(), labels.flatten())
        elif self.kind == "other names":
            loss = Nameless.apply(logits.flatten(0, 1).log_softmax(-1), labels.flatten())
            assert type(loss.grad_fn).__name__ == "NllLossBackward0"
        elif self.kind == "other logits":
            loss = functional.cross_entropy((2 * logits).flatten(0, 1), labels.flatten())
        elif self.kind == "another head":  # of the same step of autograd
            other, logits = torch.stack([2 * logits, logits]).unbind()
            loss = sum(functional.cross_entropy(each.flatten(0, 1), labels.flatten()) for each in (other, logits))
        elif self.kind in ANOTHER_TERM:
            loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
            loss = ANOTHER_TERM[self.kind](loss, self.words.weight.square().mean())
        elif self.kind == "a copy":
            loss = functional.cross_entropy(logits.clone().flatten(0, 1), labels.flatten())
            logits = logits.view_as(logits)
        elif self.kind == "doubles":
            loss = functional.cross_entropy(logits.double().flatten(0, 1), labels.flatten()).float()
        elif self.kind == "some tokens":
            loss = functional.cross_entropy(logits[:, :3].flatten(0, 1), labels[:, :3].flatten())
        elif self.kind == "ignored":
            loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=3)
        elif self.kind == "no cross-entropy":
            loss = logits.square().mean()
        else:
            loss = functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return {"loss": loss} if self.kind == "no logits" else {"loss": loss, "logits": logits}


class Over(transformers.Trainer):
    """Computes the gradients with the loss."""

    def compute_loss(self, *arguments, **options):
        loss = super().compute_loss(*arguments, **options)
        loss.backward()
        return loss.detach().requires_grad_()


def own_losses(_rank, _world):
    """Train models whose losses are made otherwise; return statistics, losses of a plain loop, and who was warned."""
    answer, warned = {}, []
    kinds = ["images", "another softmax", "other logits", "doubles", "some tokens", "no cross-entropy", "over", "plain"]
    for kind in [*kinds, "another head", "a copy", "other names", "no logits", "ignored", *ANOTHER_TERM]:
        like = trainer_for("classes", [], eval_strategy="no", num_train_epochs=1, learning_rate=0.0)
        rows = [{**row, "labels": [k % 5 for k in row["input_ids"]]} for row in like.train_dataset][:12]
        if kind == "images":
            rows = [{**row, "labels": [row["labels"][:3], row["labels"][3:]]} for row in rows]
        model = Own(kind)
        trainer = (Over if kind == "over" else transformers.Trainer)(model, like.args, collate, train_dataset=rows)
        tracker = track(trainer)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                trainer.train()
            except ValueError as error:
                answer[kind] = str(error)
                continue
        warned += [kind for one in told if "is the mean of no losses of tokens" in str(one.message)]
        pairs = []
        for row in rows:
            logits = model.words(torch.tensor(row["input_ids"]))
            labels = torch.tensor(row["labels"]).flatten()
            if kind in ANOTHER_TERM:
                logits, labels = logits[:-1], labels[1:]
            each = functional.cross_entropy(logits, labels, reduction="none")
            pairs += [[row["domain"], loss] for loss in each.tolist()]
        answer[kind] = [statistics(tracker.history), pairs]
        if kind in ANOTHER_TERM:  # there is no graph then
            trainer.evaluate(rows)
            answer[f"{kind}, evaluated"] = [statistics(tracker.history)[1:], pairs]
    return [answer, warned]


class Overwriting(torch.autograd.Function):
    """The mean cross-entropy, which writes its gradients where logits were, as Liger's kernel does."""

    @staticmethod
    def forward(ctx, logits, labels, smoothing, always):
        counted, log_probs = labels != -100, logits.detach().float().log_softmax(1)
        loss = (1 - smoothing) * functional.nll_loss(log_probs, labels) - smoothing * log_probs[counted].mean()
        if logits.requires_grad or always:  # in older versions
            target = (1 - smoothing) * functional.one_hot(labels.clamp(min=0), logits.shape[1])
            target += smoothing / logits.shape[1]
            logits.data[:] = (log_probs.exp() - target) * counted[:, None] / counted.sum()
            ctx.save_for_backward(logits.detach())
        return loss

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None, None, None


def replaced(logits, labels, *_arguments, **_options):
    """Compute what Liger puts in the place of `torch.nn.functional.cross_entropy`."""
    return Overwriting.apply(logits, labels, 0.0, True)


class Kernels(torch.nn.Module):
    """A model of tokens, or of classes, whose loss is one of those that do not leave its logits."""

    def __init__(self, kind, classes):
        super().__init__()
        torch.manual_seed(0)
        self.config, self.kind, self.classes = transformers.PretrainedConfig(), kind, classes
        self.words = torch.nn.Embedding(VOCABULARY, classes or VOCABULARY)

    def forward(self, input_ids, labels=None, attention_mask=None):  # noqa: ARG002 (as models take it)
        logits = 2 * self.words(input_ids[:, 0] if self.classes else input_ids)
        if self.kind == "opposite":  # so that rows sum to zero; all are wrong
            logits = torch.stack([logits[:, 0].square(), -logits[:, 0].square()], 1)
        if labels is None:
            return {"logits": logits}
        labels = (labels if self.classes else functional.pad(labels[:, 1:], (0, 1), value=-100)).flatten()
        flat, term = logits.flatten(0, -2), self.words.weight.square().mean()
        if self.kind in ("none", "empty", "lazy", "last", "opposite"):
            loss = term + functional.cross_entropy(flat.clone(), labels)
        else:
            flat = flat.clone() if self.kind == "a copy" else flat
            loss = Overwriting.apply(flat, labels, 0.1 * (self.kind == "smoothing"), self.kind == "always")
        for _ in range(40 * (self.kind == "term")):  # which hide it in the graph
            term = term + 1e-3 * self.words.weight.mean()
        loss = sum([term, loss]) if self.kind == "term" else loss
        others = {"none": None, "empty": torch.empty(0), "lazy": self, "last": logits[:, -1:]}
        return {"loss": loss, "logits": others.get(self.kind, logits)}


def function(outputs, labels, **_options):
    """Compute a loss as `compute_loss_func`."""
    labels = functional.pad(labels[:, 1:], (0, 1), value=-100)
    return Overwriting.apply(outputs["logits"].flatten(0, 1), labels.flatten(), 0.0, False)


def kernels(_rank, _world):
    """Train or evaluate models with such losses; return errors, or statistics and what a plain loop has."""
    answer = {}
    cases = [(kind, 0, "train") for kind in ("plain", "term", "smoothing", "a copy", "none", "empty", "lazy", "last")]
    cases += [("function", 0, "train"), ("own values", 0, "train")]
    cases += [(kind, classes, "eval") for kind in ("plain", "always", "replaced") for classes in (0, 3)]
    like = trainer_for("classes", [], eval_strategy="no", num_train_epochs=1, learning_rate=0.0)
    for kind, classes, mode in [*cases, ("plain", 3, "train"), ("opposite", 2, "train")]:
        rows = [{**row, "labels": k % 3 if classes else row["input_ids"]} for k, row in enumerate(like.train_dataset)]
        rows = [{**row, "labels": 1} if classes == 2 else row for row in rows[:12]]
        model, more = Kernels(kind, classes), {"compute_loss_func": function} if kind == "function" else {}
        trainer = transformers.Trainer(model, like.args, collate, train_dataset=rows, **more)
        pick = {"loss": lambda outputs, _batch: outputs["logits"][:, 0, 0]} if kind == "own values" else {}
        tracker = track(trainer, **pick)
        with patch("torch.nn.functional.cross_entropy", replaced) if kind == "replaced" else contextlib.nullcontext():
            try:
                trainer.train() if mode == "train" else trainer.evaluate(rows)
            except ValueError as error:
                answer[f"{kind}, {classes}, {mode}"] = str(error)
                continue
        pairs = []
        for row in rows:
            logits = model(torch.tensor([row["input_ids"]]))["logits"][0]
            labels = torch.tensor([row["labels"]]).flatten()[0 if classes else 1 :]
            each = functional.cross_entropy(logits.view(-1, logits.shape[-1])[: len(labels)], labels, reduction="none")
            pairs += [[row["domain"], loss] for loss in each.tolist()]
        answer[f"{kind}, {classes}, {mode}"] = [statistics(tracker.history), pairs]
    return answer


class Several(transformers.Trainer):
    """Runs the model once more for a term of the loss."""

    def compute_loss(self, model, inputs, return_outputs=False, **options):
        other = {**inputs, "input_ids": inputs["input_ids"].flip(1)}
        if self.more == "others first":
            term = model(**other)["loss"]
        elif self.more == "pseudo-labels":
            with torch.no_grad():
                term = model(input_ids=inputs["input_ids"])["logits"].argmax(2)
            inputs = {**inputs, "input_ids": (inputs["input_ids"] + 1) % VOCABULARY}
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True, **options)
        if self.more == "others last":
            term = model(**other)["loss"]
        elif self.more == "no labels":
            term = model(input_ids=inputs["input_ids"])["logits"].square().mean()
        elif self.more == "twice":
            term = model(**inputs)["loss"]
        elif self.more == "reference":
            with torch.no_grad(), patch.object(self.model.lm_head, "weight", torch.nn.Parameter(self.reference)):
                term = model(**inputs)["loss"]
        loss = loss + (term if term.is_floating_point() else 0)
        return (loss, outputs) if return_outputs else loss


def several_runs(_rank, _world):
    """Train and evaluate such trainers; return the total of each mode, that of a plain loop, and who was warned."""
    answer = {}
    for more in ("others first", "others last", "no labels", "twice", "reference", "pseudo-labels"):
        trainer = trainer_for("causal", [], learning_rate=0.0, num_train_epochs=1)
        trainer = Several(trainer.model, trainer.args, collate, trainer.train_dataset, trainer.eval_dataset)
        trainer.more, trainer.reference = more, torch.zeros_like(trainer.model.lm_head.weight)
        tracker = track(trainer)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            trainer.train()
        totals = [tracker.history.at(trainer.state.global_step, mode).total() for mode in ("train", "eval")]
        plain = []
        for dataset in (trainer.train_dataset, trainer.eval_dataset):
            losses = []
            for row in dataset:
                batch = collate([without_columns(row)])
                batch["input_ids"] = (batch["input_ids"] + (more == "pseudo-labels")) % VOCABULARY
                losses += plain_losses(trainer.model, batch, "causal", trainer.args)[0][1]
            plain.append([len(losses), float(np.mean(losses))])
        warned = sum("runs several times for one batch" in str(one.message) for one in told)
        answer[more] = [[[total.count, total.mean] for total in totals], plain, warned]
    return answer


class Clipped(torch.nn.Module):
    """A model that learns labels beyond its classes as the last one."""

    def __init__(self, seen):
        super().__init__()
        torch.manual_seed(0)
        self.config, self.seen = transformers.PretrainedConfig(), seen
        self.words = torch.nn.Embedding(VOCABULARY, 3)

    def forward(self, input_ids, labels=None, attention_mask=None):  # noqa: ARG002 (as models take it)
        self.seen.append(input_ids[:, 0].tolist())
        logits = self.words(input_ids[:, 0])
        return {"loss": functional.cross_entropy(logits, labels.clamp(max=2)), "logits": logits}


def beyond_the_classes(_rank, _world):
    """Train with one such label, with and without a tracker; return what it says, keeps, and a plain loop has."""
    answer = []
    like = trainer_for("classes", [], eval_strategy="no", num_train_epochs=1, learning_rate=0.0)
    rows = [{**row, "labels": 7 if k == 5 else row["labels"]} for k, row in enumerate(like.train_dataset)][:20]
    for tracked in (False, True):
        seen = []
        model = Clipped(seen)
        trainer = transformers.Trainer(model, like.args, collate, train_dataset=rows)
        tracker = track(trainer) if tracked else None
        try:
            trainer.train()
        except ValueError as error:
            answer.append(str(error))
        answer.append(trainer.state.global_step)
    pairs = []
    for row in [rows[k] for batch in seen if 5 not in batch for k in batch]:
        logits = model.words(torch.tensor(row["input_ids"][:1]))
        pairs.append([row["domain"], functional.cross_entropy(logits, torch.tensor([row["labels"]])).item()])
    number = [5 in batch for batch in seen].index(True) + 1
    kept = [[row.label, *map(float.hex, map(float, row[2:]))] for row in tracker.compute("train")]
    return [*answer, number, kept, pairs]


def made_anew(_rank, _world):
    """Train with models that the trainer makes, once from a checkpoint that has no state of ours."""
    answer, seen = [], []
    like = trainer_for("classes", [], save_strategy="epoch")
    data = {"train_dataset": like.train_dataset, "eval_dataset": like.eval_dataset, "data_collator": collate}
    made = {"model_init": lambda: model_for("classes"), "args": like.args, **data}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for resumed in (None, "out/checkpoint-10"):
            trainer = watched(transformers.Trainer, "classes", seen)(**made)
            tracker = track(trainer)
            trainer.evaluate()  # of a model that training replaces
            trainer.train(resume_from_checkpoint=resumed)
            answer.append([statistics(tracker.history), seen[:]])
            seen.clear()
            Path("out/checkpoint-10/labeltrack.pt").unlink(missing_ok=True)
    texts = [str(one.message) for one in told if one.category is lt.LabelTrackWarning]
    return [
        answer,
        labels_of(like)["train"],
        # The plain loop runs the model, too.
        [text for text in texts if "the model runs several times" not in text],
    ]


def fails_in_evaluation(_rank, _world):
    """Evaluate, fail in the middle of it, and evaluate again."""
    trainer = trainer_for("classes", [])
    tracker = track(trainer)
    trainer.evaluate()
    before = statistics(tracker.history)
    forward, calls = trainer.model.forward, []

    def failing(*arguments, **options):
        calls.append(1)
        if len(calls) == 3:
            msg = "the model failed"
            raise ArithmeticError(msg)
        return forward(*arguments, **options)

    trainer.model.forward = failing
    with contextlib.suppress(ArithmeticError):
        trainer.evaluate()
    pending = len(tracker.pending)
    trainer.evaluate()
    return [before, statistics(tracker.history), pending, len(calls)]


def packs(_rank, _world):
    like = trainer_for("causal", [], eval_strategy="no")
    collator = transformers.DataCollatorWithFlattening()
    trainer = transformers.Trainer(like.model, like.args, collator, like.train_dataset)
    track(trainer)
    try:
        trainer.train()
    except ValueError as error:
        return str(error)


def streams(_rank, _world):
    """Train on a dataset without a length, on two ranks."""
    answer = {}
    try:
        track(trainer_for("classes", [], accelerator_config={"dispatch_batches": True}))  # a dataset with a length
    except ValueError as error:
        answer["dispatched"] = str(error)
    for dispatch in (None, False):
        seen = []
        trainer = trainer_for(
            "classes", seen, max_steps=5, eval_strategy="no", accelerator_config={"dispatch_batches": dispatch}
        )
        trainer.train_dataset = trainer.train_dataset.to_iterable_dataset()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                tracker = track(trainer, ids="row", on_duplicate="first")
            except ValueError as error:
                answer["error"] = str(error)
                continue
        trainer.train()
        answer["told"] = [str(one.message) for one in told if one.category is lt.LabelTrackWarning]
        answer["counts"] = [sum(stats.count.tolist()) for _, stats in tracker.history.items()]
        answer["seen"] = sum(map(len, seen))
    return answer


def ends(rank, _world):
    """Train on two ranks, of which one ends or raises in the middle."""
    case = os.environ["CASE"]
    trainer = trainer_for("classes", [], eval_strategy="no", ddp_backend="gloo")
    tracker = track(trainer)

    class Ends(transformers.TrainerCallback):
        def on_step_end(self, *_arguments, **_options):
            if rank == 1 and len(tracker.pending) and trainer.state.global_step == 3:
                if case == "killed":
                    os.kill(os.getpid(), signal.SIGKILL)
                msg = "the training step failed"
                raise ArithmeticError(msg)

    trainer.add_callback(Ends())
    began = time.monotonic()
    try:
        trainer.train()
    except RuntimeError as error:
        return [str(error), time.monotonic() - began]


def fails_to_synchronise(rank, _world):
    """Train on two ranks whose trackers differ in the state of one."""
    trainer = trainer_for("classes", [], eval_strategy="no", num_train_epochs=1)
    tracker = track(trainer)
    if rank == 1:
        tracker.state_dict = lambda **_: 1 / 0
    try:
        trainer.train()
    except (ArithmeticError, RuntimeError) as error:
        return f"{type(error).__name__}: {error}"


def many_labels(_rank, _world):
    trainer = trainer_for("classes", [], num_train_epochs=1)
    trainer.train_dataset = datasets.Dataset.from_list([{**row, "labels": 1} for row in rows_of(37, "classes")] * 2)
    rows = [{**row, "row": k} for k, row in enumerate(rows_of(37, "classes") * 2)]
    trainer.eval_dataset = datasets.Dataset.from_list(rows)
    track(trainer, "row", metric="ce")
    return trainer.evaluate()


def other_losses(_rank, _world):
    """Compute the values otherwise, and use the label of the model as group."""
    trainer = trainer_for("classes", [], num_train_epochs=1)

    def right(outputs, batch):
        return (outputs.logits.argmax(-1) == batch["labels"]).float()

    tracker = track(trainer, "labels", metric="accuracy", loss=right, bounds=None)
    metrics = trainer.evaluate()
    logits = []
    rows = [{k: row[k] for k in ("input_ids", "attention_mask", "labels")} for row in trainer.eval_dataset]
    with torch.no_grad():
        for k in range(0, len(rows), 4):
            logits += trainer.model(**collate(rows[k : k + 4])).logits.argmax(-1).tolist()
    pairs = [[row["labels"], float(row["labels"] == guess)] for row, guess in zip(rows, logits, strict=True)]
    return [statistics(tracker.history), metrics, pairs]


def with_ids(_rank, _world):
    trainer = trainer_for("causal", [])
    tracker = track(trainer, reduce="sequence", ids="row", record_to="run")
    trainer.train()
    tracker.close()
    return [statistics(tracker.history), labels_of(trainer)["train"]]


def generates(_rank, _world):
    trainer = trainer_for("seq2seq", [], predict_with_generate=True, generation_max_length=4)
    trainer.compute_metrics = lambda _: {}
    tracker = track(trainer)
    trainer.evaluate()
    answer = {"history": statistics(tracker.history), "evaluated": evaluated_plainly(trainer, "seq2seq")}
    return answer | {"labels": labels_of(trainer)}


LIGER = {"fused_linear_cross_entropy": False, "cross_entropy": True}  # which writes gradients where logits were


def refuses(_rank, _world):
    answer = {}
    for name, task, options, arguments in (
        ("column", "classes", {}, {"group": "domian"}),
        ("reduce", "classes", {}, {"reduce": "batch"}),
        ("liger", "causal", {"use_liger_kernel": True}, {}),
        ("losses of liger", "causal", {"use_liger_kernel": True, "liger_kernel_config": LIGER}, {}),
        ("liger and classes", "classes", {"use_liger_kernel": True}, {}),
        ("packing", "sft", {"packing": True, "max_length": 16}, {}),
        ("wrapped packing", "sft", {"packing": True, "packing_strategy": "wrapped", "max_length": 16}, {}),
        ("packing of evaluations", "sft", {"eval_packing": True, "max_length": 16}, {}),
        ("padding-free", "sft", {"padding_free": True, "max_length": None}, {}),
        ("gpus", "classes", {}, {}),
        ("ids of tokens", "causal", {}, {"ids": "row"}),
        ("answers", "classes", {"lists": True}, {}),
        ("twice", "classes", {}, {"group": "lang"}),
        ("tuples", "classes", {"lists": True}, {}),
    ):
        trainer = trainer_for(task, [], **options)
        if name == "answers":  # whose labels have other names
            config = trainer.model.config
            config.num_labels = 2
            model = transformers.BertForQuestionAnswering(config)
            trainer = transformers.Trainer(model, trainer.args, collate, eval_dataset=[{"domain": "code"}])
        if name == "gpus":
            trainer.args._n_gpu = 2
        try:
            track(trainer, **arguments)
            if name == "answers":
                row = {"input_ids": [40, 41], "start_positions": 0, "end_positions": 1, "domain": "code"}
                trainer.evaluate([row] * 4)
            if name == "twice":
                track(trainer)
            if name == "tuples":
                trainer.evaluate([(row["input_ids"], row["labels"]) for row in trainer.eval_dataset])
            if name == "ids of tokens":  # as many as there are samples
                labels = [[-100, -100, 5, 6], [-100] * 4, [-100, -100, -100, 5], [-100, -100, -100, 6]]
                ids = {"input_ids": [40, 41, 42, 43], "attention_mask": [1] * 4, "domain": "code"}
                trainer.evaluate([{**ids, "labels": own, "row": k} for k, own in enumerate(labels)])
        except (TypeError, ValueError) as error:
            answer[name] = str(error)
    return answer


# What is imported here is there in every process.
lt.label_stats([0], [1.0])
warnings.simplefilter("ignore")
for _task in ("classes", "tokens", "causal", "seq2seq", "sft"):
    trainer_for(_task, [])
